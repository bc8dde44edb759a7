CREATE OR REPLACE FUNCTION {{ schema }}._wake_channel()
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
  -- Inlined as a constant, as in _event_channel.
  SELECT {{ wake_channel }}::pg_catalog.text
$function$;
COMMENT ON FUNCTION {{ schema }}._wake_channel() IS 'The channel on which sleeping workers are woken with NOTIFY, or NULL if none are. Set by install.';
