CREATE OR REPLACE FUNCTION {{ schema }}.role_grant(role text, kind text, channel_prefix text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- With the rights of its caller, who has to be the owner: nobody else may grant these.
DECLARE
  v_role   regrole;
  v_schema oid := (SELECT n.oid FROM pg_namespace n WHERE n.nspname = {{ schema_literal }});
BEGIN
  IF role_grant.channel_prefix IS NOT NULL AND role_grant.kind <> 'producer' THEN
    PERFORM {{ schema }}._raise_invalid('channel_prefix', role_grant.channel_prefix, 'Only a producer can be bound to channels: give kind producer, or no prefix.');
  END IF;
  IF octet_length(role_grant.channel_prefix) NOT BETWEEN 1 AND 512 THEN
    PERFORM {{ schema }}._raise_invalid('channel_prefix', role_grant.channel_prefix, 'Give 1 to 512 bytes, or NULL for all channels.');
  END IF;
  -- A producer is bound or not: the last grant says.
  PERFORM {{ schema }}.role_revoke(role_grant.role, role_grant.kind);

  SELECT r.oid INTO v_role FROM pg_roles r WHERE r.rolname = role_grant.role;
  IF NOT has_schema_privilege(v_role, v_schema, 'USAGE') THEN
    IF NOT has_schema_privilege(v_schema, 'USAGE WITH GRANT OPTION') THEN
      RAISE EXCEPTION 'role "%" may not let "%" use schema "%", which is not its own', current_user, role_grant.role, {{ schema_literal }}
        USING ERRCODE = 'insufficient_privilege',
              HINT = format('Have its owner run  GRANT USAGE ON SCHEMA %I TO %s  and try again.', {{ schema_literal }}, v_role);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', {{ schema_literal }}, v_role);
  END IF;
  IF role_grant.channel_prefix IS NOT NULL THEN
    INSERT INTO {{ schema }}.producer (role, channel_prefix) VALUES (v_role, role_grant.channel_prefix);
  END IF;
  EXECUTE format('GRANT EXECUTE ON FUNCTION %I.%I() TO %s', {{ schema_literal }},
                 CASE WHEN role_grant.channel_prefix IS NULL THEN '_' || role_grant.kind ELSE '_bound_producer' END, v_role);
  PERFORM {{ schema }}._roles_renew();
END
$function$;
COMMENT ON FUNCTION {{ schema }}.role_grant(text, text, text) IS
'Makes a role a producer, a consumer or an operator of the queue: lets it call what these need, and nothing else.
A producer creates messages; a consumer dequeues them, and deletes, defers and keeps what it has; an operator sets policies, cancels, and looks at what there is. A role may be several of these: call it for each. No role needs rights on the tables. channel_prefix, for a producer, binds it to channels whose names begin so; NULL, to none. It is looked for by the role that has logged in: that one, or what it inherits from, has to be the one that is bound; SET ROLE does not matter. Only the owner of the queue may call it. Errors: 22004, 22023; 42704 if there is no such role.';
