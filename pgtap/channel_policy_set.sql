-- channel_policy_set: limits for a channel.
BEGIN;
SELECT plan(86);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

-- So many messages of a channel, called c1, c2, … after it.
CREATE FUNCTION pg_temp.send(channel text, messages integer, lock_ms bigint DEFAULT 60000, first integer DEFAULT 1)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO sent
    SELECT name, message_create($1, convert_to(name, 'UTF8'), $3)
    FROM (SELECT $1 || i AS name FROM generate_series($4, $4 + $2 - 1) AS i) AS names
$$;
-- How a dequeue answers that finds nothing, whatever it knows of later.
CREATE FUNCTION pg_temp.is_nothing(taken text[], sentence text) RETURNS text LANGUAGE sql
AS $$ SELECT matches(array_to_string(taken, ' '), '^empty', sentence) $$;

-- max_concurrency

SELECT channel_policy_set(channel => 'a', max_concurrency => 2);
SELECT pg_temp.send('a', 5);
SELECT is(tap.take(10), '{a1,a2}', 'not more than max_concurrency messages of a channel are out at a time');
SELECT is(tap.take(10), '{"empty, retry in 60000 ms"}', 'the next may be out when the first lock ends');
SELECT is(message_delete(tap.id('a1'), 1), 'MESSAGE_DELETED', 'or when one is deleted');
SELECT is(tap.take(10), '{a3}', 'which frees one place');
SELECT is(message_defer(tap.id('a2'), 1, 3600000), 'MESSAGE_DEFERRED', 'or when one is deferred');
SELECT is(tap.take(10), '{a4}', 'which frees one place');
SELECT is(message_heartbeat(tap.id('a3'), 1), 'MESSAGE_HEARTBEATED', 'a heartbeat');
SELECT pg_temp.is_nothing(tap.take(10), 'frees none');
SET pylonny_test.clock = '2030-01-01 00:01:00+00';
SELECT is(tap.take(10), '{a3,a4}', 'when locks expire their messages come back, and no more than the limit');
SELECT is(message_delete(tap.id('a3'), 2), 'MESSAGE_DELETED', 'one is deleted');
SELECT is(tap.take(10), '{a5}', 'and the last takes its place');

SELECT pg_temp.send('b', 3);
SELECT is(tap.take(10), '{b1,b2,b3}', 'another channel has no limit');

SELECT channel_policy_set('n', 2);
SELECT pg_temp.send('n', 4);
SELECT is(tap.take(), '{n1}', 'of a channel limited to two one is taken');
SELECT isnt(message_create('n', 'n5', 60000), NULL, 'another message comes in');
SELECT is(tap.take(), '{n2}', 'a second is taken');
SELECT isnt(message_create('n', 'n6', 60000), NULL, 'another message comes in');
SELECT pg_temp.is_nothing(tap.take(), 'and still not more than two are out');
SELECT channel_policy_set('n', 0);

-- A policy binds messages that are there already, and counts those that are out.

SELECT pg_temp.send('c', 6);
SELECT is(tap.take(2), '{c1,c2}', 'two messages of a channel without a policy are taken');
SELECT channel_policy_set('c', 2);
SELECT pg_temp.is_nothing(tap.take(10), 'a first policy binds those that were ready, and counts the two');
SELECT channel_policy_set('c', 3);
SELECT is(tap.take(10), '{c3}', 'a higher limit lets one more through at once');
SELECT channel_policy_set('c', 1);
SELECT is(message_delete(tap.id('c1'), 1), 'MESSAGE_DELETED', 'a lower limit: two are still out when one is deleted');
SELECT pg_temp.is_nothing(tap.take(10), 'so there is nothing to be had');
SELECT is(message_delete(tap.id('c2'), 1), 'MESSAGE_DELETED', 'nor is there when the limit is reached');
SELECT pg_temp.is_nothing(tap.take(10), 'from above');
SELECT is(message_delete(tap.id('c3'), 1), 'MESSAGE_DELETED', 'when none is out');
SELECT is(tap.take(10), '{c4}', 'there is one to be had');

-- Pause

SELECT channel_policy_set('d', 0);
SELECT pg_temp.send('d', 3);
SELECT pg_temp.is_nothing(tap.take(10), 'max_concurrency 0: paused');
SET pylonny_test.clock = '2030-01-01 00:01:10+00';
SELECT pg_temp.is_nothing(tap.take(10), 'a pause does not end by itself');
SELECT channel_policy_set('d', 1);
SELECT is(tap.take(10), '{d1}', 'it ends with another policy');
SELECT channel_policy_set('d', 0);
SELECT is(message_delete(tap.id('d1'), 1), 'MESSAGE_DELETED', 'in a pause a worker may finish what it has');
SELECT pg_temp.is_nothing(tap.take(10), 'and gets nothing new');
SELECT channel_policy_set('d', NULL, NULL);
SELECT is(tap.take(10), '{d2,d3}', 'max_concurrency NULL: no limit');

