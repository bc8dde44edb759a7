CREATE OR REPLACE FUNCTION {{ schema }}._retry_ms(p_is_busy boolean, p_release_at timestamptz, p_looked_at timestamptz)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- What has ended since the caller looked counts as well: it has not been seen. Beside an old snapshot it does not step over all that has ended in the
-- next years, had it not been deleted.
DECLARE
  c_busy_ms    CONSTANT bigint := 50;
  c_bloated_ms CONSTANT bigint := 1000;
  v_now        timestamptz := {{ schema }}._clock();
  v_is_bloated boolean := COALESCE(pg_sequence_last_value($regclass${{ schema }}.generation_walk$regclass$), 0) > 0;
  v_last_at    timestamptz := CASE WHEN v_is_bloated THEN p_looked_at + c_bloated_ms * interval '1 ms' ELSE 'infinity' END;
  v_next_at    timestamptz;
BEGIN
  v_next_at := LEAST(p_release_at,
                     (SELECT m.timer_at FROM {{ schema }}.message m WHERE m.timer_at > p_looked_at AND m.timer_at <= v_last_at ORDER BY m.timer_at LIMIT 1),
                     (SELECT w.at FROM {{ schema }}.wake w WHERE w.at > p_looked_at AND w.at <= v_last_at ORDER BY w.at LIMIT 1));
  RETURN LEAST(ceil(extract(epoch FROM v_next_at - LEAST(v_now, v_next_at)) * 1000)::bigint, CASE WHEN p_is_busy THEN c_busy_ms WHEN v_is_bloated THEN c_bloated_ms END);
END
$function$;
COMMENT ON FUNCTION {{ schema }}._retry_ms(boolean, timestamptz, timestamptz) IS
'Milliseconds, rounded up, until the next delay, lock or timer ends that was not over at p_looked_at, or until p_release_at; 0 if that is over by now, at most 50 if p_is_busy, or 1000 beside an old snapshot, NULL if nothing is known.';
