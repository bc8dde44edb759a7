CREATE OR REPLACE FUNCTION {{ schema }}._tend_carefully()
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- What is done here stays invisible to others until the transaction ends, which may take an hour. So it is one thing, of a kind drawn by
-- lot so that no kind is put off for ever, and holds up one channel at the most.
DECLARE
  v_first integer := floor(random() * 3);
  v_lane  bigint;
  v_done  boolean := false;
BEGIN
  FOR i IN 0 .. 2 LOOP
    CASE (v_first + i) % 3
    WHEN 0 THEN
      v_done := ({{ schema }}._timers_expire(1, 0)).num_moved > 0;
    WHEN 1 THEN
      v_done := ({{ schema }}._timers_expire(0, 1)).num_moved > 0;
    ELSE
      FOR v_lane IN SELECT w.lane FROM {{ schema }}._wakes_next(1) w LOOP
        PERFORM setval($regclass${{ schema }}.wake_rotation$regclass$, v_lane);
        v_done := {{ schema }}._lane_tend(v_lane) IS NOT NULL;
      END LOOP;
    END CASE;
    EXIT WHEN v_done;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._tend_carefully() IS
'As _tend, for a dequeue within a longer transaction: does one due thing.';
