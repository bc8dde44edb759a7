CREATE OR REPLACE FUNCTION {{ schema }}._wakes_next(p_served bigint, p_last bigint, p_limit integer)
RETURNS TABLE (lane bigint, channel text)
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
  c_last CONSTANT bigint := 9223372036854775807;
  -- The way from p_served to p_last is one or two stretches: up to the highest lane, and on from the lowest.
  v_ahead  bigint := CASE WHEN p_last > p_served THEN p_last ELSE c_last END;
  v_behind bigint := CASE WHEN p_last <= p_served THEN p_last END;
BEGIN
  RETURN QUERY
  WITH RECURSIVE ahead AS (
    (SELECT w.lane, w.channel FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.lane > p_served AND w.lane <= v_ahead ORDER BY w.lane LIMIT 1)
    UNION ALL
    SELECT n.* FROM ahead a, LATERAL (
      SELECT w.lane, w.channel FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.lane > a.lane AND w.lane <= v_ahead ORDER BY w.lane LIMIT 1) n
  ), behind AS (
    (SELECT w.lane, w.channel FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.lane <= v_behind ORDER BY w.lane LIMIT 1)
    UNION ALL
    SELECT n.* FROM behind b, LATERAL (
      SELECT w.lane, w.channel FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.lane > b.lane AND w.lane <= v_behind ORDER BY w.lane LIMIT 1) n
  )
  SELECT a.lane, a.channel FROM ahead a
  UNION ALL
  SELECT b.lane, b.channel FROM behind b
  LIMIT p_limit;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._wakes_next(bigint, bigint, integer) IS
'The next lanes that have due wakes, in rotation after p_served and up to p_last (the same: all the way round), at most p_limit, each with one of its channels.';
