CREATE OR REPLACE FUNCTION {{ schema }}.role_revoke(role text, kind text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- With the rights of its caller, as role_grant.
DECLARE
  v_role     regrole;
  v_function regprocedure;
BEGIN
  IF role_revoke.role IS NULL THEN
    PERFORM {{ schema }}._raise_invalid('role', NULL, 'Give the name of a role.');
  END IF;
  IF role_revoke.kind IS NULL OR role_revoke.kind NOT IN ('producer', 'consumer', 'operator') THEN
    PERFORM {{ schema }}._raise_invalid('kind', role_revoke.kind, 'Give producer, consumer or operator.');
  END IF;
  SELECT r.oid INTO v_role FROM pg_roles r WHERE r.rolname = role_revoke.role;
  IF NOT FOUND THEN
    -- A longer name than this no role can have.
    RAISE EXCEPTION 'role "%" does not exist', left(role_revoke.role, 64)
      USING ERRCODE = 'undefined_object', HINT = format('Create it with  CREATE ROLE %I LOGIN  or correct the name.', left(role_revoke.role, 64));
  END IF;
  -- One at a time, and not beside an install, which takes this lock too: PostgreSQL refuses to change the rights on a function twice at once.
  PERFORM pg_advisory_xact_lock(hashtextextended({{ schema_literal }}, 0));

  DELETE FROM {{ schema }}.producer p WHERE p.role = v_role AND role_revoke.kind = 'producer';
  FOR v_function IN
    SELECT f.oid
      FROM {{ schema }}._roles() r
      JOIN pg_proc f ON f.proname = ANY (r.functions || ('_' || r.kind) || CASE WHEN r.kind = 'producer' THEN '_bound_producer' END)
      JOIN pg_namespace n ON n.oid = f.pronamespace AND n.nspname = {{ schema_literal }}
     WHERE r.role = v_role AND r.kind = role_revoke.kind
       AND NOT EXISTS (SELECT FROM {{ schema }}._roles() other
                        WHERE other.role = v_role AND other.kind <> role_revoke.kind AND f.proname = ANY (other.functions))
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM %s', v_function, v_role);
  END LOOP;
  IF NOT EXISTS (SELECT FROM {{ schema }}._roles() r WHERE r.role = v_role) AND has_schema_privilege({{ schema_literal }}, 'USAGE WITH GRANT OPTION') THEN
    EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM %s', {{ schema_literal }}, v_role);
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.role_revoke(text, text) IS
'Takes back what role_grant has given a role: it is no producer, consumer or operator any more.
The functions that it needs as something else stay; with the last one goes the right to use the schema. If it was none, nothing happens. A role that is to be dropped needs it before, or DROP OWNED. Only the owner of the queue may call it. Errors: 22004, 22023; 42704 if there is no such role.';
