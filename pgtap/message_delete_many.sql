-- message_delete_many: a worker has done the work of a batch.
BEGIN;
SELECT plan(30);

-- Time stands still until a test moves it.
CREATE OR REPLACE FUNCTION _clock() RETURNS timestamptz LANGUAGE sql
AS $$ SELECT current_setting('pylonny_test.clock')::timestamptz $$;
SET pylonny_test.clock = '2030-01-01 00:00:00+00';

-- The messages of this test by name; the name is the content too.
CREATE TEMP TABLE sent (name text PRIMARY KEY, id bigint NOT NULL);

INSERT INTO sent SELECT 'a' || i, message_create('a', convert_to('a' || i, 'UTF8'), 60000) FROM generate_series(1, 9) AS i;
SELECT is(tap.take(6), '{a1,a2,a3,a4,a5,a6}', 'a worker takes six messages');

SELECT results_eq(
    $$SELECT id, result FROM message_delete_many(
          ids => ARRAY[tap.id('a2'), 9223372036854775807, tap.id('a9'), tap.id('a9'), tap.id('a1'), tap.id('a3')],
          num_attempts => '{1,1,0,1,1,2}')$$,
    $$VALUES (tap.id('a2'), 'MESSAGE_DELETED'::delete_result), (9223372036854775807, 'MESSAGE_NOT_FOUND'),
             (tap.id('a9'), 'MESSAGE_STATE_INVALID'), (tap.id('a9'), 'MESSAGE_STATE_INVALID'), (tap.id('a1'), 'MESSAGE_DELETED'), (tap.id('a3'), 'MESSAGE_STATE_INVALID')$$,
    'rows in input order, each with the result that message_delete would give');
SELECT is(
    (SELECT array_agg(id) FROM message_status(ARRAY(SELECT id FROM sent WHERE name IN ('a1', 'a2', 'a3', 'a9') ORDER BY id))),
    ARRAY[tap.id('a3'), tap.id('a9')], 'what was deleted is gone, and nothing else');
SELECT results_eq(
    $$SELECT id, result FROM message_delete_many(
          ARRAY[tap.id('a4'), tap.id('a5'), tap.id('a4'), tap.id('a4')], '{1,1,1,1}')$$,
    $$VALUES (tap.id('a4'), 'MESSAGE_DELETED'::delete_result), (tap.id('a5'), 'MESSAGE_DELETED'),
             (tap.id('a4'), 'MESSAGE_NOT_FOUND'), (tap.id('a4'), 'MESSAGE_NOT_FOUND')$$,
    'an id given twice is deleted once, then MESSAGE_NOT_FOUND');
SELECT results_eq(
    $$SELECT id, result FROM message_delete_many(ARRAY[tap.id('a6'), tap.id('a6'), tap.id('a6')], '{7,1,7}')$$,
    $$VALUES (tap.id('a6'), 'MESSAGE_STATE_INVALID'::delete_result), (tap.id('a6'), 'MESSAGE_DELETED'),
             (tap.id('a6'), 'MESSAGE_NOT_FOUND')$$,
    'each of its numbers is tried in its turn');
SELECT is_empty($$SELECT * FROM message_delete_many('{}', '{}')$$, 'no ids: no rows');

SELECT is(tap.take(10), '{a7,a8,a9}', 'the worker takes the rest');
SELECT results_eq(
    $$SELECT id, result FROM message_delete_many(
          ('[0:1]={' || tap.id('a8') || ',' || tap.id('a7') || '}')::bigint[], '[5:6]={1,2}')$$,
    $$VALUES (tap.id('a8'), 'MESSAGE_DELETED'::delete_result), (tap.id('a7'), 'MESSAGE_STATE_INVALID')$$,
    'arrays that do not begin at 1 are arrays like others');

SET pylonny_test.clock = '2030-01-02 00:00:00+00';
SELECT results_eq(
    $$SELECT id, result FROM message_delete_many(ARRAY[tap.id('a9')], '{1}')$$,
    $$VALUES (tap.id('a9'), 'MESSAGE_DELETED'::delete_result)$$,
    'after its lock expired a worker may still delete a message');
SELECT is(tap.take_all(), '{a3,a7}', 'what was not deleted comes back');
SELECT is(
    (SELECT result FROM message_delete_many(ARRAY[tap.id('a3')], '{1}')), 'MESSAGE_STATE_INVALID',
    'and then no more under the old number');

