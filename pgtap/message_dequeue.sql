-- message_dequeue: a worker takes messages.
BEGIN;
SELECT plan(48);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

-- An empty answer

SELECT results_eq(
    'SELECT result, id, channel, content, state, num_attempts, is_unlocked, unlock_at, retry_ms FROM message_dequeue()',
    $$VALUES ('MESSAGE_NOT_AVAILABLE'::dequeue_result, NULL::bigint, NULL::text, NULL::bytea, NULL::bytea, NULL::integer,
              NULL::boolean, NULL::timestamptz, NULL::bigint)$$,
    'nothing there: exactly one row MESSAGE_NOT_AVAILABLE, and retry_ms is NULL since nothing is known');
SELECT is((SELECT count(*) FROM message_dequeue(100)), 1::bigint, 'an empty batch is one row too');

INSERT INTO sent VALUES ('later', message_create('later', 'later', 60000, 250));
SELECT results_eq(
    'SELECT result, id, channel, content, state, num_attempts, is_unlocked, unlock_at, retry_ms FROM message_dequeue(7)',
    $$VALUES ('MESSAGE_NOT_AVAILABLE'::dequeue_result, NULL::bigint, NULL::text, NULL::bytea, NULL::bytea, NULL::integer,
              NULL::boolean, NULL::timestamptz, 250::bigint)$$,
    'something known: the only other value of that row is retry_ms');
SELECT is(message_cancel(tap.id('later')), 'MESSAGE_CANCELLED', 'the delayed message is taken away');
SELECT is(tap.take(), '{"empty, retry in unknown ms"}', 'and with it what was known');

-- How many

INSERT INTO sent SELECT 'a' || i, message_create('a', convert_to('a' || i, 'UTF8'), 60000) FROM generate_series(1, 10) AS i;
SELECT results_eq(
    'SELECT result, content, retry_ms FROM message_dequeue()',
    $$VALUES ('MESSAGE_DEQUEUED'::dequeue_result, 'a1'::bytea, NULL::bigint)$$,
    'without arguments one message is taken');
SELECT results_eq(
    'SELECT result, content, retry_ms FROM message_dequeue(max_messages => 3)',
    $$VALUES ('MESSAGE_DEQUEUED'::dequeue_result, 'a2'::bytea, NULL::bigint), ('MESSAGE_DEQUEUED', 'a3', NULL), ('MESSAGE_DEQUEUED', 'a4', NULL)$$,
    'up to max_messages rows MESSAGE_DEQUEUED, their retry_ms NULL, though there are more');
SELECT is(tap.take(2147483647), '{a5,a6,a7,a8,a9,a10}', 'fewer where there are fewer, however large max_messages is');
SELECT is(tap.take(2147483647), '{"empty, retry in 60000 ms"}', 'and no row MESSAGE_NOT_AVAILABLE until there is nothing');

-- The order of turns

CREATE FUNCTION pg_temp.turns(taken text[]) RETURNS text[] LANGUAGE sql AS $$
    SELECT array_agg(channel ORDER BY first) FROM (
        SELECT left(name, 1) AS channel, min(n) AS first FROM unnest(taken) WITH ORDINALITY AS t (name, n) GROUP BY 1
    ) AS firsts
$$;
INSERT INTO sent
    SELECT c || i, message_create(c, convert_to(c || i, 'UTF8'), 60000)
    FROM unnest('{x,y,z}'::text[]) AS c, generate_series(1, 6) AS i;
CREATE TEMP TABLE batch (n integer PRIMARY KEY, taken text[]);
INSERT INTO batch VALUES (1, tap.take_each(3));
SELECT is(
    (SELECT array_agg(name ORDER BY name) FROM batch, unnest(taken) AS name WHERE n = 1), '{x1,y1,z1}',
    'single dequeues take from one channel after the other');
INSERT INTO batch VALUES (2, tap.take(3));
SELECT is(
    (SELECT array_agg(left(name, 1) || '2') FROM batch, unnest(taken) AS name WHERE n = 1), (SELECT taken FROM batch WHERE n = 2),
    'a batch takes its rows in the same order of turns');
INSERT INTO batch VALUES (3, tap.take(2));
SELECT is(
    (SELECT array_agg(left(name, 1) || '3') FROM batch, unnest(taken[:2]) AS name WHERE n = 1), (SELECT taken FROM batch WHERE n = 3),
    'a smaller one has the turns that come next');
