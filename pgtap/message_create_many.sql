-- message_create_many: many messages come in by one call.
BEGIN;
SELECT plan(59);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The rows of some messages, in the order of the ids.
CREATE FUNCTION pg_temp.column_of(ids bigint[], what text) RETURNS text[] LANGUAGE sql AS $$
    SELECT array_agg(to_jsonb(s) ->> what ORDER BY s.ordinality) FROM message_status(ids) WITH ORDINALITY AS s
$$;
CREATE TEMP TABLE batch (name text PRIMARY KEY, ids bigint[]);

-- Ids in input order

INSERT INTO batch SELECT 'order', array_agg(id ORDER BY ordinality)
    FROM message_create_many('{b,a,b}', '{b1,a1,b2}', '{1000,2000,3000}', '{0,0,0}') WITH ORDINALITY AS c (id, ordinality);
SELECT is(
    pg_temp.column_of(ids, 'channel'), '{b,a,b}', 'the ids come in input order: the channels fit')
FROM batch WHERE name = 'order';
SELECT results_eq(
    'SELECT id, content, unlock_at FROM message_dequeue(3) ORDER BY content',
    $$SELECT c.id, c.content, '2030-01-01 00:00:00+00'::timestamptz + c.lock_ms * interval '1 ms'
      FROM batch, LATERAL (VALUES (ids[2], 'a1'::bytea, 2000), (ids[1], 'b1', 1000), (ids[3], 'b2', 3000)) AS c (id, content, lock_ms)
      WHERE name = 'order'$$,
    'and so do the contents and a lock_ms of each');

SELECT is(
    (SELECT array_agg(DISTINCT delivered) FROM (
        SELECT (d.id = made.id) AS delivered
        FROM message_create_many(NULL, ARRAY(SELECT convert_to(i::text, 'UTF8') FROM generate_series(1, 2000) AS i), '{60000}')
            WITH ORDINALITY AS made (id, n)
        JOIN message_dequeue(2000) AS d ON convert_from(d.content, 'UTF8')::bigint = made.n
    ) AS compared), '{t}',
    'two thousand ids are in input order');

-- Messages without a channel

INSERT INTO batch SELECT 'no channels', array_agg(id) FROM message_create_many(NULL, '{n1,n2}', '{60000}') AS id;
SELECT is(
    (SELECT count(DISTINCT channel) FILTER (WHERE channel::uuid IS NOT NULL) FROM batch, message_status(ids)
     WHERE name = 'no channels'), 2::bigint,
    'channels NULL: no message has a channel, each gets a uuid of its own');
INSERT INTO batch SELECT 'some channels', array_agg(id) FROM message_create_many('{x,NULL}', '{x1,n3}', '{60000}') AS id;
SELECT ok(
    (pg_temp.column_of(ids, 'channel'))[1] = 'x' AND (pg_temp.column_of(ids, 'channel'))[2]::uuid IS NOT NULL,
    'an element of channels NULL: that message has no channel')
FROM batch WHERE name = 'some channels';
SELECT ok(
    taken IN ('{x1,n1,n2,n3}', '{n1,x1,n2,n3}'),
    'they share one turn in the rotation, first in, first out')
FROM tap.take_each(4) AS taken;

-- One element for all

SELECT is(
    (SELECT count(*) FROM message_create_many('{d,d,d}', '{d1,d2,d3}', '{1000}')), 3::bigint,
    'lock_ms may have one element for all, and so has delay_ms, 0, unless it is given');
SELECT results_eq(
    $$SELECT content, unlock_at FROM message_dequeue(3)$$,
    $$VALUES ('d1'::bytea, '2030-01-01 00:00:01+00'::timestamptz), ('d2', '2030-01-01 00:00:01+00'), ('d3', '2030-01-01 00:00:01+00')$$,
    'all are ready at once, in input order, and locked alike');

SET pylonny_test.clock = '2030-01-02 00:00:00+00';
SET pylonny_test.clock = '2030-01-03 00:00:00+00';
DO $$
DECLARE
    v_row record;
BEGIN
    LOOP
        SELECT d.id, d.num_attempts INTO v_row FROM message_dequeue(1, 60000) AS d;
        EXIT WHEN v_row.id IS NULL;
        PERFORM message_delete(v_row.id, v_row.num_attempts);
    END LOOP;
END
$$;

INSERT INTO batch SELECT 'delays', array_agg(id)
    FROM message_create_many('{e,e,f,e}', '{late,early,other,ahead}', '{60000}', '{2000,1000,1000,-1}') AS id;
SELECT is(
    pg_temp.column_of(ids, 'status'), '{WAITING,WAITING,WAITING,READY}', 'delay_ms may have one element for each')
FROM batch WHERE name = 'delays';
SELECT is(tap.take(10), '{ahead}', 'a negative delay is ready at once, the others wait');
SET pylonny_test.clock = '2030-01-03 00:00:01+00';
SELECT is(
    (SELECT array_agg(taken ORDER BY taken) FROM unnest(tap.take_each(2)) AS taken), '{early,other}',
    'each waits for its own delay');
