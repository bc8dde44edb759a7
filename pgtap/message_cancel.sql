-- message_cancel: a message is taken back before a worker has it.
BEGIN;
SELECT plan(36);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

CREATE TEMP TABLE before (step text PRIMARY KEY, tables text);

-- What is not locked can be cancelled.

INSERT INTO sent VALUES
    ('ready', message_create('a', 'ready', 60000)), ('waiting', message_create('a', 'waiting', 60000, 1000)),
    ('alone', message_create(NULL, 'alone', 60000)), ('kept', message_create('a', 'kept', 60000));
SELECT is(message_cancel(id => tap.id('ready')), 'MESSAGE_CANCELLED', 'a message that is ready is cancelled');
SELECT is(message_cancel(tap.id('waiting')), 'MESSAGE_CANCELLED', 'and one that waits for its delay');
SELECT is(message_cancel(tap.id('alone')), 'MESSAGE_CANCELLED', 'and one without a channel');
SELECT is((SELECT array_agg(s.id) FROM sent, message_status(ARRAY[sent.id]) AS s), ARRAY[tap.id('kept')], 'they are gone, and no other');
SELECT is(tap.take(10), '{kept}', 'the others are delivered');
SET pylonny_test.clock = '2030-01-01 00:00:30+00';
SELECT is(tap.take(), '{"empty, retry in 30000 ms"}', 'the cancelled ones never');
SELECT is(message_cancel(tap.id('ready')), 'MESSAGE_NOT_FOUND', 'to cancel one again finds nothing');
SELECT is(message_cancel(9223372036854775807), 'MESSAGE_NOT_FOUND', 'nor is an id found that never was');
SELECT is(message_cancel(-1), 'MESSAGE_NOT_FOUND', 'nor a negative one');

-- What is locked cannot.

INSERT INTO before SELECT 'locked', tap.tables();
SELECT is(message_cancel(tap.id('kept')), 'MESSAGE_STATE_INVALID', 'a message that is locked is not cancelled');
SELECT ok(tap.tables() = tables, 'that changes nothing') FROM before WHERE step = 'locked';
SELECT is(message_defer(tap.id('kept'), 1, 5000), 'MESSAGE_DEFERRED', 'its worker puts it back');
SELECT is(message_cancel(tap.id('kept')), 'MESSAGE_CANCELLED', 'then it is');
SELECT is(message_delete(tap.id('kept'), 1), 'MESSAGE_NOT_FOUND', 'and nothing is left for its worker');

INSERT INTO sent VALUES ('b', message_create('b', 'b', 1000));
SELECT is(tap.take(), '{b}', 'a worker takes a message');
SELECT channel_policy_set('b', 0);
SET pylonny_test.clock = '2030-01-01 00:01:00+00';
SELECT matches(array_to_string(tap.take(), ''), '^empty', 'its lock expires in a paused channel, and a dequeue notices');
SELECT is(message_cancel(tap.id('b')), 'MESSAGE_CANCELLED', 'then it is locked no more, and can be cancelled');
SELECT is(message_delete(tap.id('b'), 1), 'MESSAGE_NOT_FOUND', 'and nothing is left for its worker');
SELECT is(message_heartbeat(tap.id('b'), 1), 'MESSAGE_NOT_FOUND', 'nothing at all');

-- What is cancelled takes no slot of a limited channel, and no turn of an interval.

SELECT channel_policy_set('l', 1);
INSERT INTO sent VALUES
    ('l1', message_create('l', 'l1', 60000)), ('l2', message_create('l', 'l2', 60000)), ('l3', message_create('l', 'l3', 60000)),
    ('l4', message_create('l', 'l4', 60000));
SELECT is(tap.take(10), '{l1}', 'of a channel limited to one the first is taken');
SELECT is(message_cancel(tap.id('l2')), 'MESSAGE_CANCELLED', 'the second is cancelled while it is held back');
SELECT is(tap.take(10), '{"empty, retry in 60000 ms"}', 'which frees nothing');
SELECT is(message_delete(tap.id('l1'), 1), 'MESSAGE_DELETED', 'the first is deleted');
INSERT INTO sent VALUES ('o1', message_create('o', 'o1', 60000));
SELECT is(message_cancel(tap.id('l3')), 'MESSAGE_CANCELLED', 'and the third cancelled when it is its turn');
SELECT is(
    (SELECT array_agg(name ORDER BY name) FROM unnest(tap.take(10)) AS name), '{l4,o1}',
    'the fourth is to be had at once, and other channels never noticed');

SELECT channel_policy_set('i', NULL, 1000);
INSERT INTO sent VALUES
    ('i1', message_create('i', 'i1', 60000)), ('i2', message_create('i', 'i2', 60000)), ('i3', message_create('i', 'i3', 60000));
SELECT is(tap.take(10), '{i1}', 'of a channel with an interval the first is taken');
SELECT is(message_cancel(tap.id('i2')), 'MESSAGE_CANCELLED', 'the second is cancelled');
SELECT is(tap.take(10), '{"empty, retry in 1000 ms"}', 'the third waits for its time');
SET pylonny_test.clock = '2030-01-01 00:01:01+00';
SELECT is(tap.take(10), '{i3}', 'and has it');

-- A message that was released and not yet taken keeps its slot no longer.

SELECT is(message_delete(tap.id('l4'), 1), 'MESSAGE_DELETED', 'all is done');
SELECT channel_policy_set('r', 1);
SELECT channel_policy_set('s', 1);
INSERT INTO sent VALUES
    ('r1', message_create('r', 'r1', 3600000)), ('r2', message_create('r', 'r2', 3600000)),
    ('s1', message_create('s', 's1', 3600000)), ('s2', message_create('s', 's2', 3600000));
SELECT ok(taken IN ('{r1}', '{s1}'), 'of two channels limited to one the first of one is taken')
FROM tap.take() AS taken;
SELECT is(
    (SELECT array_agg(message_cancel(id)) FROM sent WHERE name IN ('r1', 's1') AND id NOT IN (
        SELECT s.id FROM sent, message_status(ARRAY[sent.id]) AS s WHERE s.status = 'LOCKED')),
    '{MESSAGE_CANCELLED}', 'the first of the other is cancelled');
SELECT ok(taken IN ('{r2}', '{s2}'), 'then the second of that one is to be had')
FROM tap.take() AS taken;
SELECT matches(array_to_string(tap.take(), ''), '^empty', 'and no other');

-- Bad arguments raise and change nothing.

INSERT INTO before SELECT 'bad', tap.tables();
SELECT tap.refused('id NULL is refused', 'SELECT message_cancel(NULL)', '22004', 'id', 'null');
SELECT ok(tap.tables() = tables, 'what is refused changes nothing') FROM before WHERE step = 'bad';

SELECT * FROM finish();
ROLLBACK;
