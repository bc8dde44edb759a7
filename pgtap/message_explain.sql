-- message_explain: why is this message not delivered? That it foretells each dequeue: tests/model/.
BEGIN;
SELECT plan(19);

CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';
SET timezone = 'UTC';

CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

CREATE FUNCTION pg_temp.explain(name text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws('|', e.reason, COALESCE(e.available_in_ms::text, '-'), COALESCE(e.num_ahead::text, '-'), COALESCE(e.num_lanes_ahead::text, '-'))
    FROM message_explain(tap.id(name)) e
$$;
CREATE FUNCTION pg_temp.sentence(name text) RETURNS text LANGUAGE sql AS $$ SELECT explanation FROM message_explain(id => tap.id(name)) $$;

SELECT channel_policy_set('limited', 2), channel_policy_set('slow', NULL, 1000), channel_policy_set('paused', 0);
INSERT INTO sent SELECT c.channel || n, message_create(c.channel, 'x', 60000) FROM unnest('{limited,slow,paused,free}'::text[]) AS c (channel), generate_series(1, 4) n;
INSERT INTO sent VALUES ('alone', message_create(NULL, 'x', 60000)), ('late', message_create('free', 'x', 60000, 1500)), ('gone', 0);

SELECT matches(pg_temp.explain('free1'), '^READY\|0\|0\|[0-3]$', 'one that can be had');
SELECT matches(pg_temp.explain('free3'), '^READY\|0\|2\|[0-3]$', 'one that comes after two of its channel');
SELECT matches(pg_temp.sentence('free3'), '^It can be dequeued. Before it come 2 of its channel, and the turns of [0-3] other channels.$', 'which it says');
SELECT matches(pg_temp.explain('alone'), '^READY\|0\|0\|[0-3]$', 'one without a channel');
SELECT set_eq(
    $$ SELECT (message_explain(id)).num_lanes_ahead FROM sent WHERE name IN ('free1', 'alone', 'limited1', 'slow1') $$, '{0,1,2,3}'::integer[],
    'each channel that has one to be had has another turn');
SELECT is(pg_temp.explain('late'), 'DELAYED|1500|-|-', 'one that is not due');
SELECT is(pg_temp.sentence('late'), 'It is due at 2030-01-01 00:00:01.5+00.', 'which it says');
SELECT is(pg_temp.explain('gone') || pg_temp.sentence('gone'), 'GONE|-|-|-It is gone: deleted, cancelled, rolled back, or it never was.', 'one that is gone');
SELECT is(pg_temp.explain('paused2') || pg_temp.sentence('paused2'), 'PAUSED|-|1|-Its channel is paused: max_concurrency is 0.', 'one of a paused channel');
SELECT is(pg_temp.explain('slow2') || pg_temp.sentence('slow2'), 'BEHIND|-|1|-Its channel may give 1, but 1 come before it.', 'one for which there is no room behind others');

SELECT is(cardinality(tap.take(5)), 5, 'then all that can be had are taken, but of a channel without limits');
SET pylonny_test.clock = '2030-01-01 00:00:00.2503+00';
SELECT is(
    pg_temp.explain('limited1') || pg_temp.sentence('limited1'),
    'LOCKED|59750|-|-A worker has had it since 2030-01-01 00:00:00+00, and has it until 2030-01-01 00:01:00+00: attempt 1.', 'one that a worker has');
SELECT is(
    pg_temp.explain('slow3') || pg_temp.sentence('slow3'),
    'INTERVAL|750|1|-The next message of its channel can be dequeued at 2030-01-01 00:00:01+00, for it gives one in 1000 ms. Before it come 1 of its channel.',
    'one that waits for the next release');
SELECT tap.take(5);
SELECT is(
    pg_temp.explain('limited3') || pg_temp.sentence('limited3'),
    'AT_LIMIT|59750|0|-Its channel is at its limit: 2 of 2 are locked, the first since 2030-01-01 00:00:00+00. Before it come 0 of its channel.',
    'one whose channel is at its limit');

-- Many.

SELECT channel_policy_set('wide', 120);
INSERT INTO sent SELECT c.channel || row_number() OVER (PARTITION BY c.channel), i
FROM unnest('{wide,long}'::text[]) AS c (channel), LATERAL message_create_many(array_fill(c.channel, ARRAY[150]), array_fill('x'::bytea, ARRAY[150]), '{60000}') i;
SELECT matches(pg_temp.explain('long150'), '^READY\|0\|100\|', 'more than a hundred before it are a hundred');
SELECT matches(pg_temp.explain('wide120'), '^READY\|0\|100\|', 'the last for which a high limit has room');
SELECT is(pg_temp.explain('wide121'), 'BEHIND|-|100|-', 'and the first for which it has none');

SELECT tap.refused('no id', 'SELECT message_explain(NULL)', '22004', 'id', 'NULL');
SET transaction_read_only = on;
SELECT isnt_empty('SELECT message_explain(1)', 'it only reads');

SELECT * FROM finish();
ROLLBACK;
