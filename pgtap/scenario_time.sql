-- Promise 7: time is what _clock() says, as timestamptz; never now(), and never a session's time zone.
BEGIN;
SELECT plan(34);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

-- The transaction began long before 2030; nothing may come from its now().

INSERT INTO sent VALUES ('a', message_create('a', 'a', 60000)), ('b', message_create('b', 'b', 60000, 1000));
SET pylonny_test.clock = '2030-01-01 00:00:00.5+00';
SELECT is(tap.take(), '{a}', 'a worker takes a message');
SELECT results_eq(
    $$SELECT created_at, dequeue_at, locked_at, unlock_at FROM message_status(ARRAY[tap.id('a'), tap.id('b')])$$,
    $$VALUES ('2030-01-01 00:00:00+00'::timestamptz, '2030-01-01 00:00:00+00'::timestamptz,
              '2030-01-01 00:00:00.5+00'::timestamptz, '2030-01-01 00:01:00.5+00'::timestamptz),
             ('2030-01-01 00:00:00+00', '2030-01-01 00:00:01+00', NULL, NULL)$$,
    'all its times are the clock''s at the call');
SET pylonny_test.clock = '2030-01-01 00:00:01+00';
SELECT is(message_heartbeat(tap.id('a'), 1), 'MESSAGE_HEARTBEATED', 'so is a heartbeat''s');
SELECT is(
    (SELECT unlock_at FROM message_status(ARRAY[tap.id('a')])), '2030-01-01 00:01:01+00'::timestamptz, 'in the same transaction');
SELECT is(message_defer(tap.id('a'), 1, 500), 'MESSAGE_DEFERRED', 'and a defer''s');
SELECT is(
    (SELECT dequeue_at FROM message_status(ARRAY[tap.id('a')])), '2030-01-01 00:00:01.5+00'::timestamptz, 'in the same transaction');
SELECT is(tap.take(), '{b}', 'the clock moves within a transaction: what was delayed is there');
SELECT is(message_delete(tap.id('b'), 1), 'MESSAGE_DELETED', 'and done');
SELECT is(message_cancel(tap.id('a')), 'MESSAGE_CANCELLED', 'the other is no more needed');

-- Sessions of different time zones

SET TimeZone = 'Pacific/Kiritimati';
INSERT INTO sent VALUES ('c', message_create('c', 'c', 60000, 1000)), ('d', message_create('d', 'd', 60000));
SET TimeZone = 'Pacific/Pago_Pago';
SELECT is(tap.take(), '{d}', 'what one session creates a session 25 hours behind is given at once');
SELECT is(tap.take(), '{"empty, retry in 1000 ms"}', 'and not what is delayed');
SET TimeZone = 'Pacific/Kiritimati';
SELECT is(tap.take(), '{"empty, retry in 1000 ms"}', 'a session in another zone sees the same delay and the same lock');
SELECT is(message_heartbeat(tap.id('d'), 1, 120000), 'MESSAGE_HEARTBEATED', 'a heartbeat from there');
SET TimeZone = 'UTC';
SELECT is(
    (SELECT unlock_at FROM message_status(ARRAY[tap.id('d')])), '2030-01-01 00:02:01+00'::timestamptz, 'extends the lock by what it says');
SET TimeZone = 'Pacific/Pago_Pago';
SET pylonny_test.clock = '2030-01-01 00:00:02+00';
SELECT is(tap.take(), '{c}', 'the delay is over everywhere at once');
SET pylonny_test.clock = '2030-01-01 00:02:00.999+00';
SELECT is((SELECT array_agg(status) FROM message_status(ARRAY[tap.id('d')])), '{LOCKED}', 'the lock holds until it is over');
SET pylonny_test.clock = '2030-01-01 00:02:01+00';
SET TimeZone = 'Pacific/Kiritimati';
SELECT is(
    (SELECT array_agg(name ORDER BY name) FROM unnest(tap.take_each(2)) AS name), '{c,d}', 'and is over everywhere at once');
