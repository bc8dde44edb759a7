CREATE OR REPLACE FUNCTION {{ schema }}._channel_can_release(p_lane bigint, p_channel text, p_now timestamptz)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- Asked without the mutex, so others may change it meanwhile: good for deciding where to try, not for releasing.
DECLARE
  v_policy {{ schema }}._policy_in_force;
  v_survey record;
BEGIN
  SELECT p.* INTO v_policy FROM {{ schema }}._policy_in_force p WHERE p.channel = p_channel;
  IF NOT FOUND THEN
    RETURN EXISTS (SELECT FROM {{ schema }}.message m
                    WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel AND m.dequeue_at <= p_now);
  END IF;
  v_survey := {{ schema }}._channel_survey(p_lane, v_policy, NULL, p_now);
  RETURN (v_survey.has_due OR v_survey.num_expired > 0)
     AND (v_survey.allowance > 0 OR v_survey.num_expired > 0 AND v_policy.max_concurrency IS DISTINCT FROM 0);
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_can_release(bigint, text, timestamptz) IS
'Whether advancing a channel would make a message ready, as far as can be told beforehand.';
