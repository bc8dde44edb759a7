-- Promise 6: empty means empty, and what an empty answer says of later is so.
BEGIN;
SELECT plan(42);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

-- The values of retry_ms

SELECT is(tap.take(), '{"empty, retry in unknown ms"}', 'in an empty queue nothing is known');
INSERT INTO sent VALUES ('a', message_create('a', 'a', 2000, 90061500));
SELECT is(tap.take(), '{"empty, retry in 90061500 ms"}', 'a delay of a day, an hour, a minute and one and a half second');
SET pylonny_test.clock = '2030-01-01 00:00:00.000001+00';
SELECT is(tap.take(), '{"empty, retry in 90061500 ms"}', 'a microsecond later: rounded up');
SET pylonny_test.clock = '2030-01-01 00:00:00.000999+00';
SELECT is(tap.take(), '{"empty, retry in 90061500 ms"}', 'nearly a millisecond later: rounded up');
SET pylonny_test.clock = '2030-01-01 00:00:00.001+00';
SELECT is(tap.take(), '{"empty, retry in 90061499 ms"}', 'a millisecond later: exact');
SET pylonny_test.clock = '2030-01-02 01:01:01.499999+00';
SELECT is(tap.take(), '{"empty, retry in 1 ms"}', 'a microsecond before: 1, not 0');
SET pylonny_test.clock = '2030-01-02 01:01:01.5+00';
SELECT is(tap.take(), '{a}', 'then it is there');
SELECT is(tap.take(), '{"empty, retry in 2000 ms"}', 'a lock''s end');
SET pylonny_test.clock = '2030-01-02 01:01:01.500001+00';
SELECT is(tap.take(), '{"empty, retry in 2000 ms"}', 'rounded up');

INSERT INTO sent VALUES ('b', message_create('b', 'b', 60000, 2500));
SELECT is(tap.take(), '{"empty, retry in 2000 ms"}', 'the lock''s end is earlier than a delay''s');
INSERT INTO sent VALUES ('c', message_create(NULL, 'c', 60000, 1500));
SELECT is(tap.take(), '{"empty, retry in 1500 ms"}', 'a delay''s end is earlier than the lock''s');
SELECT channel_policy_set('d', NULL, 1200);
INSERT INTO sent VALUES ('d1', message_create('d', 'd1', 60000)), ('d2', message_create('d', 'd2', 60000)), ('d3', message_create('d', 'd3', 60000));
SELECT is(tap.take(10), '{d1}', 'of a channel with an interval the first is taken');
SELECT is(tap.take(10), '{"empty, retry in 1200 ms"}', 'an interval''s end is the earliest');
SET pylonny_test.clock = '2030-01-02 01:01:02.700001+00';
SELECT is(tap.take(10), '{d2}', 'and comes first');
SELECT is(tap.take(10), '{"empty, retry in 300 ms"}', 'then that of the second delay');
SET pylonny_test.clock = '2030-01-02 01:01:03.000001+00';
SELECT is(tap.take(10), '{c}', 'which is over');
SELECT is(tap.take(10), '{"empty, retry in 500 ms"}', 'then the lock');
SET pylonny_test.clock = '2030-01-02 01:01:03.500001+00';
SELECT is(tap.take(10), '{a}', 'which expires');
SELECT is(message_delete(tap.id('a'), 2), 'MESSAGE_DELETED', 'and is done with');
SELECT is(tap.take(10), '{"empty, retry in 400 ms"}', 'then the interval once more');
SET pylonny_test.clock = '2030-01-02 01:01:03.900001+00';
SELECT is(tap.take(10), '{d3}', 'which is over');
SELECT is(tap.take(10), '{"empty, retry in 100 ms"}', 'then the first delay');
SET pylonny_test.clock = '2030-01-02 01:01:04.000001+00';
SELECT is(tap.take(10), '{b}', 'which is over');
SELECT is(
    (SELECT array_agg(message_delete(id, 1)) FROM sent WHERE name IN ('b', 'c', 'd1', 'd2', 'd3')),
    array_fill('MESSAGE_DELETED'::delete_result, ARRAY[5]), 'all is done');
SET pylonny_test.clock = '2030-01-02 02:00:00+00';
SELECT is(tap.take(10), '{"empty, retry in unknown ms"}', 'and nothing is known any more');

SELECT channel_policy_set('e', 0);
INSERT INTO sent VALUES ('e', message_create('e', 'e', 60000));
SELECT is(tap.take(), '{"empty, retry in unknown ms"}', 'of a message in a paused channel nobody knows when it can become available');
SELECT channel_policy_set('e', 1);
INSERT INTO sent VALUES ('e2', message_create('e', 'e2', 60000));
SELECT is(tap.take(10), '{e}', 'with a limit of one the first is taken');
SELECT is(tap.take(10), '{"empty, retry in 60000 ms"}', 'the other can become available when its lock ends');
SELECT is(message_delete(tap.id('e'), 1), 'MESSAGE_DELETED', 'or is deleted');
SELECT is(tap.take(10), '{e2}', 'as it is');
SELECT is(message_delete(tap.id('e2'), 1), 'MESSAGE_DELETED', 'the other too');

-- Whoever comes again after retry_ms finds something.

DO $$
BEGIN
    PERFORM set_config('pylonny_test.clock', '2030-01-03 00:00:00+00', false);
    FOR i IN 1..40 LOOP
        INSERT INTO sent VALUES
            ('w' || i, message_create('w' || i % 7, convert_to('w' || i, 'UTF8'), 150 + i * 13, i * 37 % 41 * 100));
    END LOOP;
    PERFORM channel_policy_set('w1', 1), channel_policy_set('w2', NULL, 333);
