CREATE OR REPLACE FUNCTION {{ schema }}._horizons_draw()
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- A number drawn now is higher than that of any transaction that may have read the generation before it was changed. It is drawn when the mutex is ours, so
-- that the change and nothing else is what it follows. As in _generation_turn.
DECLARE
  c_unknown CONSTANT bigint := 9223372036854775807;
BEGIN
  IF pg_try_advisory_xact_lock($regclass${{ schema }}.generation$regclass$::regclass::oid::integer, 1) THEN
    IF pg_sequence_last_value($regclass${{ schema }}.generation_horizon$regclass$) = c_unknown THEN
      PERFORM setval($regclass${{ schema }}.generation_horizon$regclass$, pg_current_xact_id()::text::bigint);
    END IF;
    IF pg_sequence_last_value($regclass${{ schema }}.late_horizon$regclass$) = c_unknown THEN
      PERFORM setval($regclass${{ schema }}.late_horizon$regclass$, pg_current_xact_id()::text::bigint);
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'PYUND';
  END IF;
EXCEPTION WHEN SQLSTATE 'PYUND' THEN
  NULL;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._horizons_draw() IS
'Sets generation_horizon and late_horizon, if they are not known, to the number of the transaction under way, which must not have one yet.';
