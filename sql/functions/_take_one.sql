CREATE OR REPLACE FUNCTION {{ schema }}._take_one(p_after bigint, p_last bigint, p_id bigint, p_lock_ms bigint, OUT lane bigint, OUT message {{ schema }}.dequeued)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  v_now    timestamptz;
  v_next   record;
  v_policy {{ schema }}._policy_in_force;
BEGIN
  IF p_id IS NULL THEN
    -- Looked at before anything is held: what the policy in force did not release stays as it is. If the first is of that kind, so may be many.
    SELECT h.*, f.is_foreign, f.lane AS first_lane, f.channel AS first_channel INTO v_next
      FROM (SELECT m.lane, m.channel,
                   m.lane <> 0 AND COALESCE((SELECT p.id IS DISTINCT FROM m.policy_id FROM {{ schema }}._policy_in_force p WHERE p.channel = m.channel LIMIT 1), false) AS is_foreign
              FROM {{ schema }}.message m
             WHERE m.status = 'READY' AND m.lane > p_after AND m.lane <= p_last
             ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1) f
      LEFT JOIN LATERAL (
           SELECT m.id, m.lane, m.channel, m.policy_id, m.unlock_at
             FROM {{ schema }}.message m
            WHERE NOT f.is_foreign AND m.status = 'READY' AND m.lane > p_after AND m.lane <= p_last
              AND (m.lane = 0 OR COALESCE((SELECT p.id IS NOT DISTINCT FROM m.policy_id FROM {{ schema }}._policy_in_force p WHERE p.channel = m.channel LIMIT 1), true))
            ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1
              FOR NO KEY UPDATE SKIP LOCKED) h ON true;
  ELSE
    SELECT m.id, m.lane, m.channel, m.policy_id, m.unlock_at, false AS is_foreign, m.lane AS first_lane, m.channel AS first_channel INTO v_next
      FROM {{ schema }}.message m
     WHERE m.status = 'READY' AND m.id = p_id
       FOR NO KEY UPDATE SKIP LOCKED;
  END IF;
  IF v_next.is_foreign THEN
    -- The wake has it put back.
    INSERT INTO {{ schema }}.wake (lane, channel) VALUES (v_next.first_lane, v_next.first_channel);
    lane := v_next.first_lane;
    RETURN;
  END IF;
  IF v_next.id IS NULL THEN
    RETURN;
  END IF;
  lane := v_next.lane;

  -- The policy is looked at when the message is already ours: whatever was in flight when it was set, it binds from here on.
  IF v_next.lane <> 0 THEN
    SELECT p.* INTO v_policy FROM {{ schema }}._policy_in_force p WHERE p.channel = v_next.channel;
    IF FOUND AND v_next.policy_id IS DISTINCT FROM v_policy.id THEN
      -- It was not, a moment ago.
      INSERT INTO {{ schema }}.wake (lane, channel) VALUES (v_next.lane, v_next.channel);
      RETURN;
    END IF;
  END IF;

  -- The clock is read now that the row is held: with an older time, locks would overlap and intervals be short.
  v_now := {{ schema }}._clock();
  UPDATE {{ schema }}.message m
     SET status = 'LOCKED', num_attempts = m.num_attempts + 1, locked_at = v_now,
         lock_ms = COALESCE(p_lock_ms, m.lock_ms),
         unlock_at = v_now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms',
         timer_at = v_now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms'
   WHERE m.id = v_next.id
  RETURNING 'MESSAGE_DEQUEUED'::{{ schema }}.dequeue_result, m.id, m.channel, m.content, m.state, m.num_attempts, v_next.unlock_at IS NOT NULL, m.unlock_at, NULL::bigint
       INTO message;
  IF v_policy.release_interval_ms > 0 THEN
    INSERT INTO {{ schema }}.wake (lane, channel, at, released_at)
    VALUES (v_next.lane, v_next.channel, v_now + v_policy.release_interval_ms * interval '1 ms', v_now);
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._take_one(bigint, bigint, bigint, bigint) IS
'Locks a message and returns it: the first ready one of the first lane after p_after and up to p_last that has one to be had, or if it is given p_id.
p_lock_ms replaces the message''s own lock time unless NULL. lane without a message: the first of that lane is not released by the policy in force.';
