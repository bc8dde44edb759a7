CREATE OR REPLACE FUNCTION {{ schema }}._channel_try_release(p_lane bigint, p_channel text, p_over_ids bigint[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- Not always so, since what a subtransaction has changed costs a multixact when the transaction changes it again. PYUND ("undo") is an SQLSTATE
-- of the queue's own: it rolls a subtransaction back, and never leaves the function that raises it.
DECLARE
  v_released bigint;
BEGIN
  v_released := {{ schema }}._channel_release(p_lane, p_channel, p_over_ids);
  IF v_released IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'PYUND';
  END IF;
  RETURN v_released;
EXCEPTION WHEN SQLSTATE 'PYUND' THEN
  RETURN NULL;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_try_release(bigint, text, bigint[]) IS
'As _channel_release; but if nothing is released all is undone, the mutex included: the transaction may stay open, and would hold up a channel of which it has nothing.';
