-- message_defer: a worker puts its message back, for later.
BEGIN;
SELECT plan(69);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

CREATE TEMP TABLE before (step text PRIMARY KEY, tables text);

-- When it comes back

INSERT INTO sent VALUES ('a', message_create('a', 'a', 60000));
SELECT is(tap.take(), '{a}', 'a worker takes a message');
SET pylonny_test.clock = '2030-01-01 00:00:10+00';
SELECT is(message_defer(tap.id('a'), 1), 'MESSAGE_DEFERRED', 'and puts it back');
SELECT results_eq(
    'SELECT id, num_attempts, is_unlocked, state, unlock_at FROM message_dequeue()',
    $$VALUES (tap.id('a'), 2, false, NULL::bytea, '2030-01-01 00:01:10+00'::timestamptz)$$,
    'delay_ms is 0 unless given: it is to be had again at once, not as one whose lock expired, and still without a state');
SELECT is(
    message_defer(id => tap.id('a'), num_attempts => 2, delay_ms => 1500, state => '\x01'), 'MESSAGE_DEFERRED',
    'it is put back with a delay');
SELECT results_eq(
    $$SELECT status, num_attempts, created_at, dequeue_at, unlock_at FROM message_status(ARRAY[tap.id('a')])$$,
    $$VALUES ('WAITING'::message_status, 2, '2030-01-01 00:00:00+00'::timestamptz, '2030-01-01 00:00:11.5+00'::timestamptz, NULL::timestamptz)$$,
    'it waits and is no longer locked');
SELECT is(tap.take(), '{"empty, retry in 1500 ms"}', 'for delay_ms milliseconds');
SET pylonny_test.clock = '2030-01-01 00:00:11.499+00';
SELECT is(tap.take(), '{"empty, retry in 1 ms"}', 'it does not come back a millisecond early');
SET pylonny_test.clock = '2030-01-01 00:00:11.5+00';
SELECT results_eq(
    'SELECT id, num_attempts, is_unlocked, state FROM message_dequeue()',
    $$VALUES (tap.id('a'), 3, false, '\x01'::bytea)$$,
    'it comes back on the dot, with its state');

-- The state

SELECT is(message_defer(tap.id('a'), 3), 'MESSAGE_DEFERRED', 'it is put back without a state');
SELECT is((SELECT state FROM message_dequeue()), '\x01'::bytea, 'and keeps the one it has');
SELECT is(message_defer(tap.id('a'), 4, 0, NULL), 'MESSAGE_DEFERRED', 'it is put back with the state NULL');
SELECT is((SELECT state FROM message_dequeue()), '\x01'::bytea, 'and keeps the one it has');
SELECT is(message_defer(tap.id('a'), 5, 0, '\x0200ff'), 'MESSAGE_DEFERRED', 'it is put back with another');
SELECT is((SELECT state FROM message_dequeue()), '\x0200ff'::bytea, 'and has that one, byte for byte');
SELECT is(message_defer(tap.id('a'), 6, 0, ''), 'MESSAGE_DEFERRED', 'it is put back with an empty one');
SELECT is((SELECT state FROM message_dequeue()), ''::bytea, 'which is a state like any other');
SELECT is(message_defer(tap.id('a'), 7), 'MESSAGE_DEFERRED', 'it is put back without a state again');
SELECT is((SELECT state FROM message_dequeue()), ''::bytea, 'and keeps the empty one');
SELECT is(message_delete(tap.id('a'), 8), 'MESSAGE_DELETED', 'at last it is deleted');

-- Its place in the channel

INSERT INTO sent VALUES
    ('b1', message_create('b', 'b1', 60000)), ('b2', message_create('b', 'b2', 60000)), ('b3', message_create('b', 'b3', 60000));