SELECT channel_policy_set('l', 2);
INSERT INTO sent SELECT 'l' || i, message_create('l', convert_to('l' || i, 'UTF8'), 60000) FROM generate_series(1, 5) AS i;
SELECT is(tap.take(10), '{l1,l2}', 'of a limited channel as many are taken as the limit allows');
SELECT is(
    (SELECT array_agg(result) FROM message_delete_many(ARRAY[tap.id('l1'), tap.id('l2')], '{1,1}')),
    '{MESSAGE_DELETED,MESSAGE_DELETED}', 'they are deleted together');
SELECT is(tap.take(10), '{l3,l4}', 'and as many more are to be had');

SELECT channel_policy_set(channel, 1) FROM unnest('{m,n}'::text[]) AS channel;
INSERT INTO sent SELECT name, message_create(left(name, 1), convert_to(name, 'UTF8'), 60000) FROM unnest('{m1,m2,n1,n2}'::text[]) AS name;
SELECT set_eq('SELECT unnest(tap.take(10))', '{m1,n1}'::text[], 'of two limited channels the first is taken of each');
SELECT is(
    (SELECT array_agg(result) FROM message_delete_many(ARRAY[tap.id('m1'), tap.id('n1')], '{1,1}')),
    '{MESSAGE_DELETED,MESSAGE_DELETED}', 'they are deleted together');
SELECT set_eq('SELECT unnest(tap.take(10))', '{m2,n2}'::text[], 'and the second is to be had of each');

SELECT is(
    (SELECT count(*) FROM message_delete_many(
        ARRAY(SELECT i FROM generate_series(1000001, 1010000) AS i), array_fill(1, ARRAY[10000])) AS d
     WHERE d.result = 'MESSAGE_NOT_FOUND'), 10000::bigint,
    'ten thousand ids get ten thousand rows');

-- Bad arguments raise and change nothing.

CREATE TEMP TABLE before AS SELECT tap.tables() AS tables;
SELECT tap.refused(sentence, statement, state, argument, value) FROM (VALUES
    ('ids NULL is refused', $$SELECT * FROM message_delete_many(NULL, '{1}')$$, '22004', 'ids', 'null'),
    ('num_attempts NULL is refused', $$SELECT * FROM message_delete_many('{1}', NULL)$$, '22004', 'num_attempts', 'null'),
    ('ids NULL are refused beside no num_attempts', $$SELECT * FROM message_delete_many(NULL, '{}')$$, '22004', 'ids', 'null'),
    ('num_attempts NULL are refused beside no ids', $$SELECT * FROM message_delete_many('{}', NULL)$$, '22004', 'num_attempts', 'null'),
    ('the first of two NULLs is refused', $$SELECT * FROM message_delete_many('{1,NULL,3}', '{1,1,NULL}')$$, '22004', 'ids', 'null'),
    ('an id NULL among others is refused', $$SELECT * FROM message_delete_many(ARRAY[tap.id('l3'), NULL], '{1,1}')$$, '22004', 'ids', 'null'),
    ('a num_attempts NULL among others is refused', $$SELECT * FROM message_delete_many(ARRAY[tap.id('l3'), tap.id('l4')], '{1,NULL}')$$, '22004', 'num_attempts', 'null'),
    ('fewer num_attempts than ids are refused', $$SELECT * FROM message_delete_many(ARRAY[tap.id('l3'), tap.id('l4'), 1], '{1,1}')$$, '22023', 'num_attempts', '\{1,1\}|\m2\M'),
    ('one num_attempts for all is refused', $$SELECT * FROM message_delete_many(ARRAY[tap.id('l3'), tap.id('l4')], '{1}')$$, '22023', 'num_attempts', '\{1\}|\m1\M'),
    ('more num_attempts than ids are refused', $$SELECT * FROM message_delete_many(ARRAY[tap.id('l3')], '{1,1}')$$, '22023', 'num_attempts', '\{1,1\}|\m2\M'),
    ('num_attempts without ids are refused', $$SELECT * FROM message_delete_many('{}', '{1}')$$, '22023', 'num_attempts', '\{1\}|\m1\M')
) AS bad (sentence, statement, state, argument, value);
SELECT ok(tap.tables() = tables, 'what is refused changes nothing, the good ids of the batch included') FROM before;

SELECT * FROM finish();
ROLLBACK;
