-- role_grant: what a role may do with the queue. tests/integration/test_roles.py logs in as each kind.
BEGIN;
SELECT plan(31);

CREATE ROLE "Role ""1" LOGIN;
CREATE ROLE other LOGIN;
CREATE ROLE members NOLOGIN;

-- What a statement answers, or the SQLSTATE of its refusal and why, for one who has logged in as that role.
CREATE FUNCTION pg_temp.as_role(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_answer text;
    v_state text;
    v_message text;
BEGIN
    EXECUTE format('SET LOCAL SESSION AUTHORIZATION %I', role);
    EXECUTE statement INTO v_answer;
    RESET SESSION AUTHORIZATION;
    RETURN coalesce(v_answer, 'nothing');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
    RETURN v_state || ' ' || v_message;
END
$$;

-- The functions that a role may call.
CREATE FUNCTION pg_temp.callable(role text) RETURNS text[] LANGUAGE sql AS $$
    SELECT array_agg(p.proname::text COLLATE "C" ORDER BY p.proname COLLATE "C")
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = current_schema() AND has_function_privilege(role, p.oid, 'EXECUTE')
$$;

-- A role is what it was made, and nothing else.

SELECT is(pg_temp.callable('Role "1'), NULL, 'at first a role may call nothing');
SELECT is(has_schema_privilege('Role "1', current_schema(), 'USAGE'), false, 'nor use the schema');
SELECT lives_ok($$ SELECT role_grant(role => 'Role "1', kind => 'producer') $$, 'it becomes a producer');
SELECT is(has_schema_privilege('Role "1', current_schema(), 'USAGE'), true, 'now it may use the schema');
SELECT is(
    pg_temp.callable('Role "1'), '{_event_channel,_producer,message_create,message_create_many,version_status}',
    'a producer creates; which version that is, and where its events go, everybody may know');
SELECT role_grant('other', 'consumer');
SELECT is(
    pg_temp.callable('other'),
    '{_consumer,_event_channel,_wake_channel,message_defer,message_delete,message_delete_many,message_dequeue,message_heartbeat,version_status}',
    'a consumer dequeues and finishes');
SELECT role_grant('members', 'operator');
SELECT is(
    pg_temp.callable('members'),
    '{_event_channel,_operator,channel_explain,channel_policy_clear,channel_policy_set,check,message_cancel,message_explain,message_status,repair,version_status}',
    'an operator sets policies, cancels, and looks');
SELECT is(
    (SELECT array_agg(c.relname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, unnest('{"Role \"1",other,members}'::text[]) AS r (role)
     WHERE n.nspname = current_schema()
       AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(r.role, c.oid, 'USAGE, SELECT, UPDATE')
                          WHEN 'r' THEN has_any_column_privilege(r.role, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES') OR has_table_privilege(r.role, c.oid, 'DELETE, TRUNCATE, TRIGGER')
                          WHEN 'v' THEN has_any_column_privilege(r.role, c.oid, 'SELECT, INSERT, UPDATE') END),
    NULL, 'none of them has a right on a table, a view or a sequence');
SELECT alike(pg_temp.as_role('Role "1', $$ SELECT message_create('a', 'x', 1000) $$), '_', 'the producer creates a message');
SELECT is(pg_temp.as_role('other', 'SELECT channel FROM message_dequeue()'), 'a', 'the consumer dequeues it');
SELECT is(pg_temp.as_role('members', $$ SELECT reason FROM channel_explain('a') $$), 'LOCKED', 'the operator sees it');
SELECT is(pg_temp.as_role('members', 'SELECT message_dequeue()'), '42501 permission denied for function message_dequeue', 'and dequeues nothing');

-- It may be several, and it does no harm to say it again.

SELECT role_grant('other', 'consumer');
SELECT role_grant('other', 'producer');
SELECT is(
    pg_temp.callable('other'),
    '{_consumer,_event_channel,_producer,_wake_channel,message_create,message_create_many,message_defer,message_delete,message_delete_many,message_dequeue,message_heartbeat,version_status}',
    'a role may be a producer and a consumer');

-- A producer of some channels.

SELECT role_grant('Role "1', 'producer', channel_prefix => 'tenant_1/');
SELECT is(
    pg_temp.callable('Role "1'), '{_bound_producer,_event_channel,message_create,message_create_many,version_status}',
    'a producer that is bound later is not a free one too');
SELECT alike(pg_temp.as_role('Role "1', $$ SELECT message_create('tenant_1/a', 'x', 1000) $$), '_', 'it creates messages in its channels');
SELECT is(pg_temp.as_role('Role "1', $$ SELECT count(*) FROM message_create_many('{tenant_1/a,tenant_1/}', '{x,y}', '{0}') $$), '2', 'many of them too');
SELECT is(
    pg_temp.as_role('Role "1', $$ SELECT message_create('tenant-1/a', 'x', 1000) $$),
    '42501 role "Role "1" may create messages only in channels that begin with ''tenant_1/'', not in ''tenant-1/a''', 'in others it does not: a prefix is no pattern');
SELECT is(
    pg_temp.as_role('Role "1', $$ SELECT message_create(NULL, 'x', 1000) $$),
    '42501 role "Role "1" may create messages only in channels that begin with ''tenant_1/'', not without a channel', 'nor without a channel');
SELECT alike(
    pg_temp.as_role('Role "1', $$ SELECT message_create_many('{tenant_1/a,b}', '{x,y}', '{0}') $$), '42501 % not in ''b''', 'nor many, if one is in another');
SELECT alike(pg_temp.as_role('Role "1', $$ SELECT message_create_many(NULL, '{x}', '{0}') $$), '42501 % not without a channel', 'nor many without channels');
SELECT role_grant('members', 'producer', 'm');
GRANT members TO "Role ""1";
SELECT alike(pg_temp.as_role('Role "1', $$ SELECT message_create('m', 'x', 1000) $$), '_', 'what a role inherits from gives it its channels too');
SELECT alike(
    pg_temp.as_role('Role "1', $$ SELECT message_create('x', 'x', 1000) $$), '% begin with ''m'' or ''tenant\_1/'', not in ''x''', 'and no others');
SELECT role_grant('members', 'producer');
SELECT alike(pg_temp.as_role('Role "1', $$ SELECT message_create('x', 'x', 1000) $$), '_', 'unless that one is free');

-- An install makes it anew.

REVOKE ALL ON FUNCTION message_create, message_dequeue FROM "Role ""1", other;
DO $$ BEGIN PERFORM _roles_renew(); END $$;
SELECT is(
    (SELECT array_agg(r.role || ' ' || r.kind || coalesce(' ' || r.channel_prefix, '') ORDER BY r.role::oid, r.kind) FROM _roles() r),
    '{"\"Role \"\"1\" producer tenant_1/","other consumer","other producer","members operator","members producer"}', 'what each role is can be read');
SELECT is(
    has_function_privilege('Role "1', 'message_create(text, bytea, bigint, bigint)', 'EXECUTE')
    AND has_function_privilege('other', 'message_dequeue(integer, bigint)', 'EXECUTE')
    AND NOT has_function_privilege('Role "1', 'message_dequeue(integer, bigint)', 'EXECUTE'),
    true, 'what it lacks as that is granted anew, and nothing else');

-- What cannot be meant.

SELECT * FROM tap.refused('a role has to be given', $$ SELECT role_grant(NULL, 'producer') $$, '22004', 'role', 'NULL');
SELECT * FROM tap.refused('and a kind', $$ SELECT role_grant('other', NULL) $$, '22004', 'kind', 'NULL');
SELECT * FROM tap.refused('which there is', $$ SELECT role_grant('other', 'Producer') $$, '22023', 'kind', 'Producer');
SELECT * FROM tap.refused('the role has to be there', $$ SELECT role_grant('nobody', 'producer') $$, '42704', 'role', 'nobody');
SELECT * FROM tap.refused('a prefix is not empty', $$ SELECT role_grant('other', 'producer', '') $$, '22023', 'channel_prefix', '''''');
SELECT * FROM tap.refused('and for producers', $$ SELECT role_grant('other', 'consumer', 'x') $$, '22023', 'channel_prefix', 'x');

SELECT * FROM finish();
ROLLBACK;
