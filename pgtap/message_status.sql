-- message_status: what became of some messages.
BEGIN;
SELECT plan(19);

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

INSERT INTO sent VALUES
    ('locked', message_create('c1', 'locked', 5000)), ('waiting', message_create('c2', 'waiting', 5000, 60000)),
    ('deleted', message_create('c1', 'deleted', 5000)), ('negative', message_create('c1', 'negative', 5000, -250)),
    ('deferred', message_create('c1', 'deferred', 5000)), ('cancelled', message_create('c1', 'cancelled', 5000, 60000));
SET pylonny_test.clock = '2030-01-01 00:00:01+00';
SELECT is(pg_temp.take(4), '{negative,locked,deleted,deferred}', 'four of six messages are taken');
SET pylonny_test.clock = '2030-01-01 00:00:02+00';
SELECT is(message_delete(pg_temp.id('deleted'), 1), 'MESSAGE_DELETED', 'one is deleted');
SELECT is(message_cancel(pg_temp.id('cancelled')), 'MESSAGE_CANCELLED', 'one that waits is cancelled');
SELECT is(message_defer(pg_temp.id('deferred'), 1, 3000), 'MESSAGE_DEFERRED', 'one is deferred');
SELECT is(message_heartbeat(pg_temp.id('negative'), 1, 9000), 'MESSAGE_HEARTBEATED', 'the lock of one is extended');
INSERT INTO sent VALUES ('ready', message_create('c3', 'ready', 5000));

CREATE TEMP TABLE before AS SELECT pg_temp.tables() AS tables;
PREPARE statuses AS
    SELECT s.status::text || ' ' || s.channel || ' ' || s.num_attempts, s.created_at, s.dequeue_at, s.unlock_at
    FROM message_status(ids => ARRAY[
        pg_temp.id('ready'), pg_temp.id('deleted'), pg_temp.id('negative'), 9223372036854775807, pg_temp.id('deferred'), -1,
        pg_temp.id('waiting'), pg_temp.id('cancelled'), pg_temp.id('locked')]) AS s;
SELECT results_eq(
    'statuses',
    $$VALUES
        ('READY c3 0', '2030-01-01 00:00:02+00'::timestamptz, '2030-01-01 00:00:02+00'::timestamptz, NULL::timestamptz),
        ('LOCKED c1 1', '2030-01-01 00:00:00+00', '2029-12-31 23:59:59.75+00', '2030-01-01 00:00:11+00'),
        ('WAITING c1 1', '2030-01-01 00:00:00+00', '2030-01-01 00:00:05+00', NULL),
        ('WAITING c2 0', '2030-01-01 00:00:00+00', '2030-01-01 00:01:00+00', NULL),
        ('LOCKED c1 1', '2030-01-01 00:00:00+00', '2030-01-01 00:00:00+00', '2030-01-01 00:00:06+00')$$,
    'rows for the ids that exist, in input order; what is missing is gone');
SELECT results_eq(
    $$SELECT id, locked_at FROM message_status(ARRAY[pg_temp.id('locked'), pg_temp.id('waiting'), pg_temp.id('ready')])$$,
    $$VALUES (pg_temp.id('locked'), '2030-01-01 00:00:01+00'::timestamptz), (pg_temp.id('waiting'), NULL), (pg_temp.id('ready'), NULL)$$,
    'locked_at says when a message was dequeued');
SELECT is_empty(
    $$SELECT * FROM message_status(ARRAY[pg_temp.id('deleted'), pg_temp.id('cancelled')])$$, 'no row for what was deleted or cancelled');
SELECT is_empty($$SELECT * FROM message_status('{}'::bigint[])$$, 'no row for no id');
SELECT is(
    (SELECT array_agg(id) FROM message_status(('[7:9]={' || pg_temp.id('ready') || ',-1,' || pg_temp.id('locked') || '}')::bigint[])),
    ARRAY[pg_temp.id('ready'), pg_temp.id('locked')], 'an array that does not begin at 1 is an array like others');
SELECT is(
    (SELECT array_agg(id) FROM message_status(ARRAY[pg_temp.id('ready'), pg_temp.id('locked'), pg_temp.id('ready')])),
    ARRAY[pg_temp.id('ready'), pg_temp.id('locked'), pg_temp.id('ready')], 'an id given twice has two rows');
SELECT ok(pg_temp.tables() = tables, 'to look changes nothing') FROM before;
SELECT is(pg_temp.take(10), '{ready}', 'what is READY is delivered, what is WAITING or LOCKED is not');
SELECT is((SELECT status FROM message_status(ARRAY[pg_temp.id('ready')])), 'LOCKED', 'then it is LOCKED too');

-- A limit holds back what is WAITING.

SELECT channel_policy_set('l', 1);
INSERT INTO sent VALUES ('l1', message_create('l', 'l1', 5000)), ('l2', message_create('l', 'l2', 5000));
SELECT is(pg_temp.take(10), '{l1}', 'of a channel limited to one the first is taken');
SELECT is(
    (SELECT array_agg(status) FROM message_status(ARRAY[pg_temp.id('l1'), pg_temp.id('l2')])), '{LOCKED,WAITING}',
    'and the second is WAITING');

-- Many

CREATE TEMP TABLE batch AS
    SELECT array_agg(id) AS ids FROM message_create_many(NULL, array_fill('x'::bytea, ARRAY[5000]), '{1}') AS id;
SELECT is(
    (SELECT array_agg(s.id) FROM message_status(ids) AS s), ids, 'five thousand ids get five thousand rows in input order')
FROM batch;

-- Bad arguments raise and change nothing.

SELECT pg_temp.refused(sentence, statement, state, argument, value) FROM (VALUES
    ('ids NULL is refused', 'SELECT * FROM message_status(NULL::bigint[])', '22004', 'ids', 'null'),
    ('an id NULL among others is refused', $$SELECT * FROM message_status(ARRAY[pg_temp.id('ready'), NULL])$$, '22004', 'ids', 'null')
) AS bad (sentence, statement, state, argument, value);

SELECT * FROM finish();
ROLLBACK;
