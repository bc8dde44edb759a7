CREATE OR REPLACE FUNCTION {{ schema }}._roles()
RETURNS TABLE (role regrole, kind text, channel_prefix text, functions text[])
LANGUAGE sql STABLE
AS $function$
-- Kept in the catalog, as rights on four functions: so they follow a role that is renamed, hinder that it is dropped, go with DROP OWNED, are
-- there after a pg_upgrade, and in a dump. Each is granted to a role by itself; what it inherits, or may because it is the owner, is not in it.
SELECT a.grantee::regrole, k.kind, p.channel_prefix, k.functions
  FROM (VALUES ('_producer', 'producer', {{ schema }}._producer()), ('_bound_producer', 'producer', {{ schema }}._bound_producer()),
               ('_consumer', 'consumer', {{ schema }}._consumer()), ('_operator', 'operator', {{ schema }}._operator())) AS k (name, kind, functions)
  JOIN pg_proc f ON f.proname = k.name
  JOIN pg_namespace n ON n.oid = f.pronamespace AND n.nspname = {{ schema_literal }}
 CROSS JOIN LATERAL aclexplode(f.proacl) a
  LEFT JOIN {{ schema }}.producer p ON p.role = a.grantee AND k.name = '_bound_producer'
 WHERE a.grantee NOT IN (0, f.proowner)
$function$;
COMMENT ON FUNCTION {{ schema }}._roles() IS
'The roles that role_grant has made something, and what: one row each, with the names of the functions that they may call.';