END
$$;
CREATE FUNCTION pg_temp.follow(deliveries integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_row record;
    v_clock timestamptz := current_setting('pylonny_test.clock');
    v_due timestamptz;
    v_taken integer := 0;
    v_waits integer := 0;
BEGIN
    WHILE v_taken < deliveries LOOP
        SELECT d.result, d.id, d.channel, d.num_attempts, d.retry_ms INTO v_row FROM message_dequeue() AS d;
        IF v_row.result = 'MESSAGE_DEQUEUED' THEN
            v_taken := v_taken + 1;
            v_waits := 0;
            SELECT s.dequeue_at INTO v_due FROM message_status(ARRAY[v_row.id]) AS s;
            IF v_row.num_attempts = 1 AND v_row.channel NOT IN ('w1', 'w2') AND v_clock > v_due + interval '1 ms' THEN
                RETURN format('delivered at %s what was due at %s', v_clock, v_due);
            END IF;
            -- Every other message is left to expire once.
            IF v_row.num_attempts > 1 OR v_row.id % 2 = 0 THEN
                PERFORM message_delete(v_row.id, v_row.num_attempts);
            END IF;
        ELSIF v_row.retry_ms IS NULL OR v_row.retry_ms < 1 THEN
            RETURN format('retry in %s ms after %s deliveries', v_row.retry_ms, v_taken);
        ELSIF v_waits = 5 THEN
            RETURN format('waits for nothing after %s deliveries', v_taken);
        ELSE
            v_waits := v_waits + 1;
            v_clock := v_clock + v_row.retry_ms * interval '1 ms';
            PERFORM set_config('pylonny_test.clock', v_clock::text, false);
        END IF;
    END LOOP;
    RETURN 'all delivered';
END
$$;
SELECT is(
    pg_temp.follow(60), 'all delivered',
    'forty messages with delays, locks that expire, a limit and an interval: who comes again after retry_ms is not more than 1 ms late');
SELECT is(
    (SELECT array_agg(DISTINCT s.status) FROM sent, message_status(ARRAY[sent.id]) AS s), NULL, 'and in the end all are gone');

-- Empty means empty.

SET pylonny_test.clock = '2030-01-04 00:00:00+00';
DO $$
BEGIN
    FOR i IN 1..60 LOOP
        PERFORM channel_policy_set('x' || i, 1);
        PERFORM message_create('x' || i, convert_to('x' || i, 'UTF8'), 60000);
        PERFORM message_create('y' || i, convert_to('y' || i, 'UTF8'), 60000, 10);
    END LOOP;
END
$$;
SELECT is(
    (SELECT count(DISTINCT name) FROM unnest(tap.take_each(60)) AS name WHERE name ~ '^x'), 60::bigint,
    'sixty dequeues, all in one transaction, find the one message of each of sixty channels with limits');
SELECT is(tap.take(), '{"empty, retry in 10 ms"}', 'then there is nothing until delays are over');
SET pylonny_test.clock = '2030-01-04 00:00:00.01+00';
SELECT is(
    (SELECT count(DISTINCT name) FROM unnest(tap.take_each(60)) AS name WHERE name ~ '^y'), 60::bigint,
    'and sixty more find the one message of each of sixty channels whose delay is over');
SET pylonny_test.clock = '2030-01-05 00:00:00+00';
SELECT is(
    (SELECT count(DISTINCT name) FROM unnest(tap.take_each(120)) AS name WHERE name ~ '^(x|y)'), 120::bigint,
    'and when all these locks are over every message is found again');

SET pylonny_test.clock = '2030-01-06 00:00:00+00';
DO $$
DECLARE
    v_row record;
BEGIN
    LOOP
        SELECT d.id, d.num_attempts INTO v_row FROM message_dequeue() AS d;
        EXIT WHEN v_row.id IS NULL;
        PERFORM message_delete(v_row.id, v_row.num_attempts);
    END LOOP;
    PERFORM channel_policy_set('paused', 0);
    FOR i IN 1..300 LOOP
        PERFORM message_create('paused', 'p', 60000, 10);
    END LOOP;
    PERFORM message_create('open', 'behind messages', 60000, 11);
END
$$;
SET pylonny_test.clock = '2030-01-06 00:00:01+00';
SELECT is(tap.take(), '{behind messages}', 'a message is found behind the ended delays of 300 of a paused channel');

DO $$
BEGIN
    FOR i IN 1..300 LOOP
        PERFORM channel_policy_set('once' || i, NULL, 10);
        PERFORM message_create('once' || i, 'o', 60000);
    END LOOP;
END
$$;
SELECT is(cardinality(tap.take_each(300)), 300, 'three hundred channels with intervals have had their only message');
SELECT channel_policy_set('open', NULL, 11);
INSERT INTO sent VALUES
    ('before', message_create('open', 'before', 60000)), ('behind', message_create('open', 'behind timers', 60000));
SELECT is(tap.take(), '{before}', 'then one has the first of two');
SET pylonny_test.clock = '2030-01-06 00:00:02+00';
SELECT is(tap.take(), '{behind timers}', 'its second is found behind the ended intervals of the 300');

DO $$
BEGIN
    FOR i IN 1..1500 LOOP
        PERFORM channel_policy_set('held' || i, 0);
        PERFORM message_create('held' || i, 'h', 60000);
    END LOOP;
    FOR i IN 1..20 LOOP
        PERFORM channel_policy_set('free' || i, 1);
        PERFORM message_create('free' || i, convert_to('free', 'UTF8'), 60000);
    END LOOP;
END
$$;
SELECT is(
    (SELECT array_agg(DISTINCT name) FROM unnest(tap.take_each(20)) AS name), '{free}',
    'and twenty more among the due wakes of 1500 paused channels');

SELECT * FROM finish();
ROLLBACK;