SELECT pg_temp.send('e', 2);
SELECT channel_policy_set('e', 0);
SELECT pg_temp.is_nothing(tap.take(10), 'a pause binds messages that were ready before it');
SELECT channel_policy_set('e', 2147483647);
SELECT is(tap.take(10), '{e1,e2}', 'the largest max_concurrency is a limit like any other');

-- However much work is due for others

CREATE FUNCTION pg_temp.set_others(max_concurrency integer) RETURNS void LANGUAGE sql
AS $$ SELECT channel_policy_set('other' || i, $1) FROM generate_series(1, 400) AS i $$;
SELECT pg_temp.send('f', 2);
SELECT pg_temp.set_others(1);
SELECT channel_policy_set('f', 0);
SELECT pg_temp.is_nothing(tap.take(), 'a pause binds the next dequeue beside the changes of 400 other policies');
SELECT pg_temp.send('g', 2);
SELECT pg_temp.set_others(2);
SELECT channel_policy_set('g', 0);
SELECT pg_temp.is_nothing(tap.take(10), 'and the next batch');
SELECT channel_policy_set('f', NULL, 60000);
SELECT is(tap.take(10), '{f1}', 'so does an interval');
SELECT channel_policy_clear('f');
SELECT channel_policy_clear('g');

-- release_interval_ms

SET pylonny_test.clock = '2030-01-02 00:00:00+00';
DO $$
DECLARE
    v_row record;
BEGIN
    FOR v_row IN SELECT channel FROM unnest('{a,b,c,d,e,n}'::text[]) AS channel LOOP
        PERFORM channel_policy_set(v_row.channel);
    END LOOP;
    LOOP
        SELECT d.id, d.num_attempts INTO v_row FROM message_dequeue() AS d;
        EXIT WHEN v_row.id IS NULL;
        PERFORM message_delete(v_row.id, v_row.num_attempts);
    END LOOP;
END
$$;
SELECT is((SELECT array_agg(s.id) FROM sent, message_status(ARRAY[sent.id]) AS s), NULL, 'both arguments left out: no limit any more');

SELECT channel_policy_set(channel => 'i', release_interval_ms => 1000);
SELECT pg_temp.send('i', 5, 250);
SELECT is(tap.take(10), '{i1}', 'of a channel with an interval one message is to be had at once, in a batch too');
SELECT is(message_delete(tap.id('i1'), 1), 'MESSAGE_DELETED', 'it is done within the interval');
SELECT is(tap.take(10), '{"empty, retry in 1000 ms"}', 'the next is to be had an interval later');
SET pylonny_test.clock = '2030-01-02 00:00:00.999+00';
SELECT is(tap.take(10), '{"empty, retry in 1 ms"}', 'not a millisecond earlier');
SET pylonny_test.clock = '2030-01-02 00:00:00.9995+00';
SELECT pg_temp.send('i', 1, 250, 6);
SELECT is(tap.take(10), '{"empty, retry in 1 ms"}', 'nor because another message comes in');
SET pylonny_test.clock = '2030-01-02 00:00:01+00';
SELECT is(tap.take(), '{i2}', 'on the dot');
SET pylonny_test.clock = '2030-01-02 00:00:01.5+00';
SELECT is(tap.take(10), '{"empty, retry in 500 ms"}', 'a message whose lock expired keeps the interval');
SET pylonny_test.clock = '2030-01-02 00:00:02+00';
SELECT results_eq(
    'SELECT content, num_attempts FROM message_dequeue(10)', $$VALUES ('i2'::bytea, 2)$$, 'and is the next');
SELECT is(message_defer(tap.id('i2'), 2, -5000), 'MESSAGE_DEFERRED', 'so does a message that is deferred');
SELECT is(tap.take(10), '{"empty, retry in 1000 ms"}', 'be it to the front');
SET pylonny_test.clock = '2030-01-02 00:00:10+00';
SELECT is(tap.take(10), '{i2}', 'after a long time it is to be had');
SELECT is(message_delete(tap.id('i2'), 3), 'MESSAGE_DELETED', 'and done');
SELECT is(tap.take(10), '{"empty, retry in 1000 ms"}', 'what was not used is not saved up');

-- A change of the interval counts from the last release.

SELECT channel_policy_set('i', NULL, 5000);
SET pylonny_test.clock = '2030-01-02 00:00:11+00';
SELECT is(tap.take(10), '{"empty, retry in 4000 ms"}', 'a longer interval binds at once, for the message that waits already');
SELECT channel_policy_set('i', NULL, 3000);
SELECT is(tap.take(10), '{"empty, retry in 2000 ms"}', 'and a shorter one');
SELECT channel_policy_set('i', NULL, 500);
SELECT is(tap.take(10), '{i3}', 'that may be over already');
SELECT is(message_delete(tap.id('i3'), 1), 'MESSAGE_DELETED', 'it is done');
SELECT channel_policy_set('i', NULL, 0);
SELECT is(tap.take(1), '{i4}', 'release_interval_ms 0: no interval');
SELECT is(tap.take(1), '{i5}', 'none at all');
SELECT is(
    (SELECT array_agg(r) FROM message_delete_many(ARRAY[tap.id('i4'), tap.id('i5')], '{1,1}') AS d (id, r)),
    '{MESSAGE_DELETED,MESSAGE_DELETED}', 'they are done');

