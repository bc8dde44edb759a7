-- message_status: what became of some messages.
BEGIN;
SELECT plan(20);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

INSERT INTO sent VALUES
    ('locked', message_create('c1', 'locked', 5000)), ('waiting', message_create('c2', 'waiting', 5000, 60000)),
    ('deleted', message_create('c1', 'deleted', 5000)), ('negative', message_create('c1', 'negative', 5000, -250)),
    ('deferred', message_create('c1', 'deferred', 5000)), ('cancelled', message_create('c1', 'cancelled', 5000, 60000));
SET pylonny_test.clock = '2030-01-01 00:00:01+00';
SELECT is(tap.take(4), '{negative,locked,deleted,deferred}', 'four of six messages are taken');
SET pylonny_test.clock = '2030-01-01 00:00:02+00';
SELECT is(message_delete(tap.id('deleted'), 1), 'MESSAGE_DELETED', 'one is deleted');
SELECT is(message_cancel(tap.id('cancelled')), 'MESSAGE_CANCELLED', 'one that waits is cancelled');
SELECT is(message_defer(tap.id('deferred'), 1, 3000), 'MESSAGE_DEFERRED', 'one is deferred');
SELECT is(message_heartbeat(tap.id('negative'), 1, 9000), 'MESSAGE_HEARTBEATED', 'the lock of one is extended');
INSERT INTO sent VALUES ('ready', message_create('c3', 'ready', 5000));

CREATE TEMP TABLE before AS SELECT tap.tables() AS tables;
PREPARE statuses AS
    SELECT s.status::text || ' ' || s.channel || ' ' || s.num_attempts, s.created_at, s.dequeue_at, s.unlock_at
    FROM message_status(ids => ARRAY[
        tap.id('ready'), tap.id('deleted'), tap.id('negative'), 9223372036854775807, tap.id('deferred'), -1,
        tap.id('waiting'), tap.id('cancelled'), tap.id('locked')]) AS s;
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
    $$SELECT id, locked_at FROM message_status(ARRAY[tap.id('locked'), tap.id('waiting'), tap.id('ready')])$$,
    $$VALUES (tap.id('locked'), '2030-01-01 00:00:01+00'::timestamptz), (tap.id('waiting'), NULL), (tap.id('ready'), NULL)$$,
    'locked_at says when a message was dequeued');
SELECT is_empty(
    $$SELECT * FROM message_status(ARRAY[tap.id('deleted'), tap.id('cancelled')])$$, 'no row for what was deleted or cancelled');
SELECT is_empty($$SELECT * FROM message_status('{}'::bigint[])$$, 'no row for no id');
SELECT is(
    (SELECT array_agg(id) FROM message_status(('[7:9]={' || tap.id('ready') || ',-1,' || tap.id('locked') || '}')::bigint[])),
    ARRAY[tap.id('ready'), tap.id('locked')], 'an array that does not begin at 1 is an array like others');
SELECT is(
    (SELECT array_agg(id) FROM message_status(ARRAY[tap.id('ready'), tap.id('locked'), tap.id('ready')])),
    ARRAY[tap.id('ready'), tap.id('locked'), tap.id('ready')], 'an id given twice has two rows');
SELECT ok(tap.tables() = tables, 'to look changes nothing') FROM before;
SELECT is(tap.take(10), '{ready}', 'what is READY is delivered, what is WAITING or LOCKED is not');
SELECT is((SELECT status FROM message_status(ARRAY[tap.id('ready')])), 'LOCKED', 'then it is LOCKED too');

-- A limit holds back what is WAITING.

SELECT channel_policy_set('l', 1);
INSERT INTO sent VALUES ('l1', message_create('l', 'l1', 5000)), ('l2', message_create('l', 'l2', 5000));
SELECT is(tap.take(10), '{l1}', 'of a channel limited to one the first is taken');
SELECT is(
    (SELECT array_agg(status) FROM message_status(ARRAY[tap.id('l1'), tap.id('l2')])), '{LOCKED,WAITING}',
    'and the second is WAITING');

-- Many

CREATE TEMP TABLE batch AS
    SELECT array_agg(id) AS ids FROM message_create_many(NULL, array_fill('x'::bytea, ARRAY[5000]), '{1}') AS id;
SELECT is(
    (SELECT array_agg(s.id) FROM message_status(ids) AS s), ids, 'five thousand ids get five thousand rows in input order')
FROM batch;
SELECT is(
    (SELECT array_agg(s.id) FROM message_status(ARRAY[ARRAY[tap.id('l2')], ARRAY[tap.id('l1')]]) AS s), ARRAY[tap.id('l2'), tap.id('l1')],
    'an array may have any shape');

-- Bad arguments raise and change nothing.

SELECT tap.refused(sentence, statement, state, argument, value) FROM (VALUES
    ('ids NULL is refused', 'SELECT * FROM message_status(NULL::bigint[])', '22004', 'ids', 'null'),
    ('an id NULL among others is refused', $$SELECT * FROM message_status(ARRAY[tap.id('ready'), NULL])$$, '22004', 'ids', 'null')
) AS bad (sentence, statement, state, argument, value);

SELECT * FROM finish();
ROLLBACK;
