-- message_create: a message comes in.
BEGIN;
SELECT plan(48);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

-- What comes out is what went in.

INSERT INTO sent VALUES ('plain', message_create(channel => 'a', content => '\x00ff5c', lock_ms => 60000));
SELECT results_eq(
    $$SELECT id, status, channel, num_attempts, created_at, dequeue_at, locked_at, unlock_at
      FROM message_status(ARRAY[tap.id('plain')])$$,
    $$VALUES (tap.id('plain'), 'READY'::message_status, 'a', 0, '2030-01-01 00:00:00+00'::timestamptz,
              '2030-01-01 00:00:00+00'::timestamptz, NULL::timestamptz, NULL::timestamptz)$$,
    'create returns the id of a message that is ready at once: delay_ms is 0 unless given');
SELECT results_eq(
    $$SELECT result, id, channel, content, state, num_attempts, is_unlocked, unlock_at, retry_ms FROM message_dequeue()$$,
    $$VALUES ('MESSAGE_DEQUEUED'::dequeue_result, tap.id('plain'), 'a', '\x00ff5c'::bytea, NULL::bytea, 1, false,
              '2030-01-01 00:01:00+00'::timestamptz, NULL::bigint)$$,
    'the dequeue that follows delivers it byte for byte, without a state, and locks it for lock_ms');
SELECT is(message_delete(tap.id('plain'), 1), 'MESSAGE_DELETED', 'and its worker deletes it');

INSERT INTO sent VALUES ('nothing', message_create('a', '', 60000));
SELECT is((SELECT content FROM message_dequeue()), ''::bytea, 'an empty content is a content');
SELECT is(message_delete(tap.id('nothing'), 1), 'MESSAGE_DELETED', 'and can be deleted');

INSERT INTO sent VALUES ('large', message_create('a', convert_to(repeat('x', 3000000), 'UTF8'), 60000));
SELECT is((SELECT length(content) FROM message_dequeue()), 3000000, 'a content of three million bytes is delivered');
SELECT is(message_delete(tap.id('large'), 1), 'MESSAGE_DELETED', 'and can be deleted');

-- lock_ms

INSERT INTO sent VALUES ('brief', message_create('a', 'brief', 1));
SELECT is(
    (SELECT unlock_at FROM message_dequeue()), '2030-01-01 00:00:00.001+00'::timestamptz,
    'lock_ms is milliseconds');
SELECT is(message_delete(tap.id('brief'), 1), 'MESSAGE_DELETED', 'and the message can be deleted');

INSERT INTO sent VALUES ('unlocked', message_create('a', 'unlocked', 0));
SELECT is(
    (SELECT unlock_at FROM message_dequeue()), '2030-01-01 00:00:00+00'::timestamptz,
    'lock_ms 0 is legal');
SELECT results_eq(
    'SELECT id, num_attempts, is_unlocked FROM message_dequeue()',
    $$VALUES (tap.id('unlocked'), 2, true)$$,
    'with lock_ms 0 the lock is over at once');
SELECT is(message_delete(tap.id('unlocked'), 2), 'MESSAGE_DELETED', 'and the message can be deleted');

-- channel

INSERT INTO sent VALUES ('n1', message_create(NULL, 'n1', 60000)), ('n2', message_create(NULL, 'n2', 60000));
SELECT matches(
    channel, '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$',
    'channel NULL gives the message a random channel name, a uuid')
FROM message_status(ARRAY[tap.id('n1')]);
SELECT is(
    (SELECT count(DISTINCT channel) FROM message_status(ARRAY[tap.id('n1'), tap.id('n2')])), 2::bigint,
    'a channel of its own: two such messages have two');
SELECT is(
    (SELECT channel FROM message_dequeue()), (SELECT channel FROM message_status(ARRAY[tap.id('n1')])),
    'the dequeued row shows the same channel name');

