-- message_delete: a worker has done its work.
BEGIN;
SELECT plan(32);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);
CREATE FUNCTION pg_temp.id(name text) RETURNS bigint LANGUAGE sql
AS $$ SELECT s.id FROM sent s WHERE s.name = $1 $$;

-- The names that one dequeue delivers, in its order; of an empty answer what it knows.
CREATE FUNCTION pg_temp.take(max_messages integer DEFAULT 1) RETURNS text[] LANGUAGE sql AS $$
    SELECT array_agg(
        CASE d.result
            WHEN 'MESSAGE_DEQUEUED' THEN convert_from(d.content, 'UTF8')
            ELSE 'empty, retry in ' || coalesce(d.retry_ms::text, 'unknown') || ' ms'
        END ORDER BY d.ordinality)
    FROM message_dequeue($1) WITH ORDINALITY AS d
$$;

-- One test: the statement raises this SQLSTATE, its message names the argument and the value, and there is a hint.
CREATE FUNCTION pg_temp.refused(sentence text, statement text, state text, argument text, value text)
RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    v_state text := 'no error';
    v_message text := '';
    v_hint text := '';
    v_ok boolean;
BEGIN
    BEGIN
        EXECUTE statement;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS
            v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT, v_hint = PG_EXCEPTION_HINT;
    END;
    v_ok := v_state = state AND v_message ~ ('\m' || argument || '\M') AND v_message ~* value AND v_hint <> '';
    RETURN NEXT ok(v_ok, sentence);
    IF NOT v_ok THEN
        RETURN NEXT diag(format('%s: %s: %s (hint: %s)', statement, v_state, v_message, v_hint));
    END IF;
END
$$;

-- All that the queue's tables hold, to see that something changed nothing.
CREATE FUNCTION pg_temp.tables() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_table regclass;
    v_rows text;
    v_all text := '';
BEGIN
    FOR v_table IN
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema() AND c.relkind = 'r' ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT string_agg(t::text, chr(10) ORDER BY t::text) FROM %s AS t', v_table) INTO v_rows;
        v_all := concat(v_all, v_table, chr(10), v_rows, chr(10));
    END LOOP;
    RETURN v_all;
END
$$;
CREATE TEMP TABLE before (step text PRIMARY KEY, tables text);

-- The worker that holds the lock

INSERT INTO sent VALUES ('a', message_create('a', 'a', 60000));
SELECT is(pg_temp.take(), '{a}', 'a worker takes a message');
SELECT is(message_delete(id => pg_temp.id('a'), num_attempts => 1), 'MESSAGE_DELETED', 'and deletes it');
SELECT is_empty($$SELECT * FROM message_status(ARRAY[pg_temp.id('a')])$$, 'it is gone');
SET pylonny_test.clock = '2030-01-02 00:00:00+00';
SELECT is(pg_temp.take(), '{"empty, retry in unknown ms"}', 'and never comes back');
SELECT is(message_delete(pg_temp.id('a'), 1), 'MESSAGE_NOT_FOUND', 'to delete it again finds nothing');
SELECT is(message_delete(pg_temp.id('a'), 2), 'MESSAGE_NOT_FOUND', 'whatever the number');
SELECT is(message_delete(9223372036854775807, 1), 'MESSAGE_NOT_FOUND', 'nor is an id found that never was');
SELECT is(message_delete(-1, 1), 'MESSAGE_NOT_FOUND', 'nor a negative one');

-- Anyone else

INSERT INTO sent VALUES ('b', message_create('b', 'b', 1000));
INSERT INTO before SELECT 'never dequeued', pg_temp.tables();
SELECT is(message_delete(pg_temp.id('b'), 0), 'MESSAGE_STATE_INVALID', 'a message that was never dequeued is not deleted under 0');
SELECT is(message_delete(pg_temp.id('b'), 1), 'MESSAGE_STATE_INVALID', 'nor under the number it will have');
SELECT ok(pg_temp.tables() = tables, 'MESSAGE_STATE_INVALID changes nothing') FROM before WHERE step = 'never dequeued';

