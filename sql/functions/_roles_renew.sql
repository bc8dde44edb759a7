CREATE OR REPLACE FUNCTION {{ schema }}._roles_renew()
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- A function that an upgrade has made anew, or put in the place of one that it has renamed, has no rights on it.
DECLARE
  v_grant record;
BEGIN
  FOR v_grant IN
    SELECT DISTINCT f.oid::regprocedure AS function, r.role
      FROM {{ schema }}._roles() r
      JOIN pg_proc f ON f.proname = ANY (r.functions)
      JOIN pg_namespace n ON n.oid = f.pronamespace AND n.nspname = {{ schema_literal }}
     WHERE NOT EXISTS (SELECT FROM aclexplode(f.proacl) a WHERE a.grantee = r.role)
  LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', v_grant.function, v_grant.role);
  END LOOP;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._roles_renew() IS
'Grants producers, consumers and operators what functions they lack. Every install does it.';
