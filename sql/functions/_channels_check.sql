CREATE OR REPLACE FUNCTION {{ schema }}._channels_check(p_channels text[])
RETURNS void
LANGUAGE plpgsql STABLE
AS $function$
-- A function that runs with its owner's rights sees of its caller only the role that has logged in, so that one is looked at.
DECLARE
  v_channel  text;
  v_prefixes text;
BEGIN
  -- Bound as one role that it inherits from, and free as another; superusers are everything.
  IF has_function_privilege(session_user, $regprocedure${{ schema }}._producer()$regprocedure$::regprocedure, 'EXECUTE') THEN
    RETURN;
  END IF;
  SELECT u.channel INTO v_channel
    FROM unnest(p_channels) WITH ORDINALITY AS u (channel, n)
   WHERE NOT EXISTS (SELECT FROM {{ schema }}.producer p
                      WHERE starts_with(u.channel, p.channel_prefix) AND pg_has_role(session_user, p.role, 'USAGE'))
   ORDER BY u.n LIMIT 1;
  IF FOUND THEN
    SELECT string_agg(quote_literal(p.channel_prefix), ' or ' ORDER BY p.channel_prefix) INTO v_prefixes
      FROM {{ schema }}.producer p WHERE pg_has_role(session_user, p.role, 'USAGE');
    RAISE EXCEPTION 'role "%" may create messages only in channels that begin with %, not %', session_user, COALESCE(v_prefixes, 'nothing'),
        CASE WHEN v_channel IS NULL THEN 'without a channel' ELSE 'in ' || quote_literal(left(v_channel, 80)) END
      USING ERRCODE = 'insufficient_privilege', HINT = 'Choose another channel, or have the owner of the queue call role_grant with another prefix.';
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channels_check(text[]) IS
'Refuses, with 42501, channels in which the role that has logged in may not create messages, because it is bound to others.';
