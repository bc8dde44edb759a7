CREATE OR REPLACE FUNCTION {{ schema }}._tend(p_budget integer, p_seek boolean, OUT num_ready integer, OUT num_moved integer)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- For a dequeue that is a transaction of its own: what is done here is committed, and so seen by others, at once.
DECLARE
  v_served bigint := COALESCE(pg_sequence_last_value($regclass${{ schema }}.wake_rotation$regclass$), 0);
  v_timers record;
  v_lane   bigint;
  v_count  integer;
BEGIN
  v_timers := {{ schema }}._timers_expire(p_budget * 4, p_budget * 4);
  num_ready := v_timers.num_ready;
  num_moved := v_timers.num_moved;
  IF p_seek AND num_ready > 0 THEN
    RETURN;
  END IF;
  FOR v_lane IN SELECT w.lane FROM {{ schema }}._wakes_next(v_served, p_budget) w LOOP
    PERFORM setval($regclass${{ schema }}.wake_rotation$regclass$, v_lane);
    v_count := {{ schema }}._lane_tend(v_lane);
    CONTINUE WHEN v_count IS NULL;
    num_moved := num_moved + 1;
    num_ready := num_ready + v_count;
    EXIT WHEN p_seek AND num_ready > 0;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._tend(integer, boolean) IS
'Does what has become due: expired delays, locks and timers (at most four times p_budget of each), then the wakes of p_budget lanes in rotation. With p_seek it stops at the first thing that makes a message ready.
Returns how many messages became ready, and how many messages, timers and lanes were moved.';