SELECT is(
    (SELECT array_agg(message_delete(id, 2)) FROM sent WHERE name IN ('c', 'd')), '{MESSAGE_DELETED,MESSAGE_DELETED}', 'both are done');

-- A night in which the clocks are put forward: a day of milliseconds is 24 hours.

SET TimeZone = 'Europe/Berlin';
SET pylonny_test.clock = '2030-03-30 12:00:00+01';
SELECT channel_policy_set('e', NULL, 86400000);
INSERT INTO sent VALUES
    ('e1', message_create('e', 'e1', 86400000)), ('e2', message_create('e', 'e2', 60000)), ('f', message_create('f', 'f', 60000, 86400000));
SELECT is(tap.take(10), '{e1}', 'a message is taken at noon');
SELECT is(
    (SELECT array_agg(coalesce(unlock_at, dequeue_at)) FROM message_status(ARRAY[tap.id('e1'), tap.id('f')])),
    '{2030-03-31 13:00:00+02,2030-03-31 13:00:00+02}', 'a lock and a delay of a day end at one, daylight saving time');
SELECT is(tap.take(10), '{"empty, retry in 86400000 ms"}', 'until then it is 86,400,000 milliseconds');
SET pylonny_test.clock = '2030-03-31 12:59:59.999+02';
SELECT is(tap.take(10), '{"empty, retry in 1 ms"}', 'and an interval ends no earlier');
SET TimeZone = 'America/St_Johns';
SET IntervalStyle = 'sql_standard';
SET DateStyle = 'SQL, DMY';
SET pylonny_test.clock = '2030-03-31 13:00:00+02';
SELECT is(
    (SELECT array_agg(name ORDER BY name) FROM unnest(tap.take_each(2)) AS name), '{e1,f}', 'then they are there, whatever the session''s styles');
SELECT is(tap.take(10), '{"empty, retry in 60000 ms"}', 'and retry_ms is the same number');
SELECT channel_policy_clear('e');
SELECT is(message_delete(tap.id('e1'), 2), 'MESSAGE_DELETED', 'one is done');
SELECT is(message_delete(tap.id('f'), 1), 'MESSAGE_DELETED', 'and the other');
SELECT is(tap.take(10), '{e2}', 'and the last comes');
SELECT is(message_delete(tap.id('e2'), 1), 'MESSAGE_DELETED', 'to be done');

-- A clock that is set back

SELECT channel_policy_set('g', NULL, 10000);
INSERT INTO sent VALUES ('g1', message_create('g', 'g1', 60000)), ('g2', message_create('g', 'g2', 60000)), ('h', message_create('h', 'h', 5000));
SELECT is(
    (SELECT array_agg(name ORDER BY name) FROM unnest(tap.take(10)) AS name), '{g1,h}', 'a lock and an interval begin');
SET pylonny_test.clock = '2030-03-31 12:30:00+02';
SELECT matches(array_to_string(tap.take(10), ' '), '^empty', 'the clock is set back half an hour: neither is over');
SET pylonny_test.clock = '2030-03-31 13:00:04.999+02';
SELECT matches(array_to_string(tap.take(10), ' '), '^empty', 'nor before the time that the clock had promised');
SET pylonny_test.clock = '2030-03-31 13:00:05+02';
SELECT is(tap.take(10), '{h}', 'the lock is over at that time');
SET pylonny_test.clock = '2030-03-31 13:00:09.999+02';
SELECT matches(array_to_string(tap.take(10), ' '), '^empty', 'the interval not a millisecond early');
SET pylonny_test.clock = '2030-03-31 13:00:10+02';
SELECT is(
    (SELECT array_agg(name ORDER BY name) FROM unnest(tap.take_each(2)) AS name), '{g2,h}', 'but on the dot');

SELECT * FROM finish();
ROLLBACK;