-- Both, and setting replaces both

SELECT channel_policy_set('j', 1, 1000);
SELECT pg_temp.send('j', 7);
SELECT is(message_cancel(tap.id('i6')), 'MESSAGE_CANCELLED', 'the last is taken back');
SELECT is(tap.take(10), '{j1}', 'of a channel with a limit and an interval one message is to be had');
SET pylonny_test.clock = '2030-01-02 00:00:12+00';
SELECT pg_temp.is_nothing(tap.take(10), 'the limit is kept when the interval is over');
SELECT is(message_delete(tap.id('j1'), 1), 'MESSAGE_DELETED', 'one is done');
SELECT is(tap.take(10), '{j2}', 'and the next to be had');
SELECT is(message_delete(tap.id('j2'), 1), 'MESSAGE_DELETED', 'it is done at once');
SELECT is(tap.take(10), '{"empty, retry in 1000 ms"}', 'and the interval is kept where the limit is not reached');
SELECT channel_policy_set('j', 2);
SELECT is(tap.take(10), '{j3,j4}', 'a policy with a limit alone has no interval any more');
SELECT channel_policy_set('j', NULL, 1000);
SET pylonny_test.clock = '2030-01-02 00:00:20+00';
SELECT is(tap.take(10), '{j5}', 'a policy with an interval alone has no limit any more');
SET pylonny_test.clock = '2030-01-02 00:00:21+00';
SELECT is(tap.take(10), '{j6}', 'while three are out');

-- Limits and delays

SELECT channel_policy_set('k', 1);
INSERT INTO sent VALUES ('k2', message_create('k', 'k2', 60000, 5000)), ('k1', message_create('k', 'k1', 60000));
SELECT is(tap.take(10), '{k1}', 'a message that is not due does not hold up a limited channel');
SELECT is(message_delete(tap.id('k1'), 1), 'MESSAGE_DELETED', 'it is done');
SET pylonny_test.clock = '2030-01-02 00:00:25.999+00';
SELECT is(tap.take(10), '{j7}', 'another channel goes on');
SELECT is(tap.take(10), '{"empty, retry in 1 ms"}', 'a limit does not make a delay shorter');
SET pylonny_test.clock = '2030-01-02 00:00:26+00';
SELECT is(tap.take(10), '{k2}', 'nor longer');

-- The outermost values

SELECT channel_policy_set(repeat('é', 256), NULL, 3155760000000);
INSERT INTO sent VALUES
    ('m1', message_create(repeat('é', 256), 'm1', 3155760000000)), ('m2', message_create(repeat('é', 256), 'm2', 60000));
SELECT is(tap.take(10), '{m1}', 'an interval of 36,525 days for a channel of 512 bytes is accepted');
SELECT pg_temp.is_nothing(tap.take(10), 'and kept, and no dequeue raises');

-- Bad arguments raise and change nothing.

CREATE TEMP TABLE before AS SELECT tap.tables() AS tables;
SELECT tap.refused(sentence, statement, state, argument, value) FROM (VALUES
    ('channel NULL is refused', 'SELECT channel_policy_set(NULL, 1)', '22004', 'channel', 'null'),
    ('an empty channel name is refused', $$SELECT channel_policy_set('', 1)$$, '22023', 'channel', $$''|""|empty$$),
    ('a channel name of 513 bytes is refused', $$SELECT channel_policy_set(repeat('c', 513), 1)$$, '22023', 'channel', '513|cccccccccc'),
    ('a channel name of 513 bytes in 257 characters is refused', $$SELECT channel_policy_set(repeat('é', 256) || 'c', 1)$$, '22023', 'channel', '513|éééééééééé'),
    ('max_concurrency below 0 is refused', $$SELECT channel_policy_set('a', -1)$$, '22023', 'max_concurrency', '-1\M'),
    ('the smallest max_concurrency is refused', $$SELECT channel_policy_set('a', -2147483648)$$, '22023', 'max_concurrency', '-2147483648'),
    ('release_interval_ms below 0 is refused', $$SELECT channel_policy_set('a', NULL, -1)$$, '22023', 'release_interval_ms', '-1\M'),
    ('release_interval_ms beyond 100 years is refused', $$SELECT channel_policy_set('a', NULL, 3155760000001)$$, '22023', 'release_interval_ms', '3155760000001'),
    ('the largest release_interval_ms is refused', $$SELECT channel_policy_set('a', NULL, 9223372036854775807)$$, '22023', 'release_interval_ms', '9223372036854775807'),
    ('the smallest release_interval_ms is refused', $$SELECT channel_policy_set('a', NULL, -9223372036854775808)$$, '22023', 'release_interval_ms', '-9223372036854775808')
) AS bad (sentence, statement, state, argument, value);
SELECT ok(tap.tables() = tables, 'what is refused changes nothing') FROM before;

SELECT * FROM finish();
ROLLBACK;
