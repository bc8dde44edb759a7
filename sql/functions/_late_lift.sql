CREATE OR REPLACE FUNCTION {{ schema }}._late_lift(p_horizon bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- As in _generation_turn: if an older generation was ended at this moment, there is another horizon.
BEGIN
  IF pg_try_advisory_xact_lock($regclass${{ schema }}.generation$regclass$::regclass::oid::integer, 1) THEN
    IF pg_sequence_last_value($regclass${{ schema }}.late_horizon$regclass$) = p_horizon THEN
      PERFORM setval($regclass${{ schema }}.late_horizon$regclass$, 0);
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'PYUND';
  END IF;
EXCEPTION WHEN SQLSTATE 'PYUND' THEN
  NULL;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._late_lift(bigint) IS 'Sets late_horizon to 0 if it is p_horizon.';
