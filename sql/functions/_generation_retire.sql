CREATE OR REPLACE FUNCTION {{ schema }}._generation_retire(p_generation bigint, p_is_due boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- As a rule all transactions that may have given something the older one have ended, and what they committed is seen below; so nothing can come in it any
-- more. What this transaction has changed is seen too, but may be undone, so it must not have changed anything. If something can come, the older one
-- ends all the same when the younger one is to be followed, and late_horizon says so.
--
-- Timers are set by transactions that read the clock when they have a number, and so to a later time than generation_at if that is higher than the
-- horizon. One that is known to be over by its locks only may have had no lock yet between the two, so there is a margin.
DECLARE
  c_margin_us CONSTANT bigint := 10000000;
  v_now       timestamptz := {{ schema }}._clock();
  v_horizon   bigint := pg_sequence_last_value($regclass${{ schema }}.generation_horizon$regclass$);
  v_is_past   boolean := pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= v_horizon;
  v_floor_us  bigint := COALESCE(pg_sequence_last_value($regclass${{ schema }}.timer_floor$regclass$), 0);
  v_floor     timestamptz := timestamptz 'epoch' + v_floor_us * interval '1 us';
  v_at_us     bigint := COALESCE(pg_sequence_last_value($regclass${{ schema }}.generation_at$regclass$), 0);
  v_bound_us  bigint := v_at_us - CASE WHEN v_is_past THEN 0 ELSE c_margin_us END;
  v_first     record;
BEGIN
  IF v_is_past OR p_is_due AND {{ schema }}._horizon_is_over(v_horizon) THEN
    SELECT COALESCE((SELECT true FROM {{ schema }}.message m WHERE m.status = 'READY' AND m.generation >= p_generation / 2 AND m.generation <= p_generation / 2
                      ORDER BY m.generation, m.lane LIMIT 1),
                    (SELECT true FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.generation >= p_generation / 2 AND w.generation <= p_generation / 2
                      ORDER BY w.generation, w.lane LIMIT 1), false) AS is_there,
           (SELECT m.timer_at FROM {{ schema }}.message m WHERE m.timer_at > v_floor AND m.timer_at <= v_now ORDER BY m.timer_at LIMIT 1) AS timer_at,
           (SELECT w.at FROM {{ schema }}.wake w WHERE w.at > v_floor AND w.at <= v_now ORDER BY w.at LIMIT 1) AS wake_at
      INTO v_first;
    IF NOT v_first.is_there THEN
      PERFORM {{ schema }}._generation_turn(p_generation, p_generation + 1, v_floor_us,
                -- The floor holds once it was found, unless the clock was set back since.
                LEAST(CASE WHEN v_at_us > v_floor_us THEN GREATEST(v_bound_us, v_floor_us + 1) ELSE v_bound_us END,
                      {{ schema }}._microseconds(LEAST(v_first.timer_at, v_first.wake_at, v_now))) - 1);
    END IF;
  ELSIF p_is_due THEN
    PERFORM {{ schema }}._generation_turn(p_generation, p_generation + 1, NULL, NULL);
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._generation_retire(bigint, boolean) IS
'Ends the older of two generations (p_generation is their sum) if nothing is in it and nothing can come; if p_is_due, also if something can.
To be called when nothing was seen in it, by a transaction that has changed nothing yet.';
