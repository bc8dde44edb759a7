CREATE OR REPLACE FUNCTION {{ schema }}._lane(p_channel text)
RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
  -- No SET clause: with one it could not be inlined. Below 0, which is kept for messages without a channel and so comes last: behind it the
  -- rotation begins anew, and a queue without channels is searched once. The lowest number is kept for what is before all lanes.
  SELECT GREATEST(pg_catalog.hashtextextended(p_channel COLLATE "C", 0) OPERATOR(pg_catalog.|) (-9223372036854775807 OPERATOR(pg_catalog.-) 1), -9223372036854775807)
$function$;
COMMENT ON FUNCTION {{ schema }}._lane(text) IS 'The rotation''s key of a named channel. Two channels that collide share turns, nothing else.';
