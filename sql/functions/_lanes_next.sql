CREATE OR REPLACE FUNCTION {{ schema }}._lanes_next(p_served bigint, p_limit integer, p_generation bigint)
RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
  c_first CONSTANT bigint := -9223372036854775808;
  c_last  CONSTANT bigint := 9223372036854775807;
BEGIN
  IF p_generation IS NULL THEN
    RETURN QUERY
    WITH RECURSIVE ahead AS (
      (SELECT m.lane FROM {{ schema }}.message m WHERE m.status = 'READY' AND m.lane > p_served ORDER BY m.lane LIMIT 1)
      UNION ALL
      SELECT n.lane FROM ahead a, LATERAL (
        SELECT m.lane FROM {{ schema }}.message m WHERE m.status = 'READY' AND m.lane > a.lane ORDER BY m.lane LIMIT 1) n
    ), behind AS (
      (SELECT m.lane FROM {{ schema }}.message m WHERE m.status = 'READY' AND m.lane <= p_served ORDER BY m.lane LIMIT 1)
      UNION ALL
      SELECT n.lane FROM behind b, LATERAL (
        SELECT m.lane FROM {{ schema }}.message m WHERE m.status = 'READY' AND m.lane > b.lane AND m.lane <= p_served ORDER BY m.lane LIMIT 1) n
    )
    SELECT a.lane FROM ahead a
    UNION ALL
    SELECT b.lane FROM behind b
    LIMIT p_limit;
  ELSE
    -- As in _message_hold: only message_generation_idx can answer this.
    RETURN QUERY
    WITH RECURSIVE walk AS (
      SELECT s.is_behind, s.last, (
               SELECT m.lane FROM {{ schema }}.message m
                WHERE m.status = 'READY' AND (m.generation, m.lane) > (p_generation, s.after)
                  AND (m.generation, m.lane) <= (p_generation, s.last) AND m.generation <= p_generation
                ORDER BY m.generation, m.lane LIMIT 1) AS lane
        FROM (VALUES (false, p_served, c_last), (true, c_first, p_served)) AS s (is_behind, after, last)
      UNION ALL
      SELECT w.is_behind, w.last, (
               SELECT m.lane FROM {{ schema }}.message m
                WHERE m.status = 'READY' AND (m.generation, m.lane) > (p_generation, w.lane)
                  AND (m.generation, m.lane) <= (p_generation, w.last) AND m.generation <= p_generation
                ORDER BY m.generation, m.lane LIMIT 1)
        FROM walk w WHERE w.lane IS NOT NULL
    )
    SELECT w.lane FROM walk w WHERE w.lane IS NOT NULL ORDER BY w.is_behind, w.lane LIMIT p_limit;
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._lanes_next(bigint, integer, bigint) IS
'The next lanes that have ready messages, in rotation after p_served, at most p_limit; of p_generation only unless it is NULL.';
