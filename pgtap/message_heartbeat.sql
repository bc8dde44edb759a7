-- message_heartbeat: a worker goes on working.
BEGIN;
SELECT plan(52);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

CREATE TEMP TABLE before (step text PRIMARY KEY, tables text);

-- Until when a message is locked, in seconds after the beginning of 2030.
CREATE FUNCTION pg_temp.locked_until(name text) RETURNS numeric LANGUAGE sql AS $$
    SELECT trim_scale(extract(epoch FROM unlock_at - '2030-01-01 00:00:00+00'))
    FROM message_status(ARRAY[tap.id(name)])
$$;

-- How long

INSERT INTO sent VALUES ('a', message_create('a', 'a', 10000));
SELECT is(tap.take(), '{a}', 'a worker takes a message');
SELECT is(pg_temp.locked_until('a'), 10::numeric, 'which locks it for its lock_ms');
SET pylonny_test.clock = '2030-01-01 00:00:04+00';
SELECT is(message_heartbeat(id => tap.id('a'), num_attempts => 1), 'MESSAGE_HEARTBEATED', 'it sends a heartbeat');
SELECT is(pg_temp.locked_until('a'), 14::numeric, 'without lock_ms the lock is extended to the message''s own from now');
SELECT is(tap.take(), '{"empty, retry in 10000 ms"}', 'and an empty answer knows of it');
SELECT is(message_heartbeat(tap.id('a'), 1), 'MESSAGE_HEARTBEATED', 'another at the same time');
SELECT is(pg_temp.locked_until('a'), 14::numeric, 'changes nothing: lock_ms counts from now, not from the lock''s end');
SELECT is(message_heartbeat(tap.id('a'), 1, 1000), 'MESSAGE_HEARTBEATED', 'one with a shorter lock_ms');
SELECT is(pg_temp.locked_until('a'), 14::numeric, 'never shortens the lock');
SET pylonny_test.clock = '2030-01-01 00:00:13.5+00';
SELECT is(message_heartbeat(tap.id('a'), 1), 'MESSAGE_HEARTBEATED', 'but the next without lock_ms');
SELECT is(pg_temp.locked_until('a'), 14.5, 'extends by the shorter one: what a heartbeat names is the message''s own from then on');
SELECT is(message_heartbeat(id => tap.id('a'), num_attempts => 1, lock_ms => 20000), 'MESSAGE_HEARTBEATED', 'one with a longer lock_ms');
SELECT is(pg_temp.locked_until('a'), 33.5, 'extends by that');
SELECT is(message_heartbeat(tap.id('a'), 1, NULL), 'MESSAGE_HEARTBEATED', 'lock_ms NULL names none');
SELECT is(pg_temp.locked_until('a'), 33.5, 'and leaves it at that');
SET pylonny_test.clock = '2030-01-01 00:00:33.499+00';
SELECT is(tap.take(), '{"empty, retry in 1 ms"}', 'the extended lock holds to its end');
SET pylonny_test.clock = '2030-01-01 00:00:33.5+00';
SELECT results_eq(
    'SELECT content, num_attempts, is_unlocked, unlock_at FROM message_dequeue()',
    $$VALUES ('a'::bytea, 2, true, '2030-01-01 00:00:53.5+00'::timestamptz)$$,
    'and not longer; the next dequeue locks for what the heartbeat named');
SELECT is(message_heartbeat(tap.id('a'), 2, 0), 'MESSAGE_HEARTBEATED', 'lock_ms 0 is legal');
SELECT is(pg_temp.locked_until('a'), 53.5, 'and does not shorten the lock either');
SELECT is(message_heartbeat(tap.id('a'), 2, 3155760000000), 'MESSAGE_HEARTBEATED', '36,525 days are legal');
SELECT is(pg_temp.locked_until('a'), 33.5 + 36525 * 86400::numeric, 'and kept');
SELECT is(message_heartbeat(tap.id('a'), 2, 5000), 'MESSAGE_HEARTBEATED', 'the next is shorter again');
SELECT is(message_defer(tap.id('a'), 2), 'MESSAGE_DEFERRED', 'the message is put back');
SELECT is((SELECT unlock_at FROM message_dequeue()), '2030-01-01 00:00:38.5+00'::timestamptz, 'and keeps that lock_ms');

-- Who may

INSERT INTO before SELECT 'locked', tap.tables();
SELECT is(
    (SELECT array_agg(message_heartbeat(tap.id('a'), n, 60000)) FROM unnest('{0,2,4,-1}'::integer[]) AS n),
    '{MESSAGE_STATE_INVALID,MESSAGE_STATE_INVALID,MESSAGE_STATE_INVALID,MESSAGE_STATE_INVALID}',
    'another number than its own does not extend a lock');
