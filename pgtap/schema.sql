-- The interface: what programs name, exactly. A change here is a change of the contract.
BEGIN;
SELECT plan(19);

CREATE FUNCTION pg_temp.queue() RETURNS oid LANGUAGE sql STABLE
AS $$ SELECT n.oid FROM pg_namespace n WHERE n.nspname = current_schema() $$;

CREATE FUNCTION pg_temp.attributes(relation text) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute a
    WHERE a.attrelid = format('%I.%I', current_schema(), relation)::regclass AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
$$;

SELECT results_eq(
    $$ SELECT format('%s(%s) RETURNS %s', p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)) COLLATE "default"
       FROM pg_proc p
       WHERE p.pronamespace = pg_temp.queue() AND p.proname !~ '^_'
       ORDER BY p.proname COLLATE "C" $$,
    $$ VALUES
       ('channel_explain(channel text) RETURNS channel_explanation'),
       ('channel_policy_clear(channel text) RETURNS void'),
       ('channel_policy_set(channel text, max_concurrency integer DEFAULT NULL::integer, release_interval_ms bigint DEFAULT NULL::bigint) RETURNS void'),
       ('check(max_open_ms bigint DEFAULT 60000) RETURNS SETOF fault'),
       ('message_cancel(id bigint) RETURNS cancel_result'),
       ('message_create(channel text, content bytea, lock_ms bigint, delay_ms bigint DEFAULT 0) RETURNS bigint'),
       ('message_create_many(channels text[], contents bytea[], lock_ms bigint[], delay_ms bigint[] DEFAULT ''{0}''::bigint[]) RETURNS SETOF bigint'),
       ('message_defer(id bigint, num_attempts integer, delay_ms bigint DEFAULT 0, state bytea DEFAULT NULL::bytea) RETURNS defer_result'),
       ('message_delete(id bigint, num_attempts integer) RETURNS delete_result'),
       ('message_delete_many(ids bigint[], num_attempts integer[]) RETURNS SETOF deleted'),
       ('message_dequeue(max_messages integer DEFAULT 1, lock_ms bigint DEFAULT NULL::bigint) RETURNS SETOF dequeued'),
       ('message_explain(id bigint) RETURNS message_explanation'),
       ('message_heartbeat(id bigint, num_attempts integer, lock_ms bigint DEFAULT NULL::bigint) RETURNS heartbeat_result'),
       ('message_status(ids bigint[]) RETURNS SETOF message_state'),
       ('repair() RETURNS SETOF fault'),
       ('role_grant(role text, kind text, channel_prefix text DEFAULT NULL::text) RETURNS void'),
       ('role_revoke(role text, kind text) RETURNS void'),
       ('version_status() RETURNS version_state') $$,
    'the public functions, with names of arguments, defaults and results');

SELECT results_eq(
    $$ SELECT t.typname::text COLLATE "default"
       FROM pg_type t
       LEFT JOIN pg_class c ON c.oid = t.typrelid
       WHERE t.typnamespace = pg_temp.queue()
         AND (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
         AND t.typname !~ '^_'
       ORDER BY t.typname COLLATE "C" $$,
    $$ VALUES ('cancel_result'), ('channel_explanation'), ('defer_result'), ('delete_result'), ('deleted'), ('dequeue_result'), ('dequeued'), ('fault'), ('heartbeat_result'),
              ('message_explanation'), ('message_state'), ('message_status'), ('version_state') $$,
    'the public types');

SELECT enum_has_labels(current_schema(), 'dequeue_result', '{MESSAGE_DEQUEUED,MESSAGE_NOT_AVAILABLE}', 'dequeue_result');
SELECT enum_has_labels(current_schema(), 'delete_result', '{MESSAGE_DELETED,MESSAGE_NOT_FOUND,MESSAGE_STATE_INVALID}', 'delete_result');
SELECT enum_has_labels(current_schema(), 'defer_result', '{MESSAGE_DEFERRED,MESSAGE_NOT_FOUND,MESSAGE_STATE_INVALID}', 'defer_result');
SELECT enum_has_labels(
    current_schema(), 'heartbeat_result', '{MESSAGE_HEARTBEATED,MESSAGE_NOT_FOUND,MESSAGE_STATE_INVALID,MESSAGE_BUSY}', 'heartbeat_result');
SELECT enum_has_labels(current_schema(), 'cancel_result', '{MESSAGE_CANCELLED,MESSAGE_NOT_FOUND,MESSAGE_STATE_INVALID}', 'cancel_result');
SELECT enum_has_labels(current_schema(), 'message_status', '{WAITING,READY,LOCKED}', 'message_status');

SELECT results_eq(
    $$ SELECT pg_temp.attributes('dequeued') $$,
    $$ VALUES ('result dequeue_result'), ('id bigint'), ('channel text'), ('content bytea'), ('state bytea'), ('num_attempts integer'),
              ('is_unlocked boolean'), ('unlock_at timestamp with time zone'), ('retry_ms bigint') $$,
    'dequeued');
SELECT results_eq($$ SELECT pg_temp.attributes('deleted') $$, $$ VALUES ('id bigint'), ('result delete_result') $$, 'deleted');
SELECT results_eq(
    $$ SELECT pg_temp.attributes('message_state') $$,
    $$ VALUES ('id bigint'), ('status message_status'), ('channel text'), ('num_attempts integer'), ('created_at timestamp with time zone'),
              ('dequeue_at timestamp with time zone'), ('locked_at timestamp with time zone'), ('unlock_at timestamp with time zone') $$,
    'message_state');

SELECT results_eq(
    $$ SELECT pg_temp.attributes('fault') $$,
    $$ VALUES ('kind text'), ('promise integer'), ('channel text'), ('message_id bigint'), ('found text'), ('remedy text') $$,
    'fault');

SELECT results_eq(
    $$ SELECT pg_temp.attributes('message_explanation') $$,
    $$ VALUES ('id bigint'), ('reason text'), ('explanation text'), ('available_in_ms bigint'), ('num_ahead integer'), ('num_lanes_ahead integer') $$,
    'message_explanation');
SELECT results_eq(
    $$ SELECT pg_temp.attributes('channel_explanation') $$,
    $$ VALUES ('channel text'), ('reason text'), ('explanation text'), ('available_in_ms bigint'), ('num_available integer'), ('num_lanes_ahead integer'),
              ('num_locked integer'), ('locked_at timestamp with time zone'), ('max_concurrency integer'), ('release_interval_ms bigint') $$,
    'channel_explanation');

SELECT results_eq(
    $$ SELECT pg_temp.attributes('version_state') $$,
    $$ VALUES ('version integer'), ('package_version text'), ('breaking_version integer') $$,
    'version_state');

-- The ledger, which tools and later releases read.
SELECT results_eq(
    $$ SELECT pg_temp.attributes('migration') $$,
    $$ VALUES ('version integer'), ('name text'), ('checksum text'), ('package_version text'),
              ('is_breaking boolean'), ('applied_at timestamp with time zone') $$,
    'migration');
SELECT col_is_pk(current_schema(), 'migration', 'version', 'a migration is in the ledger once');
SELECT alike(obj_description('migration'::regclass, 'pg_class'), 'pylonny%', 'the ledger''s comment marks the schema as pylonny''s');
SELECT isnt_empty('SELECT FROM migration', 'an installed schema has a ledger with rows');

SELECT * FROM finish();
ROLLBACK;
