-- message_delete: a worker has done its work.
BEGIN;
SELECT plan(32);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

CREATE TEMP TABLE before (step text PRIMARY KEY, tables text);

-- The worker that holds the lock

INSERT INTO sent VALUES ('a', message_create('a', 'a', 60000));
SELECT is(tap.take(), '{a}', 'a worker takes a message');
SELECT is(message_delete(id => tap.id('a'), num_attempts => 1), 'MESSAGE_DELETED', 'and deletes it');
SELECT is_empty($$SELECT * FROM message_status(ARRAY[tap.id('a')])$$, 'it is gone');
SET pylonny_test.clock = '2030-01-02 00:00:00+00';
SELECT is(tap.take(), '{"empty, retry in unknown ms"}', 'and never comes back');
SELECT is(message_delete(tap.id('a'), 1), 'MESSAGE_NOT_FOUND', 'to delete it again finds nothing');
SELECT is(message_delete(tap.id('a'), 2), 'MESSAGE_NOT_FOUND', 'whatever the number');
SELECT is(message_delete(9223372036854775807, 1), 'MESSAGE_NOT_FOUND', 'nor is an id found that never was');
SELECT is(message_delete(-1, 1), 'MESSAGE_NOT_FOUND', 'nor a negative one');

-- Anyone else

INSERT INTO sent VALUES ('b', message_create('b', 'b', 1000));
INSERT INTO before SELECT 'never dequeued', tap.tables();
SELECT is(message_delete(tap.id('b'), 0), 'MESSAGE_STATE_INVALID', 'a message that was never dequeued is not deleted under 0');
SELECT is(message_delete(tap.id('b'), 1), 'MESSAGE_STATE_INVALID', 'nor under the number it will have');
SELECT ok(tap.tables() = tables, 'MESSAGE_STATE_INVALID changes nothing') FROM before WHERE step = 'never dequeued';

SELECT is(tap.take(), '{b}', 'it is taken');
INSERT INTO before SELECT 'locked', tap.tables();
SELECT is(
    (SELECT array_agg(message_delete(tap.id('b'), n)) FROM unnest('{0,2,-1,2147483647}'::integer[]) AS n),
    '{MESSAGE_STATE_INVALID,MESSAGE_STATE_INVALID,MESSAGE_STATE_INVALID,MESSAGE_STATE_INVALID}',
    'another number than its own does not delete it');
SELECT ok(tap.tables() = tables, 'and changes nothing') FROM before WHERE step = 'locked';

SET pylonny_test.clock = '2030-01-02 00:00:02+00';
SELECT results_eq(
    'SELECT content, num_attempts FROM message_dequeue()', $$VALUES ('b'::bytea, 2)$$, 'its lock over, another worker takes it');
INSERT INTO before SELECT 'redelivered', tap.tables();
SELECT is(message_delete(tap.id('b'), 1), 'MESSAGE_STATE_INVALID', 'the worker whose lock expired deletes no more');
SELECT ok(tap.tables() = tables, 'and changes nothing') FROM before WHERE step = 'redelivered';
SELECT is(message_delete(tap.id('b'), 2), 'MESSAGE_DELETED', 'the new one does');

-- Between the lock's end and the next dequeue

INSERT INTO sent VALUES ('c', message_create('c', 'c', 1000));
SELECT is(tap.take(), '{c}', 'a worker takes a message');
SET pylonny_test.clock = '2030-01-02 00:01:00+00';
SELECT is(message_delete(tap.id('c'), 1), 'MESSAGE_DELETED', 'and may delete it after its lock expired');

INSERT INTO sent VALUES ('d', message_create('d', 'd', 1000));
SELECT is(tap.take(), '{d}', 'a worker takes a message');
SELECT channel_policy_set('d', 0);
SET pylonny_test.clock = '2030-01-02 00:02:00+00';
SELECT matches(array_to_string(tap.take(), ''), '^empty', 'its lock expires, and a dequeue sees that but may not take it');
SELECT is(message_delete(tap.id('d'), 1), 'MESSAGE_DELETED', 'the worker may still delete it');

INSERT INTO sent VALUES ('e', message_create('e', 'e', 0));
SELECT is(tap.take(), '{e}', 'a worker takes a message whose lock is over at once');
SELECT is(message_delete(tap.id('e'), 1), 'MESSAGE_DELETED', 'and may delete it');

-- After a defer

INSERT INTO sent VALUES ('f', message_create('f', 'f', 1000));
SELECT is(tap.take(), '{f}', 'a worker takes a message');
SELECT is(message_defer(tap.id('f'), 1), 'MESSAGE_DEFERRED', 'and puts it back');
INSERT INTO before SELECT 'deferred', tap.tables();
SELECT is(message_delete(tap.id('f'), 1), 'MESSAGE_STATE_INVALID', 'then it has let go of it and cannot delete it');
SELECT ok(tap.tables() = tables, 'nor change anything') FROM before WHERE step = 'deferred';

-- Bad arguments raise and change nothing.

SELECT tap.refused(sentence, statement, state, argument, value) FROM (VALUES
    ('id NULL is refused', 'SELECT message_delete(NULL, 1)', '22004', 'id', 'null'),
    ('num_attempts NULL is refused', $$SELECT message_delete(tap.id('f'), NULL)$$, '22004', 'num_attempts', 'null')
) AS bad (sentence, statement, state, argument, value);
SELECT ok(tap.tables() = tables, 'what is refused changes nothing') FROM before WHERE step = 'deferred';

SELECT * FROM finish();
ROLLBACK;
