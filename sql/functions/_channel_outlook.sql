CREATE OR REPLACE FUNCTION {{ schema }}._channel_outlook(
  p_lane bigint, p_channel text, p_now timestamptz,
  OUT num_allowed integer, OUT num_locked integer, OUT locked_at timestamptz, OUT unlock_at timestamptz, OUT release_at timestamptz,
  OUT max_concurrency integer, OUT release_interval_ms bigint)
LANGUAGE plpgsql VOLATILE
AS $function$
-- The same survey that decides in a dequeue, so that what is told is what will be done. It only reads.
DECLARE
  c_most   CONSTANT integer := 100;
  -- Of locks that are over more are needed than are told of: each makes room.
  c_over   CONSTANT integer := 1000;
  v_policy {{ schema }}._policy_in_force;
  v_survey record;
BEGIN
  num_allowed := 2147483647;
  IF p_lane = 0 THEN
    RETURN;
  END IF;
  SELECT count(*), min(l.locked_at), min(l.unlock_at) INTO num_locked, locked_at, unlock_at
    FROM (SELECT m.locked_at, m.unlock_at FROM {{ schema }}.message m
           WHERE m.status = 'LOCKED' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel AND m.unlock_at > p_now LIMIT c_most) l;
  SELECT p.* INTO v_policy FROM {{ schema }}._policy_in_force p WHERE p.channel = p_channel;
  IF v_policy.id IS NULL THEN
    RETURN;
  END IF;
  max_concurrency := v_policy.max_concurrency;
  release_interval_ms := v_policy.release_interval_ms;
  v_survey := {{ schema }}._channel_survey(p_lane, v_policy, NULL, p_now, ARRAY (
    SELECT m.id FROM {{ schema }}.message m
     WHERE m.status = 'LOCKED' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel AND m.unlock_at <= p_now LIMIT c_over));
  num_allowed := GREATEST(LEAST(v_survey.room + cardinality(v_survey.ready_ids) + cardinality(v_survey.over_ids), 2147483647), 0);
  IF release_interval_ms > 0 THEN
    release_at := v_survey.release_at;
    num_allowed := CASE WHEN release_at > p_now THEN 0 ELSE LEAST(num_allowed, 1) END;
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_outlook(bigint, text, timestamptz) IS
'How many messages of a channel its policy would let a dequeue have at p_now, if they are due, and what holds back the others.
num_locked, locked_at, unlock_at: how many are locked, 100 if it is more, since when, and until when the first of them; release_at: when the release interval ends.';
