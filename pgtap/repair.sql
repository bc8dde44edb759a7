-- repair: mends what check finds, and says what it did. Each kind of fault: tests/integration/test_check.py.
BEGIN;
SELECT plan(9);

CREATE TEMP TABLE before (step text PRIMARY KEY, tables text);

SELECT message_create('a', 'a', 60000), message_create('b', 'b', 60000, 60000), channel_policy_set('l', 1), message_create('l', 'l', 60000);
INSERT INTO before SELECT 'in order', tap.tables();
SELECT is_empty('SELECT * FROM repair()', 'of a queue in order nothing is repaired');
SELECT ok(tap.tables() = tables, 'and nothing changed') FROM before WHERE step = 'in order';

DELETE FROM wake;
UPDATE message SET timer_at = dequeue_at WHERE channel = 'a';
SELECT results_eq(
    'SELECT kind, channel, remedy FROM repair() ORDER BY channel',
    $$ VALUES ('MESSAGE_INCONSISTENT', 'a', 'It waits until it is due, or is locked until its lock ends.'),
              ('MESSAGE_FORGOTTEN', 'l', 'The channel is woken.') $$,
    'it says what it has mended');
SELECT is_empty('SELECT * FROM "check"()', 'then nothing is wrong any more');
SELECT is_empty('SELECT * FROM repair()', 'and nothing is left to repair');
SELECT set_eq($$ SELECT unnest(tap.take_all()) $$, $$ VALUES ('a'), ('l') $$, 'what was held up is delivered');

-- A thousand of a kind at a time.

UPDATE message SET lock_ms = -1 WHERE channel = 'b';
SELECT count(*) FROM message_create_many(NULL, array_fill('x'::bytea, ARRAY[1500]), '{0}');
UPDATE message SET lock_ms = -1 WHERE channel IS NULL;
SELECT is((SELECT count(*) FROM repair()), 1000::bigint, 'of many faults a thousand are mended');
SELECT is((SELECT count(*) FROM repair()), 501::bigint, 'and the others when it is called again');
SELECT is_empty('SELECT * FROM "check"()', 'until all are');

SELECT * FROM finish();
ROLLBACK;