INSERT INTO sent SELECT 'a' || i, message_create('a', convert_to('a' || i, 'UTF8'), 60000) FROM generate_series(1, 6) AS i;
INSERT INTO sent SELECT 'n' || i, message_create(NULL, convert_to('n' || i, 'UTF8'), 60000) FROM generate_series(3, 7) AS i;
SELECT ok(
    taken IN ('{a1,n2,a2,n3,a3,n4,a4,n5,a5,n6,a6,n7}', '{n2,a1,n3,a2,n4,a3,n5,a4,n6,a5,n7,a6}'),
    'all messages without a channel share one turn in the rotation, first in, first out')
FROM tap.take_each(12) AS taken;

INSERT INTO sent VALUES
    ('A', message_create('Case', 'A', 60000)), ('B', message_create('case', 'B', 60000)),
    ('space', message_create(' ', 'space', 60000));
SELECT is(
    (SELECT array_agg(channel) FROM message_status(ARRAY[tap.id('A'), tap.id('B'), tap.id('space')])),
    '{Case,case," "}', 'a channel name is kept as it is: capitals and spaces count');
SELECT is(
    (SELECT array_agg(taken ORDER BY taken) FROM unnest(tap.take(3)) AS taken), '{A,B,space}',
    'and none of them is lost');

INSERT INTO sent VALUES
    ('ascii', message_create(repeat('c', 512), 'ascii', 60000)),
    ('multi', message_create(repeat('é', 256), 'multi', 60000));
SELECT is(
    (SELECT array_agg(octet_length(channel)) FROM message_status(ARRAY[tap.id('ascii'), tap.id('multi')])),
    '{512,512}', 'a channel name of 512 bytes is accepted, whatever its characters');
SELECT is(
    (SELECT array_agg(channel ORDER BY channel) FROM message_dequeue(2)),
    (SELECT array_agg(channel ORDER BY channel) FROM message_status(ARRAY[tap.id('ascii'), tap.id('multi')])),
    'and delivered');

-- delay_ms

SET pylonny_test.clock = '2030-01-01 00:00:10+00';
INSERT INTO sent VALUES ('later', message_create('a', 'later', 60000, 1500));
SELECT results_eq(
    $$SELECT status, dequeue_at FROM message_status(ARRAY[tap.id('later')])$$,
    $$VALUES ('WAITING'::message_status, '2030-01-01 00:00:11.5+00'::timestamptz)$$,
    'a message with a delay waits for so many milliseconds');
SET pylonny_test.clock = '2030-01-01 00:00:11.499+00';
SELECT is(tap.take(), '{"empty, retry in 1 ms"}', 'it is not delivered a millisecond early');
SET pylonny_test.clock = '2030-01-01 00:00:11.5+00';
SELECT is(tap.take(), '{later}', 'it is delivered on the dot');

INSERT INTO sent VALUES
    ('first', message_create('o', 'first', 60000)), ('second', message_create('o', 'second', 60000)),
    ('ahead', message_create('o', 'ahead', 60000, -1)), ('far ahead', message_create('o', 'far ahead', 60000, -1000)),
    ('third', message_create('o', 'third', 60000));
SELECT is(
    (SELECT dequeue_at FROM message_status(ARRAY[tap.id('far ahead')])), '2030-01-01 00:00:10.5+00'::timestamptz,
    'delay_ms may be negative');
SELECT is(
    tap.take_each(5), '{far ahead,ahead,first,second,third}',
    'a message with a negative delay is ahead of the others in its channel; equals go by id');

-- The outermost values that are accepted never make a later operation raise.

INSERT INTO sent VALUES
    ('oldest', message_create('oldest', 'oldest', 3155760000000, -3155760000000)),
    ('youngest', message_create('youngest', 'youngest', 3155760000000, 3155760000000));
SELECT is(
    (SELECT unlock_at FROM message_dequeue()), '2030-01-01 00:00:11.5+00'::timestamptz + interval '36525 days',
    'a lock and a negative delay of 36,525 days each are accepted and delivered');
