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
  v_asleep_ms  bigint := (v_now - COALESCE(pg_sequence_last_value($regclass${{ schema }}.sleeper_at$regclass$), 0)) / 1000;
BEGIN
  IF COALESCE((SELECT true FROM {{ schema }}.wake_up u WHERE u.sleeper >= pg_sequence_last_value($regclass${{ schema }}.sleeper$regclass$) LIMIT 1),
              pg_sequence_last_value($regclass${{ schema }}.sleeper$regclass$) IS NULL) THEN
    IF v_asleep_ms >= 0 AND v_asleep_ms < c_pause_ms THEN
      RETURN c_pause_ms - v_asleep_ms;
    END IF;
    PERFORM nextval($regclass${{ schema }}.sleeper$regclass$), setval($regclass${{ schema }}.sleeper_at$regclass$, v_now);
    v_asleep_ms := 0;
    DELETE FROM {{ schema }}.wake_up u
     WHERE u.ctid = ANY (ARRAY (SELECT x.ctid FROM {{ schema }}.wake_up x
                                 WHERE x.sleeper < pg_sequence_last_value($regclass${{ schema }}.sleeper$regclass$)
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
