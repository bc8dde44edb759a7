CREATE OR REPLACE FUNCTION {{ schema }}._channel_name(p_channel text, p_id bigint, p_created_at timestamptz)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
  -- No SET clause: with one it could not be inlined. Derived, not stored: a uuid in the row is written twice a message, and to draw one costs more
  -- than to insert the row.
  SELECT COALESCE(p_channel, pg_catalog.md5(pg_catalog.int8send(p_id) OPERATOR(pg_catalog.||) pg_catalog.timestamptz_send(p_created_at))::pg_catalog.uuid::pg_catalog.text)
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_name(text, bigint, timestamptz) IS
'The name of a message''s channel. One without a channel goes by a uuid of its own, a hash of its id and the time of its creation in microseconds.';
