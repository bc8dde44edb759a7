CREATE OR REPLACE FUNCTION {{ schema }}._event_notify(p_type text, p_id bigint, p_channel text, p_delay_ms bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
  -- At most 512 bytes of channel name, six bytes each when escaped: always below the 8000 bytes that NOTIFY takes.
  PERFORM pg_notify({{ schema }}._event_channel(), json_strip_nulls(json_build_object(
    'type', p_type, 'id', p_id, 'channel', p_channel, 'delay_ms', p_delay_ms))::text);
END
$function$;
COMMENT ON FUNCTION {{ schema }}._event_notify(text, bigint, text, bigint) IS 'Sends an event; what is NULL is left out. Delivered when, and only if, the transaction commits.';