SELECT is(tap.take(), '{b1}', 'the first of a channel is taken');
SET pylonny_test.clock = '2030-01-01 00:00:12+00';
SELECT is(message_defer(tap.id('b1'), 1), 'MESSAGE_DEFERRED', 'and put back');
SELECT is(tap.take(2), '{b2,b3}', 'behind those that were due before');
SELECT is(tap.take(), '{b1}', 'then it comes again');
SELECT is(message_defer(tap.id('b3'), 1), 'MESSAGE_DEFERRED', 'two are put back');
SELECT is(message_defer(tap.id('b2'), 1, -60000), 'MESSAGE_DEFERRED', 'the second with a negative delay');
SELECT is(
    (SELECT dequeue_at FROM message_status(ARRAY[tap.id('b2')])), '2029-12-31 23:59:12+00'::timestamptz,
    'so far before now');
SELECT is(tap.take_each(2), '{b2,b3}', 'which puts it ahead of the other');

-- Who may

INSERT INTO before SELECT 'locked', tap.tables();
SELECT is(
    (SELECT array_agg(message_defer(tap.id('b2'), n, 5, '\x05')) FROM unnest('{0,1,3,-1}'::integer[]) AS n),
    '{MESSAGE_STATE_INVALID,MESSAGE_STATE_INVALID,MESSAGE_STATE_INVALID,MESSAGE_STATE_INVALID}',
    'another number than its own does not defer a message');
SELECT ok(tap.tables() = tables, 'and changes nothing') FROM before WHERE step = 'locked';
SELECT is(message_defer(9223372036854775807, 1), 'MESSAGE_NOT_FOUND', 'an id that never was is not found');
SELECT is(message_defer(tap.id('a'), 8), 'MESSAGE_NOT_FOUND', 'nor is a message that was deleted');

INSERT INTO sent VALUES ('c', message_create('c', 'c', 1000));
INSERT INTO before SELECT 'never dequeued', tap.tables();
SELECT is(message_defer(tap.id('c'), 0), 'MESSAGE_STATE_INVALID', 'a message that was never dequeued is not deferred under 0');
SELECT is(message_defer(tap.id('c'), 1), 'MESSAGE_STATE_INVALID', 'nor under the number it will have');
SELECT ok(tap.tables() = tables, 'that changes nothing') FROM before WHERE step = 'never dequeued';
SELECT is(tap.take(), '{c}', 'it is taken');
SET pylonny_test.clock = '2030-01-01 00:00:20+00';
SELECT is(message_defer(tap.id('c'), 1, 5000), 'MESSAGE_DEFERRED', 'a worker whose lock expired may still defer its message');
INSERT INTO before SELECT 'deferred', tap.tables();
SELECT is(message_defer(tap.id('c'), 1), 'MESSAGE_STATE_INVALID', 'but not again: it has let go of it');
SELECT ok(tap.tables() = tables, 'that changes nothing') FROM before WHERE step = 'deferred';
SET pylonny_test.clock = '2030-01-01 00:00:25+00';
SELECT results_eq(
    'SELECT content, num_attempts, is_unlocked FROM message_dequeue()', $$VALUES ('c'::bytea, 2, false)$$,
    'a message deferred late comes back as a deferred one');
SET pylonny_test.clock = '2030-01-01 00:00:26+00';
SELECT results_eq(
    'SELECT content, num_attempts, is_unlocked FROM message_dequeue()', $$VALUES ('c'::bytea, 3, true)$$,
    'its lock expires and another worker takes it');
INSERT INTO before SELECT 'redelivered', tap.tables();
SELECT is(message_defer(tap.id('c'), 2), 'MESSAGE_STATE_INVALID', 'the former cannot defer it any more');
SELECT ok(tap.tables() = tables, 'that changes nothing') FROM before WHERE step = 'redelivered';
SELECT is(message_delete(tap.id('c'), 3), 'MESSAGE_DELETED', 'the new one deletes it');

-- A slot of a limited channel is free again.