SELECT is(tap.take(10), '{"empty, retry in 1000 ms"}', 'and not less');
SET pylonny_test.clock = '2030-01-03 00:00:02+00';
SELECT is(tap.take(10), '{late}', 'nor more');
INSERT INTO batch SELECT 'delay', array_agg(id) FROM message_create_many('{g,h}', '{g1,h1}', '{60000}', '{500}') AS id;
SELECT is(
    pg_temp.column_of(ids, 'status'), '{WAITING,WAITING}', 'delay_ms may have one element for all')
FROM batch WHERE name = 'delay';
SET pylonny_test.clock = '2030-01-03 00:00:02.5+00';
SELECT is(
    (SELECT array_agg(taken ORDER BY taken) FROM unnest(tap.take_each(2)) AS taken), '{g1,h1}',
    'it holds for all of them');

-- Policies bind a batch as they bind single messages.

SELECT channel_policy_set('limited', 2);
SELECT is(
    (SELECT count(*) FROM message_create_many('{limited,limited,limited}', '{l1,l2,l3}', '{60000}')), 3::bigint,
    'a batch larger than the limit of its channel is accepted');
SELECT is(tap.take(10), '{l1,l2}', 'and not more of it than the limit is delivered');
SELECT channel_policy_set('open', 2);
SELECT matches(
    array_to_string(tap.take(10), ''), '^empty', 'a channel without messages has a policy, which every dequeue knows of');
SELECT is(
    (SELECT count(*) FROM message_create_many('{open}', '{o1}', '{60000}')), 1::bigint, 'then a batch comes in');
SELECT is(tap.take(10), '{o1}', 'and is to be had at once');

-- The shape of the arrays

SELECT is_empty($$SELECT * FROM message_create_many('{}', '{}', '{}', '{}')$$, 'empty contents: no rows');
SELECT is_empty($$SELECT * FROM message_create_many(NULL, '{}', '{60000}')$$, 'empty contents beside one lock_ms for all: no rows');
SELECT is(
    (SELECT count(*) FROM message_create_many('[0:1]={z,z}', '[5:6]={z1,z2}', '[-1:0]={1000,2000}', '[7:8]={0,-1}')), 2::bigint,
    'arrays that do not begin at 1 are arrays like others');
SELECT results_eq(
    $$SELECT content, unlock_at FROM message_dequeue(2)$$,
    $$VALUES ('z2'::bytea, '2030-01-03 00:00:04.5+00'::timestamptz), ('z1', '2030-01-03 00:00:03.5+00')$$,
    'and every element goes with its own');

SELECT is(
    (SELECT count(*) FROM message_create_many('{{t,t},{t,t}}', '{{t1,t2},{t3,t4}}', '{{1000,2000},{3000,4000}}', '{{0,0},{0,-1}}')),
    4::bigint, 'arrays of two dimensions are read row by row');
SELECT results_eq(
    $$SELECT content, unlock_at FROM message_dequeue(4)$$,
    $$VALUES ('t4'::bytea, '2030-01-03 00:00:06.5+00'::timestamptz), ('t1', '2030-01-03 00:00:03.5+00'),
             ('t2', '2030-01-03 00:00:04.5+00'), ('t3', '2030-01-03 00:00:05.5+00')$$,
    'and every element goes with its own');

-- The outermost values

INSERT INTO batch SELECT 'outermost', array_agg(id ORDER BY id)
    FROM message_create_many('{u,v}', '{u1,v1}', '{0,3155760000000}', '{-3155760000000,3155760000000}') AS id;
