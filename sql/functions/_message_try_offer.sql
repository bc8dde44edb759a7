CREATE OR REPLACE FUNCTION {{ schema }}._message_try_offer(p_lane bigint, p_channel text, p_over_ids bigint[], p_now timestamptz)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- As _channel_try_release, and not always so for the same reason.
DECLARE
  v_offered bigint;
BEGIN
  SELECT o.offered INTO v_offered FROM {{ schema }}._message_offer(p_lane, p_channel, p_over_ids, p_now) o;
  IF v_offered IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'PYUND';
  END IF;
  RETURN v_offered;
EXCEPTION WHEN SQLSTATE 'PYUND' THEN
  RETURN NULL;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._message_try_offer(bigint, text, bigint[], timestamptz) IS
'As _message_offer; but if nothing is offered all is undone, the mutex included: the transaction may stay open, and a policy that the channel gets would wait for it.';
