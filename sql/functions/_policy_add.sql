CREATE OR REPLACE FUNCTION {{ schema }}._policy_add(p_channel text, p_max_concurrency integer, p_release_interval_ms bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
  INSERT INTO {{ schema }}.channel_policy (channel, max_concurrency, release_interval_ms, cleared)
  VALUES (p_channel, p_max_concurrency, p_release_interval_ms,
          p_max_concurrency IS NULL AND COALESCE(p_release_interval_ms, 0) = 0);
  INSERT INTO {{ schema }}.wake (lane, channel) VALUES ({{ schema }}._lane(p_channel), p_channel);
  IF {{ schema }}._wake_channel() IS NOT NULL THEN
    PERFORM {{ schema }}._sleepers_wake();
  END IF;
  IF {{ schema }}._event_channel() IS NOT NULL THEN
    PERFORM {{ schema }}._event_notify('CHANNEL_POLICY_CHANGED', NULL, p_channel, NULL);
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._policy_add(text, integer, bigint) IS
'Adds a version of a channel''s policy, one without limits if there are none, and wakes the channel.';
