-- The defects of the original, numbered as in the list that the project keeps; each once, in one session.
-- Those that take two sessions: tests/integration/test_peer_defects.py.
BEGIN;
SELECT plan(44);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

-- 1. timestamp without time zone, filled from now()

SET TimeZone = 'Asia/Tokyo';
INSERT INTO sent VALUES ('1a', message_create('1', '1a', 60000));
SET TimeZone = 'America/Los_Angeles';
SELECT is(tap.take(), '{1a}', 'defect 1: a message is not hidden from sessions of another time zone');
SET TimeZone = 'Asia/Tokyo';
SELECT is(tap.take(), '{"empty, retry in 60000 ms"}', 'defect 1: nor delivered twice to them');
SET TimeZone = 'UTC';
SELECT is(message_delete(tap.id('1a'), 1), 'MESSAGE_DELETED', 'defect 1: nor lost to its worker');
INSERT INTO sent VALUES ('1b', message_create('1', '1b', 60000));
SELECT is(
    (SELECT unlock_at FROM message_dequeue() WHERE now() < '2030-01-01 00:00:00+00'), '2030-01-01 00:01:00+00'::timestamptz,
    'defect 1: a lock is counted from the moment it is taken, not from the beginning of the transaction');
SELECT is(message_delete(tap.id('1b'), 1), 'MESSAGE_DELETED', 'defect 1: and done');

-- 2. A changed or cleared policy does not recompute when a channel may go on

SELECT channel_policy_set('2', 1);
INSERT INTO sent SELECT '2' || c, message_create('2', convert_to('2' || c, 'UTF8'), 3600000) FROM unnest('{a,b,c,d,e,f}'::text[]) AS c;
SELECT is(tap.take(10), '{2a}', 'defect 2: a channel is at its limit');
SELECT channel_policy_set('2', 2);
SELECT is(tap.take(10), '{2b}', 'defect 2: a higher limit lets it go on, without a message coming or going');
SELECT channel_policy_set('2', 3, 60000);
SET pylonny_test.clock = '2030-01-01 00:01:00+00';
SELECT is(tap.take(10), '{2c}', 'defect 2: so does a limit that becomes an interval too, at its time');
SELECT channel_policy_set('2', 4, 3600000);
SELECT matches(array_to_string(tap.take(10), ' '), '^empty', 'defect 2: a longer interval holds it back');
SET pylonny_test.clock = '2030-01-01 00:02:00+00';
SELECT channel_policy_set('2', 4, 120000);
SET pylonny_test.clock = '2030-01-01 00:03:00+00';
SELECT is(tap.take(10), '{2d}', 'defect 2: a shorter interval lets it go on at the earlier time');
SELECT matches(array_to_string(tap.take(10), ' '), '^empty', 'defect 2: it is at its limit again');
SELECT channel_policy_clear('2');
SELECT is(tap.take(10), '{2e,2f}', 'defect 2: a cleared policy lets everything go on');

-- 3. The first message of a channel with an interval waits a full interval

SELECT channel_policy_set('3', NULL, 60000);
INSERT INTO sent VALUES ('3a', message_create('3', '3a', 60000));
SELECT is(tap.take(), '{3a}', 'defect 3: the first message of a channel with an interval is to be had at once');

-- 4. "Retry in an hour" with thousands ready

SET pylonny_test.clock = '2030-01-01 12:00:00+00';
SELECT channel_policy_set('2', 0);
SELECT channel_policy_set('3', 0);
SELECT isnt(message_create('4', 'an hour', 60000, 3600000), NULL, 'defect 4: a message is delayed for an hour');
SELECT is(
    (SELECT count(*) FROM message_create_many(NULL, array_fill('4'::bytea, ARRAY[2000]), '{3600000}')), 2000::bigint,
    'defect 4: two thousand are ready');
SELECT is(
    (SELECT array_agg(DISTINCT name) FROM unnest(tap.take_each(500)) AS name), '{4}',
    'defect 4: no dequeue is sent away while some are ready');
SELECT is(cardinality(tap.take(2000)), 1500, 'defect 4: a large batch takes all of them');

-- 6. Redelivery bypasses limits, pause and fairness

SET pylonny_test.clock = '2030-01-02 00:00:00+00';
DO $$
DECLARE
    v_row record;
BEGIN
    LOOP
        SELECT d.id, d.num_attempts INTO v_row FROM message_dequeue() AS d;
        EXIT WHEN v_row.id IS NULL;
        PERFORM message_delete(v_row.id, v_row.num_attempts);
    END LOOP;
