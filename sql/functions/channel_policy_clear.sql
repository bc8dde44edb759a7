CREATE OR REPLACE FUNCTION {{ schema }}.channel_policy_clear(channel text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  IF channel_policy_clear.channel IS NULL OR octet_length(channel_policy_clear.channel) NOT BETWEEN 1 AND 512 THEN
    PERFORM {{ schema }}._raise_invalid('channel', channel_policy_clear.channel, 'Give a name of 1 to 512 bytes.');
  END IF;

  PERFORM {{ schema }}._policy_add(channel_policy_clear.channel, NULL, NULL);
END
$function$;
COMMENT ON FUNCTION {{ schema }}.channel_policy_clear(text) IS
'Removes all limits of a channel.
It binds every dequeue that begins after it is committed. Errors: 22004, 22023.';
