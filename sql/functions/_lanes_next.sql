CREATE OR REPLACE FUNCTION {{ schema }}._lanes_next(p_served bigint, p_limit integer, p_generations bigint[])
RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
  c_first CONSTANT bigint := -9223372036854775808;
  c_last  CONSTANT bigint := 9223372036854775807;
BEGIN
  IF p_generations IS NULL THEN
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
      SELECT s.is_behind, s.last, g.generation, 1 AS n, (
               SELECT m.lane FROM {{ schema }}.message m
                WHERE m.status = 'READY' AND (m.generation, m.lane) > (g.generation, s.after)
                  AND (m.generation, m.lane) <= (g.generation, s.last) AND m.generation <= g.generation
                ORDER BY m.generation, m.lane LIMIT 1) AS lane
        FROM (VALUES (false, p_served, c_last), (true, c_first, p_served)) AS s (is_behind, after, last), unnest(p_generations) AS g (generation)
      UNION ALL
      SELECT w.is_behind, w.last, w.generation, w.n + 1, (
               SELECT m.lane FROM {{ schema }}.message m
                WHERE m.status = 'READY' AND (m.generation, m.lane) > (w.generation, w.lane)
                  AND (m.generation, m.lane) <= (w.generation, w.last) AND m.generation <= w.generation
                ORDER BY m.generation, m.lane LIMIT 1)
        FROM walk w WHERE w.lane IS NOT NULL AND w.n < p_limit
    )
    SELECT w.lane FROM walk w WHERE w.lane IS NOT NULL GROUP BY w.is_behind, w.lane ORDER BY w.is_behind, w.lane LIMIT p_limit;
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._lanes_next(bigint, integer, bigint[]) IS
'The next lanes that have ready messages, in rotation after p_served, at most p_limit; of p_generations only unless it is NULL.';
