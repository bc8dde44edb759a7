CREATE OR REPLACE FUNCTION {{ schema }}._retry_ms()
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  c_busy_ms CONSTANT bigint := 50;
  v_now     timestamptz := {{ schema }}._clock();
  v_busy    boolean;
  v_next_at timestamptz;
BEGIN
  SELECT LEAST((SELECT min(m.timer_at) FROM {{ schema }}.message m WHERE m.timer_at > v_now),
               (SELECT min(w.at) FROM {{ schema }}.wake w WHERE w.at > v_now)),
         EXISTS (SELECT FROM {{ schema }}.message m WHERE m.status = 'READY')
         OR EXISTS (SELECT FROM {{ schema }}.message m WHERE m.timer_at <= v_now)
         OR EXISTS (SELECT FROM {{ schema }}.wake w WHERE w.at IS NULL)
         OR EXISTS (SELECT FROM {{ schema }}.wake w WHERE w.at <= v_now)
    INTO v_next_at, v_busy;
  RETURN LEAST(ceil(extract(epoch FROM v_next_at - v_now) * 1000)::bigint, CASE WHEN v_busy THEN c_busy_ms END);
END
$function$;
COMMENT ON FUNCTION {{ schema }}._retry_ms() IS
'Milliseconds, rounded up, until the next delay, lock or timer ends; at most 50 if something is due or ready but in another transaction''s hands; NULL if nothing is known.';
