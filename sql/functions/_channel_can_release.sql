CREATE OR REPLACE FUNCTION {{ schema }}._channel_can_release(p_lane bigint, p_channel text, p_now timestamptz, OUT can_release boolean, OUT release_at timestamptz)
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
    can_release := EXISTS (SELECT FROM {{ schema }}.message m
                           WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel AND m.dequeue_at <= p_now);
    RETURN;
  END IF;
  v_survey := {{ schema }}._channel_survey(p_lane, v_policy, NULL, p_now);
  IF v_survey.has_due OR v_survey.num_expired > 0 THEN
    can_release := v_survey.allowance > 0
                OR v_survey.num_expired > 0 AND v_policy.max_concurrency IS DISTINCT FROM 0 AND (v_survey.release_at > p_now) IS NOT TRUE;
    release_at := v_survey.release_at;
  ELSE
    can_release := false;
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_can_release(bigint, text, timestamptz) IS
'Whether advancing a channel would make a message ready, as far as can be told beforehand; and, if something waits for it, when the channel''s release interval ends.';
