-- check: what is wrong with the queue. That it finds each kind of fault: tests/integration/test_check.py.
BEGIN;
SELECT plan(12);

CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- A queue in order.

SELECT is_empty('SELECT * FROM "check"()', 'nothing is wrong with an empty queue');
SELECT channel_policy_set('limited', 1), channel_policy_set('slow', NULL, 1000), channel_policy_set('paused', 0);
SELECT message_create(c.channel, 'x', 1000, d.delay_ms)
FROM unnest('{limited,slow,paused,free,NULL}'::text[]) AS c (channel), unnest('{-5,0,0,2000}'::bigint[]) AS d (delay_ms);
SELECT is_empty('SELECT * FROM "check"()', 'nor when messages of all kinds wait or are ready');
SELECT is(cardinality(tap.take(5)), 5, 'five are dequeued');
SELECT is_empty('SELECT * FROM "check"()', 'nor when some are locked');
SET pylonny_test.clock = '2030-01-01 00:01:00+00';
SELECT is_empty('SELECT * FROM "check"()', 'nor when locks, delays and intervals are over, and nobody has noticed');

-- One that is not.

DELETE FROM wake;
UPDATE channel_policy SET max_concurrency = 2 WHERE channel = 'limited';
SELECT set_eq(
    $$ SELECT kind, promise, channel, message_id, found, remedy FROM "check"(max_open_ms => 0) $$,
    $$ SELECT 'MESSAGE_FORGOTTEN', 2 AS promise, m.channel COLLATE "default", min(m.id),
              format('%s due messages wait, but nothing will release them: no wake, %s', count(*),
                     CASE m.channel WHEN 'limited' THEN '1 out of 2' ELSE '1 out of any number' END),
              'repair() wakes the channel.' AS remedy
       FROM message m WHERE m.status = 'WAITING' AND m.timer_at IS NULL AND m.channel IN ('limited', 'slow') GROUP BY m.channel $$,
    'a place is free, and no wake says so');
SELECT is((SELECT count(*) FROM message WHERE channel = 'paused' AND status = 'WAITING'), 4::bigint, 'what is paused waits with good reason');

-- Bad arguments.

SELECT tap.refused('no time', 'SELECT * FROM "check"(NULL)', '22004', 'max_open_ms', 'NULL');
SELECT tap.refused('a negative one', 'SELECT * FROM "check"(-1)', '22023', 'max_open_ms', '-1');
SELECT tap.refused('one beyond a hundred years', 'SELECT * FROM "check"(3155760000001)', '22023', 'max_open_ms', '3155760000001');

-- It only reads.

SELECT is((SELECT provolatile::text FROM pg_proc WHERE oid = '"check"(bigint)'::regprocedure), 's', 'it is STABLE: it cannot write, and sees one snapshot');
SELECT isnt_empty('SELECT * FROM "check"()', 'what it found stays until it is repaired');

SELECT * FROM finish();
ROLLBACK;