END
$$;
SET pylonny_test.clock = '2030-01-03 00:00:00+00';
INSERT INTO sent SELECT '6a' || i, message_create('6a', convert_to('6a', 'UTF8'), 1000) FROM generate_series(1, 30) AS i;
SELECT is(cardinality(tap.take(30)), 30, 'defect 6: the worker of thirty messages crashes');
SELECT channel_policy_set('6a', 2);
SET pylonny_test.clock = '2030-01-03 00:00:02+00';
SELECT is(tap.take(30), '{6a,6a}', 'defect 6: not more than the limit of them are delivered again');
SELECT channel_policy_set('6a', 0);
SET pylonny_test.clock = '2030-01-03 00:00:04+00';
SELECT matches(array_to_string(tap.take(30), ' '), '^empty', 'defect 6: in a pause none is');
SELECT channel_policy_set('6a', NULL, 500);
SELECT is(tap.take(30), '{6a}', 'defect 6: with an interval one is');
SELECT matches(array_to_string(tap.take(30), ' '), '^empty', 'defect 6: and no other');
SELECT channel_policy_clear('6a');
SELECT is(cardinality(tap.take_all()), 29, 'defect 6: without a policy all are');
INSERT INTO sent SELECT '6b' || i, message_create('6b', convert_to('6b', 'UTF8'), 3600000) FROM generate_series(1, 30) AS i;
SET pylonny_test.clock = '2030-01-03 00:00:06+00';
SELECT ok(
    (SELECT count(*) FROM unnest(tap.take_each(30)) AS name WHERE name = '6b') >= 15,
    'defect 6: the channel of the crashing worker has not more than every other turn');
SET pylonny_test.clock = '2030-01-03 12:00:00+00';
SELECT channel_policy_set('6a', 0);
SELECT channel_policy_set('6b', 0);
SELECT matches(array_to_string(tap.take(), ' '), '^empty', 'defect 6: both channels are paused');
INSERT INTO sent VALUES ('6c', message_create('6c', '6c', 0));
INSERT INTO sent SELECT '6d' || i, message_create('6d', convert_to('6d', 'UTF8'), 3600000) FROM generate_series(1, 10) AS i;
SELECT is(
    (SELECT count(*) FROM unnest(tap.take_each(20)) AS name WHERE name = '6d'), 10::bigint,
    'defect 6: a message with lock_ms 0, to be had again at once, starves nobody');
SET pylonny_test.clock = '2030-01-04 00:00:00+00';
SELECT channel_policy_set('6c', 0);
SELECT channel_policy_set('6d', 0);
SELECT is(tap.take(), '{"empty, retry in unknown ms"}', 'defect 7: all that is left is paused');
INSERT INTO sent VALUES ('7a', message_create('7', '7a', 3000));
SELECT is(tap.take(), '{7a}', 'defect 7: a message is taken');
SELECT is(tap.take(), '{"empty, retry in 3000 ms"}', 'defect 7: retry_ms while a message is locked');
SELECT is(message_defer(tap.id('7a'), 1, 2000, '\x07'), 'MESSAGE_DEFERRED', 'defect 7: it is deferred with a state');
SELECT is(tap.take(), '{"empty, retry in 2000 ms"}', 'defect 7: retry_ms while a message is delayed');
SET pylonny_test.clock = '2030-01-04 00:00:02+00';
SELECT is(tap.take(), '{7a}', 'defect 7: it is taken again');
SELECT is(message_defer(tap.id('7a'), 2), 'MESSAGE_DEFERRED', 'defect 7: and deferred without a state');
SELECT is((SELECT state FROM message_dequeue()), '\x07'::bytea, 'defect 7: which keeps the state it had');
SELECT is(message_defer(tap.id('7a'), 3, 1000), 'MESSAGE_DEFERRED', 'defect 7: it is deferred once more');
SELECT is(message_cancel(tap.id('7a')), 'MESSAGE_CANCELLED', 'defect 7: and cancelled while it is pending');
SELECT channel_policy_set('7', 1, 1000);
INSERT INTO sent VALUES ('7b', message_create('7', '7b', 3000)), ('7c', message_create('7', '7c', 3000));
SELECT is(tap.take(10), '{7b}', 'defect 7: of a channel with a limit and an interval one is taken');
SELECT ok(
    (SELECT retry_ms BETWEEN 1 AND 3000 FROM message_dequeue()), 'defect 7: retry_ms while a channel is at its limit');
SELECT is(message_delete(tap.id('7b'), 1), 'MESSAGE_DELETED', 'defect 7: it is done');
SELECT is(tap.take(), '{"empty, retry in 1000 ms"}', 'defect 7: retry_ms while an interval runs');

-- 9. The minutes and hours of a wait are counted once.

SELECT is(message_cancel(tap.id('7c')), 'MESSAGE_CANCELLED', 'defect 9: nothing else is waited for');
SET pylonny_test.clock = '2030-01-05 00:00:00+00';
INSERT INTO sent VALUES ('9a', message_create('9', '9a', 60000, 90000));
SELECT is(tap.take(), '{"empty, retry in 90000 ms"}', 'defect 9: a minute and a half is 90,000 ms');
SET pylonny_test.clock = '2030-01-05 00:00:29.25+00';
SELECT is(tap.take(), '{"empty, retry in 60750 ms"}', 'defect 9: 60.75 seconds are 60,750 ms');
SELECT is(
    (SELECT dequeue_at FROM message_status(ARRAY[tap.id('9a')])), '2030-01-05 00:01:30+00'::timestamptz, 'defect 9: and no clock says otherwise');

SELECT * FROM finish();
ROLLBACK;
