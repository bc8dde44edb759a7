CREATE OR REPLACE FUNCTION {{ schema }}._generation_turn(p_from bigint, p_to bigint, p_timer_floor bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- One session at a time, and for a moment only: the mutex goes with the subtransaction that took it, as in _channel_try_release, and what was set in
-- sequences stays. A doubt is said before what it is about: if the session dies in between, a doubt too many is left.
DECLARE
  c_unknown CONSTANT bigint := 9223372036854775807;
BEGIN
  IF pg_try_advisory_xact_lock($regclass${{ schema }}.generation$regclass$::regclass::oid::integer, 1)
     AND pg_sequence_last_value($regclass${{ schema }}.generation$regclass$) = p_from THEN
    IF p_timer_floor IS NOT NULL THEN
      PERFORM setval($regclass${{ schema }}.timer_floor$regclass$, p_timer_floor);
    ELSIF p_to % 2 <> 0 THEN
      PERFORM setval($regclass${{ schema }}.generation_horizon$regclass$, c_unknown);
    ELSE
      PERFORM setval($regclass${{ schema }}.late_horizon$regclass$, c_unknown);
    END IF;
    PERFORM setval($regclass${{ schema }}.generation$regclass$, p_to);
    IF p_to % 2 <> 0 THEN
      PERFORM setval($regclass${{ schema }}.generation_at$regclass$, {{ schema }}._microseconds({{ schema }}._clock()));
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'PYUND';
  END IF;
EXCEPTION WHEN SQLSTATE 'PYUND' THEN
  NULL;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._generation_turn(bigint, bigint, bigint) IS
'Sets generation to p_to if it is p_from: begins a younger one (p_to is odd), or ends the older one, or both (p_to is negative). Does nothing if another session does so at this moment.
p_timer_floor: nothing can come in the older one any more, nor a timer of this time or before, in microseconds since 1970; NULL unless that is known.';
