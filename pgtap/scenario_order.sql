-- Promise 5: order in a channel is (dequeue_at, id), dequeue_at being the clock at the call plus the delay.
BEGIN;
SELECT plan(20);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

-- Thirty messages of a channel with delays from -700 to 700 ms, some of them equal, in a jumbled order.
CREATE FUNCTION pg_temp.send_jumbled(channel text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO sent
    SELECT name, message_create($1, convert_to(name, 'UTF8'), 3600000, i * 7 % 15 * 100 - 700)
    FROM (SELECT i, $1 || i AS name FROM generate_series(1, 30) AS i) AS names
$$;
-- The names of a channel's messages as they ought to come.
CREATE FUNCTION pg_temp.in_order(channel text) RETURNS text[] LANGUAGE sql AS $$
    SELECT array_agg(sent.name ORDER BY s.dequeue_at, s.id)
    FROM sent, message_status(ARRAY[sent.id]) AS s WHERE s.channel = $1
$$;

SELECT pg_temp.send_jumbled('a');
SELECT is((SELECT max(s.dequeue_at) FROM sent, message_status(ARRAY[id]) AS s), '2030-01-01 00:00:00.7+00'::timestamptz, 'the last is due in 700 ms');
SET pylonny_test.clock = '2030-01-01 00:00:01+00';
SELECT is(tap.take_each(30), pg_temp.in_order('a'), 'one by one messages come by (dequeue_at, id)');

SELECT pg_temp.send_jumbled('b');
SET pylonny_test.clock = '2030-01-01 00:00:02+00';
SELECT is(tap.take_all(), pg_temp.in_order('b'), 'so they do in batches');

SELECT pg_temp.send_jumbled('c');
SET pylonny_test.clock = '2030-01-01 00:00:03+00';
SELECT is(tap.take(11) || tap.take(4) || tap.take() || tap.take_all(), pg_temp.in_order('c'), 'of several sizes');

SELECT channel_policy_set('d', 1);
SELECT pg_temp.send_jumbled('d');
SET pylonny_test.clock = '2030-01-01 00:00:04+00';
CREATE TEMP TABLE expected AS SELECT pg_temp.in_order('d') AS names;
CREATE FUNCTION pg_temp.take_and_delete(calls integer) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    v_taken text[] := '{}';
    v_row record;
BEGIN
    FOR i IN 1..calls LOOP
        SELECT d.id, d.content, d.num_attempts INTO v_row FROM message_dequeue() AS d;
        v_taken := v_taken || convert_from(v_row.content, 'UTF8');
        PERFORM message_delete(v_row.id, v_row.num_attempts);
    END LOOP;
    RETURN v_taken;
END
$$;
SELECT is(pg_temp.take_and_delete(30), names, 'and one at a time from a channel with a limit') FROM expected;

SELECT channel_policy_set('e', 5);
INSERT INTO sent
    SELECT 'e' || i, message_create('e', convert_to('e' || i, 'UTF8'), 3600000, i * 7 % 15 * -100) FROM generate_series(1, 30) AS i;
SET pylonny_test.clock = '2030-01-01 00:00:05+00';
SELECT is(tap.take(10), (pg_temp.in_order('e'))[:5], 'and the first of a channel with a limit are the first by (dequeue_at, id)');
SELECT channel_policy_clear('e');
SELECT is(tap.take_all(), (pg_temp.in_order('e'))[6:], 'as are the others when the limit is gone');

-- What comes later but belongs before

INSERT INTO sent VALUES ('f2', message_create('f', 'f2', 1000)), ('f3', message_create('f', 'f3', 60000)), ('f4', message_create('f', 'f4', 60000));
SELECT is(tap.take(), '{f2}', 'the first of a channel is taken');
INSERT INTO sent VALUES ('f1', message_create('f', 'f1', 60000, -10));
SELECT is(tap.take(), '{f1}', 'a negative delay goes ahead of what is there');
SET pylonny_test.clock = '2030-01-01 00:00:07+00';
INSERT INTO sent VALUES ('f5', message_create('f', 'f5', 60000));
SELECT is(tap.take_all(), '{f2,f3,f4,f5}', 'one whose lock expired a second ago is back in its place');

SELECT channel_policy_set('g', 2);
INSERT INTO sent VALUES
    ('g2', message_create('g', 'g2', 60000)), ('g3', message_create('g', 'g3', 60000)), ('g4', message_create('g', 'g4', 60000));
SELECT is(tap.take(), '{g2}', 'in a channel limited to two the first is taken');
INSERT INTO sent VALUES ('g1', message_create('g', 'g1', 60000, -10));
SELECT is(tap.take(), '{g1}', 'a negative delay goes ahead of the one that was the next');
SELECT matches(array_to_string(tap.take(), ''), '^empty', 'and not beyond the limit');
SELECT is(message_defer(tap.id('g2'), 1, -20), 'MESSAGE_DEFERRED', 'one is put back ahead of the others');
SELECT is(tap.take(), '{g2}', 'and comes first');
SET pylonny_test.clock = '2030-01-01 00:00:07.05+00';
SELECT is(message_defer(tap.id('g2'), 2), 'MESSAGE_DEFERRED', 'it is put back without a delay');
SELECT is(tap.take(), '{g3}', 'then those that were due before it come first');

SELECT channel_policy_set('h', NULL, 100);
INSERT INTO sent VALUES ('h2', message_create('h', 'h2', 60000)), ('h3', message_create('h', 'h3', 60000));
SELECT is(tap.take(10), '{h2}', 'in a channel with an interval the first is taken');
INSERT INTO sent VALUES ('h1', message_create('h', 'h1', 60000, -10));
SET pylonny_test.clock = '2030-01-01 00:00:07.15+00';
SELECT is(tap.take(10), '{h1}', 'a negative delay goes ahead');
SET pylonny_test.clock = '2030-01-01 00:00:07.25+00';
SELECT is(tap.take(10), '{h3}', 'of the others');

SELECT * FROM finish();
ROLLBACK;