INSERT INTO batch VALUES (4, tap.take(1));
SELECT is(
    (SELECT left(taken[3], 1) || '3' FROM batch WHERE n = 1), (SELECT taken[1] FROM batch WHERE n = 4),
    'and the turn after that is the next channel''s');
INSERT INTO batch VALUES (5, tap.take(6));
SELECT is(
    (SELECT array_agg(name ORDER BY name) FROM batch, unnest(taken) AS name WHERE n = 5), '{x4,x5,y4,y5,z4,z5}',
    'a batch of two rounds takes as many of each channel as single dequeues would');
SELECT is(
    (SELECT pg_temp.turns(taken) FROM batch WHERE n = 5), (SELECT pg_temp.turns(taken) FROM batch WHERE n = 1),
    'its channels come in the order of turns');
SELECT is(
    (SELECT array_agg(name) FROM batch, unnest(taken) AS name WHERE n = 5 AND name ~ '^x'), '{x4,x5}',
    'and each channel''s messages by (dequeue_at, id)');
SELECT is(
    (SELECT array_agg(name ORDER BY name) FROM unnest(tap.take(100)) AS name), '{x6,y6,z6}', 'the rest comes with the next');

INSERT INTO sent
    SELECT c || i, message_create(c, convert_to(c || i, 'UTF8'), 60000)
    FROM (VALUES ('p', 50), ('q', 2), ('r', 1)) AS v (c, n), generate_series(1, n) AS i;
SELECT is(
    (SELECT array_agg(name ORDER BY length(name), name) FROM unnest(tap.take(8)) AS name), '{p1,p2,p3,p4,p5,q1,q2,r1}',
    'in a batch too the channel with the long backlog has only what the others leave');
SELECT is(cardinality(tap.take(100)), 45, 'and all of the rest where the others have nothing');

INSERT INTO sent VALUES
    ('s3', message_create('s', 's3', 60000)), ('s4', message_create('s', 's4', 60000)),
    ('s2', message_create('s', 's2', 60000, -1)), ('s1', message_create('s', 's1', 60000, -2));
SELECT is(tap.take(4), '{s1,s2,s3,s4}', 'within a channel a batch is ordered by (dequeue_at, id)');

-- Locks

SET pylonny_test.clock = '2030-01-02 00:00:00+00';
SELECT is(cardinality(tap.take_all()), 85, 'every lock above is over in the end, and everything comes back');
SELECT is(
    (SELECT count(*) FROM sent, message_delete(id, 2) AS r WHERE r = 'MESSAGE_DELETED'), 85::bigint, 'to be deleted');

INSERT INTO sent VALUES ('k1', message_create('k', 'k1', 5000));
SELECT results_eq(
    'SELECT num_attempts, is_unlocked, unlock_at FROM message_dequeue()',
    $$VALUES (1, false, '2030-01-02 00:00:05+00'::timestamptz)$$,
    'without lock_ms a message is locked for the lock_ms it was created with');
SELECT results_eq(
    $$SELECT status, num_attempts, locked_at, unlock_at FROM message_status(ARRAY[tap.id('k1')])$$,
    $$VALUES ('LOCKED'::message_status, 1, '2030-01-02 00:00:00+00'::timestamptz, '2030-01-02 00:00:05+00'::timestamptz)$$,
    'the lock is in the row');
SET pylonny_test.clock = '2030-01-02 00:00:04.999+00';
SELECT is(tap.take(), '{"empty, retry in 1 ms"}', 'a locked message is not delivered again before its lock is over');
SET pylonny_test.clock = '2030-01-02 00:00:05+00';
SELECT results_eq(
    'SELECT id, content, num_attempts, is_unlocked, unlock_at FROM message_dequeue(lock_ms => 700)',
    $$VALUES (tap.id('k1'), 'k1'::bytea, 2, true, '2030-01-02 00:00:05.7+00'::timestamptz)$$,
    'then it is: num_attempts counts the dequeues, is_unlocked says that a lock expired, lock_ms replaces the message''s own');
SET pylonny_test.clock = '2030-01-02 00:00:05.7+00';
SELECT results_eq(
    'SELECT num_attempts, is_unlocked, unlock_at FROM message_dequeue()',
    $$VALUES (3, true, '2030-01-02 00:00:06.4+00'::timestamptz)$$,
    'from then on, for the next dequeue that names none');
