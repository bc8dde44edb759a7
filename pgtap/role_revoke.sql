-- role_revoke: a role may not any more.
BEGIN;
SELECT plan(14);

CREATE ROLE "Role ""1" LOGIN;

CREATE FUNCTION pg_temp.callable() RETURNS text[] LANGUAGE sql AS $$
    SELECT array_agg(p.proname::text COLLATE "C" ORDER BY p.proname COLLATE "C")
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = current_schema() AND has_function_privilege('Role "1', p.oid, 'EXECUTE')
$$;

SELECT role_grant('Role "1', 'producer', 'a'), role_grant('Role "1', 'consumer'), role_grant('Role "1', 'operator');
SELECT lives_ok($$ SELECT role_revoke(role => 'Role "1', kind => 'consumer') $$, 'a role is no consumer any more');
SELECT is(
    pg_temp.callable(),
    '{_bound_producer,_event_channel,_operator,channel_explain,channel_policy_clear,channel_policy_set,check,message_cancel,message_create,message_create_many,message_explain,message_status,repair,version_status}',
    'what it needs as something else it keeps');
SELECT role_revoke('Role "1', 'operator');
SELECT is(pg_temp.callable(), '{_bound_producer,_event_channel,message_create,message_create_many,version_status}', 'the same with an operator');
SELECT is((SELECT array_agg(p.channel_prefix) FROM producer p), '{a}', 'a producer keeps its channels');
SELECT is(has_schema_privilege('Role "1', current_schema(), 'USAGE'), true, 'and may use the schema');
SELECT lives_ok($$ SELECT role_revoke('Role "1', 'producer') $$, 'it is no producer any more');
SELECT is(pg_temp.callable(), NULL, 'then nothing is left');
SELECT is_empty('SELECT FROM producer', 'no channels');
SELECT is(has_schema_privilege('Role "1', current_schema(), 'USAGE'), false, 'nor the schema');
SELECT lives_ok($$ SELECT role_revoke('Role "1', 'producer') $$, 'to say it again does no harm');

SELECT * FROM tap.refused('a role has to be given', $$ SELECT role_revoke(NULL, 'producer') $$, '22004', 'role', 'NULL');
SELECT * FROM tap.refused('and a kind', $$ SELECT role_revoke('Role "1', NULL) $$, '22004', 'kind', 'NULL');
SELECT * FROM tap.refused('which there is', $$ SELECT role_revoke('Role "1', 'owner') $$, '22023', 'kind', 'owner');
SELECT * FROM tap.refused('the role has to be there', $$ SELECT role_revoke('nobody', 'producer') $$, '42704', 'role', 'nobody');

SELECT * FROM finish();
ROLLBACK;