SELECT channel_policy_set('l', 1);
INSERT INTO sent VALUES ('l1', message_create('l', 'l1', 3600000)), ('l2', message_create('l', 'l2', 3600000));
SELECT is(tap.take(), '{l1}', 'of a channel limited to one the first is taken');
SELECT matches(array_to_string(tap.take(), ''), '^empty', 'and no other');
SELECT is(message_defer(tap.id('l1'), 1, 1000), 'MESSAGE_DEFERRED', 'it is put back for later');
SELECT is(tap.take(), '{l2}', 'the second is to be had');
SET pylonny_test.clock = '2030-01-01 00:00:27+00';
SELECT matches(array_to_string(tap.take(), ''), '^empty', 'the first, due again, waits for it');
SELECT is(message_defer(tap.id('l2'), 1), 'MESSAGE_DEFERRED', 'the second is put back');
SELECT is(tap.take(), '{l1}', 'and the first comes first');

-- A paused channel

INSERT INTO sent VALUES ('p', message_create('p', 'p', 1000));
SELECT is(tap.take(), '{p}', 'a message is taken, for a second');
SELECT channel_policy_set('p', 0);
SELECT is(message_defer(tap.id('p'), 1), 'MESSAGE_DEFERRED', 'and put back into its channel, which is paused');
SELECT is((SELECT array_agg(status) FROM message_status(ARRAY[tap.id('p')])), '{WAITING}', 'it waits, though it is due');
SELECT is(tap.take(), '{"empty, retry in 45000 ms"}', 'the end of its lock is none to wait for: the next is another''s');
SELECT channel_policy_clear('p');
SELECT is(tap.take(), '{p}', 'it comes when the channel goes on');

-- The outermost delays

SELECT is(message_defer(tap.id('l1'), 2, 3155760000000), 'MESSAGE_DEFERRED', 'a delay of 36,525 days is accepted');
SELECT is(
    (SELECT dequeue_at FROM message_status(ARRAY[tap.id('l1')])), '2030-01-01 00:00:27+00'::timestamptz + interval '36525 days',
    'and kept');
SELECT is(tap.take(), '{l2}', 'the other message of the channel is to be had');
SELECT is(message_defer(tap.id('l2'), 2, -3155760000000), 'MESSAGE_DEFERRED', 'a delay of -36,525 days is accepted');
SELECT is(tap.take(), '{l2}', 'and does not make a dequeue raise');

-- Bad arguments raise and change nothing.

INSERT INTO before SELECT 'bad', tap.tables();
SELECT tap.refused(sentence, statement, state, argument, value) FROM (VALUES
    ('id NULL is refused', 'SELECT message_defer(NULL, 1)', '22004', 'id', 'null'),
    ('num_attempts NULL is refused', $$SELECT message_defer(tap.id('l2'), NULL)$$, '22004', 'num_attempts', 'null'),
    ('delay_ms NULL is refused', $$SELECT message_defer(tap.id('l2'), 3, NULL)$$, '22004', 'delay_ms', 'null'),
    ('delay_ms beyond 100 years is refused', $$SELECT message_defer(tap.id('l2'), 3, 3155760000001)$$, '22023', 'delay_ms', '3155760000001'),
    ('delay_ms beyond 100 years back is refused', $$SELECT message_defer(tap.id('l2'), 3, -3155760000001)$$, '22023', 'delay_ms', '-3155760000001'),
    ('the largest delay_ms is refused', $$SELECT message_defer(tap.id('l2'), 3, 9223372036854775807)$$, '22023', 'delay_ms', '9223372036854775807'),
    ('the smallest delay_ms is refused', $$SELECT message_defer(tap.id('l2'), 3, -9223372036854775808)$$, '22023', 'delay_ms', '-9223372036854775808'),
    ('a bad delay_ms is refused for an id that is not there too', 'SELECT message_defer(9223372036854775807, 3, 3155760000001)', '22023', 'delay_ms', '3155760000001')
) AS bad (sentence, statement, state, argument, value);
SELECT ok(tap.tables() = tables, 'what is refused changes nothing') FROM before WHERE step = 'bad';

SELECT * FROM finish();
ROLLBACK;