SELECT is(message_heartbeat(tap.id('k1'), 3), 'MESSAGE_HEARTBEATED', 'and for a heartbeat');
SET pylonny_test.clock = '2030-01-02 00:00:06+00';
SELECT is(message_heartbeat(tap.id('k1'), 3), 'MESSAGE_HEARTBEATED', 'that names none');
SELECT is(
    (SELECT unlock_at FROM message_status(ARRAY[tap.id('k1')])), '2030-01-02 00:00:06.7+00'::timestamptz,
    'which extends the lock by the replaced lock_ms');
SELECT is(message_defer(tap.id('k1'), 3, 0, '\x01'), 'MESSAGE_DEFERRED', 'after a defer');
SELECT results_eq(
    'SELECT num_attempts, is_unlocked, state, unlock_at FROM message_dequeue(1, 0)',
    $$VALUES (4, false, '\x01'::bytea, '2030-01-02 00:00:06+00'::timestamptz)$$,
    'is_unlocked is false, the state is there, and lock_ms may be 0');
SELECT results_eq(
    'SELECT num_attempts, is_unlocked, state, unlock_at FROM message_dequeue(1, 3155760000000)',
    $$VALUES (5, true, '\x01'::bytea, '2030-01-02 00:00:06+00'::timestamptz + interval '36525 days')$$,
    'or 36,525 days');
SELECT is(message_delete(tap.id('k1'), 5), 'MESSAGE_DELETED', 'and the message can be deleted');

INSERT INTO sent VALUES
    ('m1', message_create('m', 'm1', 60000)), ('m2', message_create('m', 'm2', 60000)), ('m3', message_create('m', 'm3', 60000));
SELECT is(
    (SELECT array_agg(unlock_at) FROM message_dequeue(2, 1000)),
    '{2030-01-02 00:00:07+00,2030-01-02 00:00:07+00}', 'lock_ms holds for every message of a batch');
SELECT is(message_heartbeat(tap.id('m2'), 1), 'MESSAGE_HEARTBEATED', 'a heartbeat for one of them that names none');
SELECT is(
    (SELECT unlock_at FROM message_status(ARRAY[tap.id('m2')])), '2030-01-02 00:00:07+00'::timestamptz,
    'extends by the replaced lock_ms');
SELECT is(message_delete(tap.id('m2'), 1), 'MESSAGE_DELETED', 'it is done');
SET pylonny_test.clock = '2030-01-02 00:00:08+00';
SELECT results_eq(
    'SELECT content, num_attempts, is_unlocked FROM message_dequeue(3)',
    $$VALUES ('m1'::bytea, 2, true), ('m3', 1, false)$$,
    'the other is redelivered in its old place in the channel, and is_unlocked is each message''s own');

-- Bad arguments raise and change nothing.

CREATE TEMP TABLE before AS SELECT tap.tables() AS tables;
SELECT tap.refused(sentence, statement, state, argument, value) FROM (VALUES
    ('max_messages NULL is refused', 'SELECT * FROM message_dequeue(NULL)', '22004', 'max_messages', 'null'),
    ('max_messages 0 is refused', 'SELECT * FROM message_dequeue(0)', '22023', 'max_messages', '\m0\M'),
    ('max_messages below 0 is refused', 'SELECT * FROM message_dequeue(-1)', '22023', 'max_messages', '-1\M'),
    ('the smallest max_messages is refused', 'SELECT * FROM message_dequeue(-2147483648)', '22023', 'max_messages', '-2147483648'),
    ('lock_ms below 0 is refused', 'SELECT * FROM message_dequeue(1, -1)', '22023', 'lock_ms', '-1\M'),
    ('lock_ms beyond 100 years is refused', 'SELECT * FROM message_dequeue(1, 3155760000001)', '22023', 'lock_ms', '3155760000001'),
    ('the largest lock_ms is refused', 'SELECT * FROM message_dequeue(1, 9223372036854775807)', '22023', 'lock_ms', '9223372036854775807'),
    ('the smallest lock_ms is refused', 'SELECT * FROM message_dequeue(1, -9223372036854775808)', '22023', 'lock_ms', '-9223372036854775808')
) AS bad (sentence, statement, state, argument, value);
SELECT ok(tap.tables() = tables, 'what is refused changes nothing') FROM before;

SELECT * FROM finish();
ROLLBACK;