SELECT ok(tap.tables() = tables, 'and changes nothing') FROM before WHERE step = 'locked';
SELECT is(message_defer(tap.id('a'), 3, 1000), 'MESSAGE_DEFERRED', 'the message is put back for later');
INSERT INTO before SELECT 'deferred', tap.tables();
SELECT is(message_heartbeat(tap.id('a'), 3), 'MESSAGE_STATE_INVALID', 'a worker that deferred its message has let go of it');
SELECT ok(tap.tables() = tables, 'that changes nothing') FROM before WHERE step = 'deferred';
SELECT is(message_cancel(tap.id('a')), 'MESSAGE_CANCELLED', 'it is cancelled');
SELECT is(message_heartbeat(tap.id('a'), 3), 'MESSAGE_NOT_FOUND', 'what is gone is not found');
SELECT is(message_heartbeat(9223372036854775807, 1), 'MESSAGE_NOT_FOUND', 'nor is what never was');

INSERT INTO sent VALUES ('b', message_create('b', 'b', 1000));
INSERT INTO before SELECT 'never dequeued', tap.tables();
SELECT is(message_heartbeat(tap.id('b'), 0), 'MESSAGE_STATE_INVALID', 'a message that was never dequeued has no lock to extend');
SELECT is(message_heartbeat(tap.id('b'), 1), 'MESSAGE_STATE_INVALID', 'under no number');
SELECT ok(tap.tables() = tables, 'that changes nothing') FROM before WHERE step = 'never dequeued';

-- After the lock's end

SELECT is(tap.take(), '{b}', 'a worker takes it');
SET pylonny_test.clock = '2030-01-01 00:01:00+00';
SELECT is(message_heartbeat(tap.id('b'), 1), 'MESSAGE_HEARTBEATED', 'a heartbeat is good after the lock''s end, as long as no dequeue has noticed');
SELECT is(pg_temp.locked_until('b'), 61::numeric, 'it renews the lock from now');
SELECT is(tap.take(), '{"empty, retry in 1000 ms"}', 'so that no other worker is given the message');
SET pylonny_test.clock = '2030-01-01 00:01:01+00';
SELECT results_eq(
    'SELECT content, num_attempts, is_unlocked FROM message_dequeue()', $$VALUES ('b'::bytea, 2, true)$$,
    'until that lock is over too');
INSERT INTO before SELECT 'redelivered', tap.tables();
SELECT is(message_heartbeat(tap.id('b'), 1), 'MESSAGE_STATE_INVALID', 'then the former worker''s heartbeat is refused');
SELECT ok(tap.tables() = tables, 'that changes nothing') FROM before WHERE step = 'redelivered';
SELECT is(message_heartbeat(tap.id('b'), 2), 'MESSAGE_HEARTBEATED', 'the new one''s is not');

-- Bad arguments raise and change nothing.

SET pylonny_test.clock = '2030-01-01 00:02:00+00';
SELECT is(tap.take(), '{b}', 'the message is taken again');
INSERT INTO before SELECT 'bad', tap.tables();
SELECT tap.refused(sentence, statement, state, argument, value) FROM (VALUES
    ('id NULL is refused', 'SELECT message_heartbeat(NULL, 1)', '22004', 'id', 'null'),
    ('num_attempts NULL is refused', $$SELECT message_heartbeat(tap.id('b'), NULL)$$, '22004', 'num_attempts', 'null'),
    ('lock_ms below 0 is refused', $$SELECT message_heartbeat(tap.id('b'), 3, -1)$$, '22023', 'lock_ms', '-1\M'),
    ('lock_ms beyond 100 years is refused', $$SELECT message_heartbeat(tap.id('b'), 3, 3155760000001)$$, '22023', 'lock_ms', '3155760000001'),
    ('the largest lock_ms is refused', $$SELECT message_heartbeat(tap.id('b'), 3, 9223372036854775807)$$, '22023', 'lock_ms', '9223372036854775807'),
    ('the smallest lock_ms is refused', $$SELECT message_heartbeat(tap.id('b'), 3, -9223372036854775808)$$, '22023', 'lock_ms', '-9223372036854775808'),
    ('a bad lock_ms is refused for an id that is not there too', 'SELECT message_heartbeat(9223372036854775807, 1, -1)', '22023', 'lock_ms', '-1\M')
) AS bad (sentence, statement, state, argument, value);
SELECT ok(tap.tables() = tables, 'what is refused changes nothing') FROM before WHERE step = 'bad';

SELECT * FROM finish();
ROLLBACK;