SELECT is(
    message_heartbeat(tap.id('oldest'), 1), 'MESSAGE_HEARTBEATED', 'the heartbeat of such a lock does not raise');
SELECT is(message_delete(tap.id('oldest'), 1), 'MESSAGE_DELETED', 'nor does its delete');
SELECT is(
    (SELECT dequeue_at FROM message_status(ARRAY[tap.id('youngest')])),
    '2030-01-01 00:00:11.5+00'::timestamptz + interval '36525 days',
    'a delay of 36,525 days is accepted');
SELECT is(
    (SELECT result FROM message_dequeue()), 'MESSAGE_NOT_AVAILABLE', 'a dequeue beside that delay does not raise');
SET pylonny_test.clock = '2130-01-02 00:00:12+00';
SELECT ok('youngest' = ANY (tap.take_all()), 'and when the delay is over the message is delivered');

-- Bad arguments raise and change nothing.

CREATE TEMP TABLE before AS SELECT tap.tables() AS tables;
SELECT tap.refused(sentence, statement, state, argument, value) FROM (VALUES
    ('content NULL is refused', $$SELECT message_create('a', NULL, 1)$$, '22004', 'content', 'null'),
    ('lock_ms NULL is refused', $$SELECT message_create('a', 'x', NULL)$$, '22004', 'lock_ms', 'null'),
    ('delay_ms NULL is refused', $$SELECT message_create('a', 'x', 1, NULL)$$, '22004', 'delay_ms', 'null'),
    ('an empty channel name is refused', $$SELECT message_create('', 'x', 1)$$, '22023', 'channel', $$''|""|empty$$),
    ('a channel name of 513 bytes is refused', $$SELECT message_create(repeat('c', 513), 'x', 1)$$, '22023', 'channel', '513|cccccccccc'),
    ('a channel name of 513 bytes in 257 characters is refused', $$SELECT message_create(repeat('é', 256) || 'c', 'x', 1)$$, '22023', 'channel', '513|éééééééééé'),
    ('a channel name of a million bytes is refused', $$SELECT message_create(repeat('c', 1000000), 'x', 1)$$, '22023', 'channel', '1000000|cccccccccc'),
    ('lock_ms below 0 is refused', $$SELECT message_create('a', 'x', -1)$$, '22023', 'lock_ms', '-1\M'),
    ('lock_ms beyond 100 years is refused', $$SELECT message_create('a', 'x', 3155760000001)$$, '22023', 'lock_ms', '3155760000001'),
    ('the largest lock_ms is refused', $$SELECT message_create('a', 'x', 9223372036854775807)$$, '22023', 'lock_ms', '9223372036854775807'),
    ('the smallest lock_ms is refused', $$SELECT message_create('a', 'x', -9223372036854775808)$$, '22023', 'lock_ms', '-9223372036854775808'),
    ('delay_ms beyond 100 years is refused', $$SELECT message_create('a', 'x', 1, 3155760000001)$$, '22023', 'delay_ms', '3155760000001'),
    ('delay_ms beyond 100 years back is refused', $$SELECT message_create('a', 'x', 1, -3155760000001)$$, '22023', 'delay_ms', '-3155760000001'),
    ('the largest delay_ms is refused', $$SELECT message_create('a', 'x', 1, 9223372036854775807)$$, '22023', 'delay_ms', '9223372036854775807'),
    ('the smallest delay_ms is refused', $$SELECT message_create('a', 'x', 1, -9223372036854775808)$$, '22023', 'delay_ms', '-9223372036854775808'),
    ('a bad value is refused without a channel too', $$SELECT message_create(NULL, 'x', -1)$$, '22023', 'lock_ms', '-1\M')
) AS bad (sentence, statement, state, argument, value);
SELECT ok(tap.tables() = tables, 'what is refused changes nothing') FROM before;

SELECT * FROM finish();
ROLLBACK;
