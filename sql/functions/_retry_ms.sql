CREATE OR REPLACE FUNCTION {{ schema }}._retry_ms(p_is_busy boolean, p_release_at timestamptz, p_looked_at timestamptz)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- What has ended since the caller looked counts as well: it has not been seen.
DECLARE
  c_busy_ms CONSTANT bigint := 50;
  v_now     timestamptz := {{ schema }}._clock();
  v_next_at timestamptz;
BEGIN
  v_next_at := LEAST(p_release_at,
                     (SELECT m.timer_at FROM {{ schema }}.message m WHERE m.timer_at > p_looked_at ORDER BY m.timer_at LIMIT 1),
                     (SELECT w.at FROM {{ schema }}.wake w WHERE w.at > p_looked_at ORDER BY w.at LIMIT 1));
  RETURN LEAST(ceil(extract(epoch FROM v_next_at - LEAST(v_now, v_next_at)) * 1000)::bigint, CASE WHEN p_is_busy THEN c_busy_ms END);
END
$function$;
COMMENT ON FUNCTION {{ schema }}._retry_ms(boolean, timestamptz, timestamptz) IS
'Milliseconds, rounded up, until the next delay, lock or timer ends that was not over at p_looked_at, or until p_release_at; 0 if that is over by now, at most 50 if p_is_busy, NULL if nothing is known.';