SELECT is(pg_temp.take(), '{b}', 'it is taken');
INSERT INTO before SELECT 'locked', pg_temp.tables();
SELECT is(
    (SELECT array_agg(message_delete(pg_temp.id('b'), n)) FROM unnest('{0,2,-1,2147483647}'::integer[]) AS n),
    '{MESSAGE_STATE_INVALID,MESSAGE_STATE_INVALID,MESSAGE_STATE_INVALID,MESSAGE_STATE_INVALID}',
    'another number than its own does not delete it');
SELECT ok(pg_temp.tables() = tables, 'and changes nothing') FROM before WHERE step = 'locked';

SET pylonny_test.clock = '2030-01-02 00:00:02+00';
SELECT results_eq(
    'SELECT content, num_attempts FROM message_dequeue()', $$VALUES ('b'::bytea, 2)$$, 'its lock over, another worker takes it');
INSERT INTO before SELECT 'redelivered', pg_temp.tables();
SELECT is(message_delete(pg_temp.id('b'), 1), 'MESSAGE_STATE_INVALID', 'the worker whose lock expired deletes no more');
SELECT ok(pg_temp.tables() = tables, 'and changes nothing') FROM before WHERE step = 'redelivered';
SELECT is(message_delete(pg_temp.id('b'), 2), 'MESSAGE_DELETED', 'the new one does');

-- Between the lock's end and the next dequeue

INSERT INTO sent VALUES ('c', message_create('c', 'c', 1000));
SELECT is(pg_temp.take(), '{c}', 'a worker takes a message');
SET pylonny_test.clock = '2030-01-02 00:01:00+00';
SELECT is(message_delete(pg_temp.id('c'), 1), 'MESSAGE_DELETED', 'and may delete it after its lock expired');

INSERT INTO sent VALUES ('d', message_create('d', 'd', 1000));
SELECT is(pg_temp.take(), '{d}', 'a worker takes a message');
SELECT channel_policy_set('d', 0);
SET pylonny_test.clock = '2030-01-02 00:02:00+00';
SELECT matches(array_to_string(pg_temp.take(), ''), '^empty', 'its lock expires, and a dequeue sees that but may not take it');
SELECT is(message_delete(pg_temp.id('d'), 1), 'MESSAGE_DELETED', 'the worker may still delete it');

INSERT INTO sent VALUES ('e', message_create('e', 'e', 0));
SELECT is(pg_temp.take(), '{e}', 'a worker takes a message whose lock is over at once');
SELECT is(message_delete(pg_temp.id('e'), 1), 'MESSAGE_DELETED', 'and may delete it');

-- After a defer

INSERT INTO sent VALUES ('f', message_create('f', 'f', 1000));
SELECT is(pg_temp.take(), '{f}', 'a worker takes a message');
SELECT is(message_defer(pg_temp.id('f'), 1), 'MESSAGE_DEFERRED', 'and puts it back');
INSERT INTO before SELECT 'deferred', pg_temp.tables();
SELECT is(message_delete(pg_temp.id('f'), 1), 'MESSAGE_STATE_INVALID', 'then it has let go of it and cannot delete it');
SELECT ok(pg_temp.tables() = tables, 'nor change anything') FROM before WHERE step = 'deferred';

-- Bad arguments raise and change nothing.

SELECT pg_temp.refused(sentence, statement, state, argument, value) FROM (VALUES
    ('id NULL is refused', 'SELECT message_delete(NULL, 1)', '22004', 'id', 'null'),
    ('num_attempts NULL is refused', $$SELECT message_delete(pg_temp.id('f'), NULL)$$, '22004', 'num_attempts', 'null')
) AS bad (sentence, statement, state, argument, value);
SELECT ok(pg_temp.tables() = tables, 'what is refused changes nothing') FROM before WHERE step = 'deferred';

SELECT * FROM finish();
ROLLBACK;
