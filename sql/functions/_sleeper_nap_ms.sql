CREATE OR REPLACE FUNCTION {{ schema }}._sleeper_nap_ms()
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- Called by a dequeue that has found nothing. Its number, drawn from a sequence, is seen by all at once: whoever looks at it later wakes it. Whoever
-- looked at it earlier and has not committed yet holds the shared lock, or has committed and is seen by one more look after this.
DECLARE
  -- c_pause: new numbers are not drawn more often, and so nobody notifies more often.
  c_pause_ms   CONSTANT bigint := 10;
  c_longest_ms CONSTANT bigint := 1000;
  v_now        bigint := {{ schema }}._microseconds({{ schema }}._clock());
  v_sleeper    bigint := pg_sequence_last_value($regclass${{ schema }}.sleeper$regclass$);
  v_is_woken   boolean;
  v_asleep_ms  bigint;
BEGIN
  v_is_woken := v_sleeper IS NULL OR COALESCE((SELECT true FROM {{ schema }}.wake_up u WHERE u.sleeper >= v_sleeper LIMIT 1), false);
  -- Set before a number is drawn, and read after it was: never older than it.
  v_asleep_ms := (v_now - COALESCE(pg_sequence_last_value($regclass${{ schema }}.sleeper_at$regclass$), 0)) / 1000;
  IF v_is_woken THEN
    IF v_asleep_ms >= 0 AND v_asleep_ms < c_pause_ms THEN
      RETURN c_pause_ms - v_asleep_ms;
    END IF;
    PERFORM setval($regclass${{ schema }}.sleeper_at$regclass$, v_now);
    v_sleeper := nextval($regclass${{ schema }}.sleeper$regclass$);
    v_asleep_ms := 0;
    -- Of the last thousand, so that it does not step over all that an old snapshot keeps; now and then of all.
    DELETE FROM {{ schema }}.wake_up u
     WHERE u.ctid = ANY (ARRAY (SELECT x.ctid FROM {{ schema }}.wake_up x
                                 WHERE x.sleeper >= CASE WHEN v_sleeper % 1000 = 0 THEN 0 ELSE v_sleeper - 1000 END AND x.sleeper < v_sleeper
                                 ORDER BY x.sleeper LIMIT 1000 FOR UPDATE SKIP LOCKED));
  END IF;

  -- Undone at once, as in _channel_try_release: with this lock left, nobody else could be let sleep.
  BEGIN
    IF pg_try_advisory_xact_lock($regclass${{ schema }}.wake_up$regclass$::regclass::oid::integer, 0) THEN
      RAISE EXCEPTION USING ERRCODE = 'PYUND';
    END IF;
  EXCEPTION WHEN SQLSTATE 'PYUND' THEN
    RETURN NULL;
  END;
  -- Those on their way looked before the last one fell asleep. The longer ago that is, the longer they may yet take.
  RETURN LEAST(GREATEST(v_asleep_ms, c_pause_ms), c_longest_ms);
END
$function$;
COMMENT ON FUNCTION {{ schema }}._sleeper_nap_ms() IS
'NULL if a worker may sleep, once it has looked one more time, until it is woken: on _wake_channel, to which it has to LISTEN already. Else after how many milliseconds it has to look again, at most 1000.';
