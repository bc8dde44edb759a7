-- channel_policy_clear: no limits for a channel any more.
BEGIN;
SELECT plan(19);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

-- So many messages of a channel, called c1, c2, … after it.
CREATE FUNCTION pg_temp.send(channel text, messages integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO sent
    SELECT name, message_create($1, convert_to(name, 'UTF8'), 60000)
    FROM (SELECT $1 || i AS name FROM generate_series(1, $2) AS i) AS names
$$;

SELECT channel_policy_set('e', 1);
INSERT INTO sent VALUES ('e1', message_create('e', 'e1', 60000, 1000)), ('e2', message_create('e', 'e2', 60000, 1000));
SELECT channel_policy_clear('e');
SELECT is(tap.take(10), '{"empty, retry in 1000 ms"}', 'clearing does not end a delay');
SET pylonny_test.clock = '2030-01-01 00:00:01+00';
SELECT is(tap.take_all(), '{e1,e2}', 'but when it is over there is no limit');

SELECT channel_policy_set('a', 1);
SELECT channel_policy_set('b', 1);
SELECT pg_temp.send('a', 4);
SELECT is(tap.take(10), '{a1}', 'of a channel limited to one the first is taken');
SELECT pg_temp.send('b', 2);
SELECT channel_policy_clear(channel => 'a');
SELECT is(
    (SELECT array_agg(name ORDER BY name) FROM unnest(tap.take(10)) AS name), '{a2,a3,a4,b1}',
    'clearing removes the limit, for the messages that are there already, and that of no other channel');
SELECT isnt(message_create('a', 'a5', 60000), NULL, 'a message comes in after it');
SELECT is(tap.take(10), '{a5}', 'and is not limited either');

SELECT channel_policy_set('c', 0);
SELECT pg_temp.send('c', 2);
SELECT matches(array_to_string(tap.take(10), ' '), '^empty', 'a channel is paused');
SELECT channel_policy_clear('c');
SELECT is(tap.take(10), '{c1,c2}', 'clearing ends the pause');

SELECT channel_policy_set('d', NULL, 3600000);
SELECT pg_temp.send('d', 3);
SELECT is(tap.take(10), '{d1}', 'of a channel with an interval the first is taken');
SELECT channel_policy_clear('d');
SELECT is(tap.take(10), '{d2,d3}', 'clearing removes the interval that runs');

SELECT channel_policy_set('d', 3);
SELECT pg_temp.send('d1', 1);
SELECT pg_temp.send('d2', 1);
SELECT is(
    (SELECT array_agg(name ORDER BY name) FROM unnest(tap.take(10)) AS name), '{d11,d21}',
    'channels whose names begin alike have nothing to do with each other');
INSERT INTO sent VALUES ('d4', message_create('d', 'd4', 60000));
SELECT matches(array_to_string(tap.take(10), ' '), '^empty', 'a policy set after a clear binds, and counts what was taken meanwhile');
SELECT channel_policy_clear('d');
SELECT channel_policy_clear('d');
SELECT is(tap.take(10), '{d4}', 'to clear twice is to clear');

SELECT channel_policy_clear('never heard of');
SELECT channel_policy_clear(repeat('é', 256));
SELECT pg_temp.send('never heard of', 1);
SELECT is(tap.take(10), '{never heard of1}', 'a channel without a policy may be cleared, and one without messages');

-- Bad arguments raise and change nothing.

CREATE TEMP TABLE before AS SELECT tap.tables() AS tables;
SELECT tap.refused(sentence, statement, state, argument, value) FROM (VALUES
    ('channel NULL is refused', 'SELECT channel_policy_clear(NULL)', '22004', 'channel', 'null'),
    ('an empty channel name is refused', $$SELECT channel_policy_clear('')$$, '22023', 'channel', $$''|""|empty$$),
    ('a channel name of 513 bytes is refused', $$SELECT channel_policy_clear(repeat('c', 513))$$, '22023', 'channel', '513|cccccccccc'),
    ('a channel name of 513 bytes in 257 characters is refused', $$SELECT channel_policy_clear(repeat('é', 256) || 'c')$$, '22023', 'channel', '513|éééééééééé')
) AS bad (sentence, statement, state, argument, value);
SELECT ok(tap.tables() = tables, 'what is refused changes nothing') FROM before;

SELECT * FROM finish();
ROLLBACK;