SELECT is(
    pg_temp.column_of(ids, 'created_at'), array_fill(to_jsonb(_clock()) #>> '{}', '{2}'),
    'whatever its delay, a message of a batch was created now')
FROM batch WHERE name = 'outermost';
SELECT results_eq(
    'SELECT content, unlock_at FROM message_dequeue(2)', $$VALUES ('u1'::bytea, _clock())$$,
    'a lock_ms of 0 and a delay of -36,525 days are accepted in a batch, and delivered');

-- Bad arguments raise and change nothing.

CREATE TEMP TABLE before AS SELECT tap.tables() AS tables;
SELECT tap.refused(sentence, statement, state, argument, value) FROM (VALUES
    ('contents NULL is refused', $$SELECT message_create_many('{a}', NULL, '{1}')$$, '22004', 'contents', 'null'),
    ('a content NULL is refused', $$SELECT message_create_many('{a,a}', '{x,NULL}', '{1}')$$, '22004', 'contents', 'null'),
    ('lock_ms NULL is refused', $$SELECT message_create_many('{a}', '{x}', NULL)$$, '22004', 'lock_ms', 'null'),
    ('lock_ms NULL is refused beside empty contents', $$SELECT message_create_many('{}', '{}', NULL)$$, '22004', 'lock_ms', 'null'),
    ('one lock_ms NULL for all is refused', $$SELECT message_create_many('{a,a}', '{x,x}', '{NULL}')$$, '22004', 'lock_ms', 'null'),
    ('a lock_ms NULL is refused', $$SELECT message_create_many('{a,a}', '{x,x}', '{1,NULL}')$$, '22004', 'lock_ms', 'null'),
    ('delay_ms NULL is refused', $$SELECT message_create_many('{a}', '{x}', '{1}', NULL)$$, '22004', 'delay_ms', 'null'),
    ('delay_ms NULL is refused beside empty contents', $$SELECT message_create_many('{}', '{}', '{1}', NULL)$$, '22004', 'delay_ms', 'null'),
    ('one delay_ms NULL for all is refused', $$SELECT message_create_many('{a,a}', '{x,x}', '{1}', '{NULL}')$$, '22004', 'delay_ms', 'null'),
    ('a delay_ms NULL is refused', $$SELECT message_create_many('{a,a}', '{x,x}', '{1}', '{0,NULL}')$$, '22004', 'delay_ms', 'null'),
    ('fewer channels than contents are refused', $$SELECT message_create_many('{a}', '{x,x}', '{1}')$$, '22023', 'channels', '\{a\}|\m1\M'),
    ('more channels than contents are refused', $$SELECT message_create_many('{a,a,a}', '{x,x}', '{1}')$$, '22023', 'channels', '\{a,a,a\}|\m3\M'),
    ('channels without contents are refused', $$SELECT message_create_many('{a}', '{}', '{1}')$$, '22023', 'channels', '\{a\}|\m1\M'),
    ('empty channels are refused beside contents', $$SELECT message_create_many('{}', '{x}', '{1}')$$, '22023', 'channels', '\{\}|\m0\M'),
    ('fewer lock_ms than contents are refused', $$SELECT message_create_many('{a,a,a}', '{x,x,x}', '{1,1}')$$, '22023', 'lock_ms', '\{1,1\}|\m2\M'),
    ('more lock_ms than contents are refused', $$SELECT message_create_many('{a}', '{x}', '{1,1}')$$, '22023', 'lock_ms', '\{1,1\}|\m2\M'),
    ('empty lock_ms are refused beside contents', $$SELECT message_create_many('{a}', '{x}', '{}')$$, '22023', 'lock_ms', '\{\}|\m0\M'),
    ('fewer delay_ms than contents are refused', $$SELECT message_create_many('{a,a,a}', '{x,x,x}', '{1}', '{1,1}')$$, '22023', 'delay_ms', '\{1,1\}|\m2\M'),
    ('more delay_ms than contents are refused', $$SELECT message_create_many('{a}', '{x}', '{1}', '{0,0}')$$, '22023', 'delay_ms', '\{0,0\}|\m2\M'),
    ('empty delay_ms are refused beside contents', $$SELECT message_create_many('{a}', '{x}', '{1}', '{}')$$, '22023', 'delay_ms', '\{\}|\m0\M'),
    ('an empty channel name among others is refused', $$SELECT message_create_many('{a,""}', '{x,x}', '{1}')$$, '22023', 'channels', $$''|""|empty$$),
    ('a channel name of 513 bytes among others is refused', $$SELECT message_create_many(ARRAY['a', repeat('c', 513)], '{x,x}', '{1}')$$, '22023', 'channels', '513|cccccccccc'),
    ('a channel name of 513 bytes in 257 characters is refused', $$SELECT message_create_many(ARRAY[repeat('é', 256) || 'c'], '{x}', '{1}')$$, '22023', 'channels', '513|éééééééééé'),
    ('the first of two lock_ms below 0 is refused', $$SELECT message_create_many('{a,a,a}', '{x,x,x}', '{1,-1,-2}')$$, '22023', 'lock_ms', '-1\M'),
    ('one lock_ms below 0 for all is refused', $$SELECT message_create_many('{a,a}', '{x,x}', '{-1}')$$, '22023', 'lock_ms', '-1\M'),
    ('a lock_ms beyond 100 years is refused', $$SELECT message_create_many('{a,a}', '{x,x}', '{1,3155760000001}')$$, '22023', 'lock_ms', '3155760000001'),
    ('the largest lock_ms is refused', $$SELECT message_create_many('{a}', '{x}', '{9223372036854775807}')$$, '22023', 'lock_ms', '9223372036854775807'),
    ('a delay_ms beyond 100 years is refused', $$SELECT message_create_many('{a,a}', '{x,x}', '{1}', '{0,3155760000001}')$$, '22023', 'delay_ms', '3155760000001'),
    ('a delay_ms beyond 100 years back is refused', $$SELECT message_create_many('{a,a}', '{x,x}', '{1}', '{0,-3155760000001}')$$, '22023', 'delay_ms', '-3155760000001'),
    ('the smallest delay_ms is refused', $$SELECT message_create_many('{a}', '{x}', '{1}', '{-9223372036854775808}')$$, '22023', 'delay_ms', '-9223372036854775808')
) AS bad (sentence, statement, state, argument, value);
SELECT ok(tap.tables() = tables, 'what is refused changes nothing, the good messages of the batch included') FROM before;

SELECT * FROM finish();
ROLLBACK;
