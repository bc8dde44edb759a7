CREATE OR REPLACE FUNCTION {{ schema }}._generation_turn(p_from bigint, p_to bigint, p_floor_seen bigint, p_floor bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- One session at a time, and for a moment only: the mutex goes with the subtransaction that took it, as in _channel_try_release, and what was set in
-- sequences stays. A doubt is said before what it is about: if the session dies in between, a doubt too many is left.
DECLARE
  c_unknown    CONSTANT bigint := 9223372036854775807;
  v_generation bigint;
BEGIN
  IF pg_try_advisory_xact_lock($regclass${{ schema }}.generation$regclass$::regclass::oid::integer, 1) THEN
    v_generation := COALESCE(pg_sequence_last_value($regclass${{ schema }}.generation$regclass$), 0);
    IF p_to IS NULL AND v_generation > 0 THEN
      PERFORM setval($regclass${{ schema }}.late_horizon$regclass$, c_unknown);
      PERFORM setval($regclass${{ schema }}.generation$regclass$, - v_generation);
    ELSIF p_to IS NULL OR v_generation <> p_from THEN
      NULL;
    ELSIF p_to % 2 <> 0 THEN
      PERFORM setval($regclass${{ schema }}.generation_horizon$regclass$, c_unknown);
      PERFORM setval($regclass${{ schema }}.generation$regclass$, p_to);
      PERFORM setval($regclass${{ schema }}.generation_at$regclass$, {{ schema }}._microseconds({{ schema }}._clock()));
    ELSIF p_floor IS NULL THEN
      PERFORM setval($regclass${{ schema }}.late_horizon$regclass$, c_unknown);
      IF p_from <= 0 THEN
        PERFORM setval($regclass${{ schema }}.timer_floor$regclass$, 0);
      END IF;
      PERFORM setval($regclass${{ schema }}.generation$regclass$, p_to);
    ELSIF COALESCE(pg_sequence_last_value($regclass${{ schema }}.timer_floor$regclass$), 0) = p_floor_seen THEN
      PERFORM setval($regclass${{ schema }}.timer_floor$regclass$, p_floor);
      PERFORM setval($regclass${{ schema }}.generation$regclass$, p_to);
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'PYUND';
  END IF;
EXCEPTION WHEN SQLSTATE 'PYUND' THEN
  NULL;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._generation_turn(bigint, bigint, bigint, bigint) IS
'Sets generation to p_to if it is p_from: has the first one begin, or a younger one (p_to is odd), or the older one end. With p_to NULL it ends with generations. Does nothing if another session does any of this at the same moment.
p_floor, in microseconds since 1970: nothing can come in the older one any more, nor a timer of this time or before, and timer_floor was p_floor_seen when that was found out; NULL unless it was.';
