-- channel_explain: why is nothing delivered from this channel? That it foretells each dequeue: tests/model/.
BEGIN;
SELECT plan(14);

CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';
SET timezone = 'UTC';

CREATE FUNCTION pg_temp.explain(channel text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws('|', e.reason, COALESCE(e.available_in_ms::text, '-'), e.num_available, e.explanation) FROM channel_explain(channel => $1) e
$$;

SELECT channel_policy_set('limited', 2), channel_policy_set('slow', NULL, 1000), channel_policy_set('paused', 0);
SELECT is(pg_temp.explain('limited'), 'EMPTY|-|0|It has no messages.', 'one that has nothing');
SELECT message_create(c.channel, 'x', 60000) FROM unnest('{limited,slow,paused,free}'::text[]) AS c (channel), generate_series(1, 3) n;
SELECT matches(pg_temp.explain('free'), '^READY\|0\|3\|3 can be dequeued, after the turns of [0-2] other channels.$', 'one without limits');
SELECT matches(pg_temp.explain('limited'), '^READY\|0\|2\|2 can', 'of a limited one as many as its limit lets');
SELECT matches(pg_temp.explain('slow'), '^READY\|0\|1\|1 can', 'of a slow one one');
SELECT is(pg_temp.explain('paused'), 'PAUSED|-|0|It is paused: max_concurrency is 0. 3 are due.', 'of a paused one none');
SELECT message_create('late', 'x', 60000, 2000);
SELECT is(pg_temp.explain('late'), 'DELAYED|2000|0|Nothing is due. The next is at 2030-01-01 00:00:02+00; 0 are locked.', 'one whose messages are not due');

SELECT is(cardinality(tap.take(100)), 6, 'then all that can be had are taken');
SET pylonny_test.clock = '2030-01-01 00:00:00.5+00';
SELECT is(
    pg_temp.explain('limited'), 'AT_LIMIT|59500|0|It is at its limit: 2 of 2 are locked, the first since 2030-01-01 00:00:00+00. 1 are due.',
    'one that is at its limit');
SELECT is(
    pg_temp.explain('slow'), 'INTERVAL|500|0|The next can be dequeued at 2030-01-01 00:00:01+00, for it gives one in 1000 ms. 2 are due.',
    'one whose next release is still to come');
SELECT is(pg_temp.explain('free'), 'LOCKED|59500|0|All that it has, 3, is locked, the first since 2030-01-01 00:00:00+00.', 'one whose messages are all locked');
SELECT results_eq(
    $$ SELECT num_locked, locked_at, max_concurrency, release_interval_ms FROM unnest('{limited,slow,free}'::text[]) AS c (channel), LATERAL channel_explain(c.channel) $$,
    $$ VALUES (2, '2030-01-01 00:00:00+00'::timestamptz, 2, NULL::bigint), (1, '2030-01-01 00:00:00+00', NULL, 1000), (3, '2030-01-01 00:00:00+00', NULL, NULL) $$,
    'locks and limits come with it');

SELECT tap.refused('no channel', 'SELECT channel_explain(NULL)', '22004', 'channel', 'NULL');
SELECT tap.refused('an empty one', $$ SELECT channel_explain('') $$, '22023', 'channel', $$''$$);
SET transaction_read_only = on;
SELECT isnt_empty($$ SELECT channel_explain('free') $$, 'it only reads');

SELECT * FROM finish();
ROLLBACK;
