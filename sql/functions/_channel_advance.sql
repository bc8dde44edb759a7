CREATE OR REPLACE FUNCTION {{ schema }}._channel_advance(p_lane bigint, p_channel text, p_released_at timestamptz)
RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- The one place that decides what of a channel becomes ready. It is level-triggered: it looks at what is, and keeps no count that could
-- drift. The caller holds the lane's mutex until the end of its transaction, and has removed the wakes that brought it here before.
--
-- Why nothing is forgotten: whoever changes something that matters here commits a wake with it. A wake that was removed was visible, so
-- its cause is visible to the statements below, which take their snapshots later; a wake that was not visible stays for the next time.
-- What is passed by because another transaction holds its row gets a timer, since that transaction may roll back and leave no trace.
--
-- Why limits are exact: only the holder of the mutex makes messages of a limited channel ready, and it sees all that earlier holders
-- committed. A message that slipped by (created before the policy was visible) is stopped by the dequeue that would take it.
DECLARE
  c_batch    CONSTANT integer  := 200;
  c_look     CONSTANT interval := interval '200 ms';
  v_now      timestamptz := {{ schema }}._clock();
  v_policy   {{ schema }}._policy_in_force;
  v_survey   record;
  v_versions bigint;
  v_allowed  integer := c_batch;
  v_count    integer;
  v_more     boolean := false;
  v_doubt    boolean := false;
BEGIN
  SELECT v.num, p.id, p.channel, p.max_concurrency, p.release_interval_ms
    INTO v_versions, v_policy.id, v_policy.channel, v_policy.max_concurrency, v_policy.release_interval_ms
    FROM (SELECT count(*) AS num FROM {{ schema }}.channel_policy x WHERE x.channel = p_channel) v
    LEFT JOIN LATERAL (SELECT x.* FROM {{ schema }}._policy_in_force x WHERE x.channel = p_channel) p ON true;
  IF v_versions > 1 THEN
    DELETE FROM {{ schema }}.channel_policy v
     WHERE v.channel = p_channel
       AND v.id < (SELECT max(x.id) FROM {{ schema }}.channel_policy x WHERE x.channel = p_channel);
  END IF;

  IF v_policy.id IS NOT NULL THEN
    v_survey := {{ schema }}._channel_survey(p_lane, v_policy, p_released_at, v_now);
    IF v_survey.num_expired > 0 OR v_survey.num_foreign > 0 OR v_survey.num_overtaking > 0 THEN
      UPDATE {{ schema }}.message m
         SET status = 'WAITING', policy_id = NULL, timer_at = NULL
       WHERE v_survey.num_expired > 0
         AND m.id = ANY (ARRAY (
               SELECT x.id FROM {{ schema }}.message x
                WHERE x.status = 'LOCKED' AND x.lane <> 0 AND x.lane = p_lane AND x.channel = p_channel AND x.unlock_at <= v_now
                LIMIT c_batch FOR NO KEY UPDATE SKIP LOCKED));
      IF v_survey.num_foreign > 0 THEN
        v_more := {{ schema }}._channel_withdraw(p_lane, v_policy, c_batch) = c_batch;
      END IF;
      -- As many as were overtaken make room for those that overtook them: the last ones of the order.
      UPDATE {{ schema }}.message m
         SET status = 'WAITING', policy_id = NULL
       WHERE v_survey.num_overtaking > 0
         AND m.id = ANY (ARRAY (
               SELECT x.id FROM {{ schema }}.message x
                WHERE x.status = 'READY' AND x.lane = p_lane AND x.channel = p_channel
                ORDER BY x.dequeue_at DESC, x.id DESC LIMIT v_survey.num_overtaking
                  FOR NO KEY UPDATE SKIP LOCKED));
      v_survey := {{ schema }}._channel_survey(p_lane, v_policy, p_released_at, v_now);
      -- Whoever ends a message of this channel does not see what was taken back until this transaction commits.
      v_doubt := v_policy.max_concurrency > 0;
    END IF;
    v_doubt := v_doubt OR v_survey.is_ending AND v_policy.max_concurrency IS DISTINCT FROM 0;
    v_allowed := v_survey.allowance;
    -- Kept even if nothing waits now: it is all that is known of the last release.
    IF v_survey.release_at > v_now THEN
      PERFORM {{ schema }}._timer_set(p_lane, p_channel, v_survey.release_at, v_survey.released_at);
    END IF;
  END IF;

  v_count := 0;
  IF v_allowed > 0 THEN
    UPDATE {{ schema }}.message m
       SET status = 'READY', policy_id = v_policy.id, timer_at = NULL
     WHERE m.id = ANY (ARRAY (
             SELECT x.id FROM {{ schema }}.message x
              WHERE x.status = 'WAITING' AND x.lane <> 0 AND x.lane = p_lane AND x.channel = p_channel AND x.dequeue_at <= v_now
              ORDER BY x.dequeue_at, x.id LIMIT v_allowed
                FOR NO KEY UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
  END IF;

  IF v_more OR v_count = c_batch THEN
    INSERT INTO {{ schema }}.wake (lane, channel) VALUES (p_lane, p_channel);
  ELSIF v_count < v_allowed OR v_doubt THEN
    -- A row was passed by, or the end of something that is out may have looked for a waiting message before this one waits (_place_freed).
    IF EXISTS (SELECT FROM {{ schema }}.message m
                WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel AND m.dequeue_at <= v_now) THEN
      PERFORM {{ schema }}._timer_set(p_lane, p_channel, v_now + c_look, NULL);
    END IF;
  END IF;
  RETURN v_count;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_advance(bigint, text, timestamptz) IS
'Makes ready what the channel''s policy allows now, at most 200 messages, and takes back what it does not allow; returns how many became ready.
p_released_at is the newest time of release among the wakes that the caller removed. The caller holds the lane''s mutex.';
