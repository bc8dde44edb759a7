-- message_cancel: a message is taken back before a worker has it.
BEGIN;
SELECT plan(36);

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

-- What is not locked can be cancelled.

INSERT INTO sent VALUES
    ('ready', message_create('a', 'ready', 60000)), ('waiting', message_create('a', 'waiting', 60000, 1000)),
    ('alone', message_create(NULL, 'alone', 60000)), ('kept', message_create('a', 'kept', 60000));
SELECT is(message_cancel(id => pg_temp.id('ready')), 'MESSAGE_CANCELLED', 'a message that is ready is cancelled');
SELECT is(message_cancel(pg_temp.id('waiting')), 'MESSAGE_CANCELLED', 'and one that waits for its delay');
SELECT is(message_cancel(pg_temp.id('alone')), 'MESSAGE_CANCELLED', 'and one without a channel');
SELECT is((SELECT array_agg(s.id) FROM sent, message_status(ARRAY[sent.id]) AS s), ARRAY[pg_temp.id('kept')], 'they are gone, and no other');
SELECT is(pg_temp.take(10), '{kept}', 'the others are delivered');
SET pylonny_test.clock = '2030-01-01 00:00:30+00';
SELECT is(pg_temp.take(), '{"empty, retry in 30000 ms"}', 'the cancelled ones never');
SELECT is(message_cancel(pg_temp.id('ready')), 'MESSAGE_NOT_FOUND', 'to cancel one again finds nothing');
SELECT is(message_cancel(9223372036854775807), 'MESSAGE_NOT_FOUND', 'nor is an id found that never was');
SELECT is(message_cancel(-1), 'MESSAGE_NOT_FOUND', 'nor a negative one');

-- What is locked cannot.

INSERT INTO before SELECT 'locked', pg_temp.tables();
SELECT is(message_cancel(pg_temp.id('kept')), 'MESSAGE_STATE_INVALID', 'a message that is locked is not cancelled');
SELECT ok(pg_temp.tables() = tables, 'that changes nothing') FROM before WHERE step = 'locked';
SELECT is(message_defer(pg_temp.id('kept'), 1, 5000), 'MESSAGE_DEFERRED', 'its worker puts it back');
SELECT is(message_cancel(pg_temp.id('kept')), 'MESSAGE_CANCELLED', 'then it is');
SELECT is(message_delete(pg_temp.id('kept'), 1), 'MESSAGE_NOT_FOUND', 'and nothing is left for its worker');

INSERT INTO sent VALUES ('b', message_create('b', 'b', 1000));
SELECT is(pg_temp.take(), '{b}', 'a worker takes a message');
SELECT channel_policy_set('b', 0);
SET pylonny_test.clock = '2030-01-01 00:01:00+00';
SELECT matches(array_to_string(pg_temp.take(), ''), '^empty', 'its lock expires in a paused channel, and a dequeue notices');
SELECT is(message_cancel(pg_temp.id('b')), 'MESSAGE_CANCELLED', 'then it is locked no more, and can be cancelled');
SELECT is(message_delete(pg_temp.id('b'), 1), 'MESSAGE_NOT_FOUND', 'and nothing is left for its worker');
SELECT is(message_heartbeat(pg_temp.id('b'), 1), 'MESSAGE_NOT_FOUND', 'nothing at all');

-- What is cancelled takes no slot of a limited channel, and no turn of an interval.

SELECT channel_policy_set('l', 1);
INSERT INTO sent VALUES
    ('l1', message_create('l', 'l1', 60000)), ('l2', message_create('l', 'l2', 60000)), ('l3', message_create('l', 'l3', 60000)),
    ('l4', message_create('l', 'l4', 60000));
SELECT is(pg_temp.take(10), '{l1}', 'of a channel limited to one the first is taken');
SELECT is(message_cancel(pg_temp.id('l2')), 'MESSAGE_CANCELLED', 'the second is cancelled while it is held back');
SELECT is(pg_temp.take(10), '{"empty, retry in 60000 ms"}', 'which frees nothing');
SELECT is(message_delete(pg_temp.id('l1'), 1), 'MESSAGE_DELETED', 'the first is deleted');
INSERT INTO sent VALUES ('o1', message_create('o', 'o1', 60000));
SELECT is(message_cancel(pg_temp.id('l3')), 'MESSAGE_CANCELLED', 'and the third cancelled when it is its turn');
SELECT is(
    (SELECT array_agg(name ORDER BY name) FROM unnest(pg_temp.take(10)) AS name), '{l4,o1}',
    'the fourth is to be had at once, and other channels never noticed');

SELECT channel_policy_set('i', NULL, 1000);
INSERT INTO sent VALUES
    ('i1', message_create('i', 'i1', 60000)), ('i2', message_create('i', 'i2', 60000)), ('i3', message_create('i', 'i3', 60000));
SELECT is(pg_temp.take(10), '{i1}', 'of a channel with an interval the first is taken');
SELECT is(message_cancel(pg_temp.id('i2')), 'MESSAGE_CANCELLED', 'the second is cancelled');
SELECT is(pg_temp.take(10), '{"empty, retry in 1000 ms"}', 'the third waits for its time');
SET pylonny_test.clock = '2030-01-01 00:01:01+00';
SELECT is(pg_temp.take(10), '{i3}', 'and has it');

-- A message that was released and not yet taken keeps its slot no longer.

SELECT is(message_delete(pg_temp.id('l4'), 1), 'MESSAGE_DELETED', 'all is done');
SELECT channel_policy_set('r', 1);
SELECT channel_policy_set('s', 1);
INSERT INTO sent VALUES
    ('r1', message_create('r', 'r1', 3600000)), ('r2', message_create('r', 'r2', 3600000)),
    ('s1', message_create('s', 's1', 3600000)), ('s2', message_create('s', 's2', 3600000));
SELECT ok(taken IN ('{r1}', '{s1}'), 'of two channels limited to one the first of one is taken')
FROM pg_temp.take() AS taken;
SELECT is(
    (SELECT array_agg(message_cancel(id)) FROM sent WHERE name IN ('r1', 's1') AND id NOT IN (
        SELECT s.id FROM sent, message_status(ARRAY[sent.id]) AS s WHERE s.status = 'LOCKED')),
    '{MESSAGE_CANCELLED}', 'the first of the other is cancelled');
SELECT ok(taken IN ('{r2}', '{s2}'), 'then the second of that one is to be had')
FROM pg_temp.take() AS taken;
SELECT matches(array_to_string(pg_temp.take(), ''), '^empty', 'and no other');

-- Bad arguments raise and change nothing.

INSERT INTO before SELECT 'bad', pg_temp.tables();
SELECT pg_temp.refused('id NULL is refused', 'SELECT message_cancel(NULL)', '22004', 'id', 'null');
SELECT ok(pg_temp.tables() = tables, 'what is refused changes nothing') FROM before WHERE step = 'bad';

SELECT * FROM finish();
ROLLBACK;
