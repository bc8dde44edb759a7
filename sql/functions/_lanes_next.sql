CREATE OR REPLACE FUNCTION {{ schema }}._lanes_next(p_served bigint, p_limit integer)
RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
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
END
$function$;
COMMENT ON FUNCTION {{ schema }}._lanes_next(bigint, integer) IS
'The next lanes that have ready messages, in rotation after p_served, at most p_limit.';
