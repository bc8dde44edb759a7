CREATE OR REPLACE FUNCTION {{ schema }}._lane(p_channel text)
RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
  -- No SET clause: with one it could not be inlined. 0 is kept for messages without a channel, and the lowest
  -- number for what is before all lanes.
  SELECT COALESCE(NULLIF(GREATEST(pg_catalog.hashtextextended(p_channel COLLATE "C", 0), -9223372036854775807), 0), 1)
$function$;
COMMENT ON FUNCTION {{ schema }}._lane(text) IS 'The rotation''s key of a named channel. Two channels that collide share turns, nothing else.';
