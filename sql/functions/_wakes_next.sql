CREATE OR REPLACE FUNCTION {{ schema }}._wakes_next(p_limit integer)
RETURNS TABLE (lane bigint, channel text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  v_cursor bigint := COALESCE(pg_sequence_last_value($regclass${{ schema }}.wake_rotation$regclass$), 0);
BEGIN
  RETURN QUERY
  WITH RECURSIVE ahead AS (
    (SELECT w.lane, w.channel FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.lane > v_cursor ORDER BY w.lane LIMIT 1)
    UNION ALL
    SELECT n.* FROM ahead a, LATERAL (
      SELECT w.lane, w.channel FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.lane > a.lane ORDER BY w.lane LIMIT 1) n
  ), behind AS (
    (SELECT w.lane, w.channel FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.lane <= v_cursor ORDER BY w.lane LIMIT 1)
    UNION ALL
    SELECT n.* FROM behind b, LATERAL (
      SELECT w.lane, w.channel FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.lane > b.lane AND w.lane <= v_cursor ORDER BY w.lane LIMIT 1) n
  )
  SELECT a.lane, a.channel FROM ahead a
  UNION ALL
  SELECT b.lane, b.channel FROM behind b
  LIMIT p_limit;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._wakes_next(integer) IS
'The next lanes that have due wakes, in rotation, at most p_limit, each with one of its channels.';
