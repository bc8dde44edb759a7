CREATE OR REPLACE FUNCTION {{ schema }}._tend_carefully(p_messages boolean, p_timers boolean, p_wakes boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- What is done here stays invisible to others until the transaction ends, which may take an hour. So it is one thing, of a kind drawn by
-- lot so that no kind is put off for ever, and holds up one channel at the most.
DECLARE
  v_kinds  text[] := array_remove(ARRAY[CASE WHEN p_messages THEN 'message' END, CASE WHEN p_timers THEN 'timer' END, CASE WHEN p_wakes THEN 'wake' END], NULL);
  v_served bigint := COALESCE(pg_sequence_last_value($regclass${{ schema }}.wake_rotation$regclass$), 0);
  v_lane   bigint;
BEGIN
  CASE v_kinds[1 + floor(random() * cardinality(v_kinds))::integer]
  WHEN 'message' THEN
    PERFORM {{ schema }}._timers_expire(1, 0);
  WHEN 'timer' THEN
    PERFORM {{ schema }}._timers_expire(0, 1);
  ELSE
    FOR v_lane IN SELECT w.lane FROM {{ schema }}._wakes_next(v_served, 1) w LOOP
      PERFORM setval($regclass${{ schema }}.wake_rotation$regclass$, v_lane);
      PERFORM {{ schema }}._lane_tend(v_lane);
    END LOOP;
  END CASE;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._tend_carefully(boolean, boolean, boolean) IS
'As _tend, for a dequeue within a longer transaction: does one due thing. The arguments say of what kind there is any: messages or timers that are over, or due wakes.';
