CREATE OR REPLACE FUNCTION {{ schema }}._generation_retire(p_generation bigint, p_is_due boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- As a rule all transactions that may have given something the older one have ended, and what they committed is seen below; so nothing can come in it any
-- more. If not, it ends all the same when the younger one is to be followed, and late_horizon says what may come.
--
-- Timers are set by transactions that read the clock when they have a number, and were given a later time than generation_at if that is higher than the
-- horizon. One that is known to be over by its locks only may have had no lock yet between the two, so there is a margin.
DECLARE
  c_margin_us CONSTANT bigint := 10000000;
  v_now       timestamptz := {{ schema }}._clock();
  v_horizon   bigint := pg_sequence_last_value($regclass${{ schema }}.generation_horizon$regclass$);
  v_is_past   boolean := pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= v_horizon;
  v_floor     timestamptz := timestamptz 'epoch' + COALESCE(pg_sequence_last_value($regclass${{ schema }}.timer_floor$regclass$), 0) * interval '1 us';
  v_floor_us  bigint;
BEGIN
  IF v_is_past OR p_is_due AND {{ schema }}._horizon_is_over(v_horizon) THEN
    IF COALESCE((SELECT true FROM {{ schema }}.message m WHERE m.status = 'READY' AND m.generation >= p_generation / 2 AND m.generation <= p_generation / 2
                  ORDER BY m.generation, m.lane LIMIT 1),
                (SELECT true FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.generation >= p_generation / 2 AND w.generation <= p_generation / 2
                  ORDER BY w.generation, w.lane LIMIT 1), false) THEN
      RETURN;
    END IF;
    v_floor_us := LEAST(pg_sequence_last_value($regclass${{ schema }}.generation_at$regclass$) - CASE WHEN v_is_past THEN 0 ELSE c_margin_us END,
                        {{ schema }}._microseconds((SELECT m.timer_at FROM {{ schema }}.message m WHERE m.timer_at > v_floor AND m.timer_at <= v_now ORDER BY m.timer_at LIMIT 1)),
                        {{ schema }}._microseconds((SELECT w.at FROM {{ schema }}.wake w WHERE w.at > v_floor AND w.at <= v_now ORDER BY w.at LIMIT 1))) - 1;
    PERFORM {{ schema }}._generation_turn(p_generation, p_generation + 1, v_floor_us);
  ELSIF p_is_due THEN
    PERFORM {{ schema }}._generation_turn(p_generation, p_generation + 1, NULL);
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._generation_retire(bigint, boolean) IS
'Ends the older of two generations (p_generation is their sum) if nothing is in it and nothing can come; if p_is_due, also if something can.
To be called when nothing was seen in it.';
