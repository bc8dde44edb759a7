CREATE OR REPLACE FUNCTION {{ schema }}._event_channel()
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
  -- Inlined as a constant: where events are off, asking costs nothing.
  SELECT {{ event_channel }}::pg_catalog.text
$function$;
COMMENT ON FUNCTION {{ schema }}._event_channel() IS 'The channel that events are sent to with NOTIFY, or NULL if events are off. Set by install.';
