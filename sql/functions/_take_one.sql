CREATE OR REPLACE FUNCTION {{ schema }}._take_one(p_served bigint, p_lane bigint, p_id bigint, p_lock_ms bigint)
RETURNS {{ schema }}._taken
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
  v_now     timestamptz;
  v_held    record;
  v_policy  record;
  v_message {{ schema }}._taken;
BEGIN
  IF p_id IS NOT NULL THEN
    SELECT m.ctid, m.lane, m.channel, m.policy_id, m.unlock_at INTO v_held
      FROM {{ schema }}.message m
     WHERE m.id = p_id AND m.status::text = 'READY'
       FOR NO KEY UPDATE SKIP LOCKED;
  ELSE
    SELECT m.ctid, m.lane, m.channel, m.policy_id, m.unlock_at INTO v_held
      FROM {{ schema }}.message m
     WHERE m.status = 'READY' AND m.lane = p_lane
       -- What the policy did not release stays untouched behind what others hold: the caller may go on to many lanes, and stay open.
       AND (m.lane = 0 OR COALESCE((SELECT p.cleared OR p.id IS NOT DISTINCT FROM m.policy_id
                                      FROM {{ schema }}.channel_policy p WHERE p.channel = m.channel ORDER BY p.id DESC LIMIT 1), true))
     ORDER BY m.dequeue_at, m.id LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED;
  END IF;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;

  IF v_held.lane <> 0 THEN
    -- The policy is looked at when the message is already ours: whatever was in flight when it was set, it binds from here on.
    SELECT p.id, p.cleared, p.release_interval_ms INTO v_policy
      FROM {{ schema }}.channel_policy p WHERE p.channel = v_held.channel ORDER BY p.id DESC LIMIT 1;
    IF NOT v_policy.cleared AND v_held.policy_id IS DISTINCT FROM v_policy.id THEN
      -- It was not released by this one. The wake has it put back.
      INSERT INTO {{ schema }}.wake (lane, channel) VALUES (v_held.lane, v_held.channel);
      RETURN NULL;
    END IF;
  END IF;

  -- The clock is read now that the row is held: with an older time, locks would overlap and intervals be short.
  v_now := {{ schema }}._clock();
  UPDATE {{ schema }}.message m
     SET status = 'LOCKED', num_attempts = m.num_attempts + 1, locked_at = v_now,
         lock_ms = COALESCE(p_lock_ms, m.lock_ms),
         unlock_at = v_now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms',
         timer_at = v_now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms'
   -- It is held, so it stays where it is.
   WHERE m.ctid = v_held.ctid
  RETURNING 'MESSAGE_DEQUEUED'::{{ schema }}.dequeue_result, m.id, {{ schema }}._channel_name(m.channel, m.id, m.created_at), m.content, m.state, m.num_attempts,
            v_held.unlock_at IS NOT NULL, m.unlock_at, NULL::bigint
       INTO v_message;
  IF v_held.lane <> p_served THEN
    PERFORM setval($regclass${{ schema }}.rotation$regclass$, v_held.lane);
  END IF;
  IF v_held.lane <> 0 THEN
    IF NOT v_policy.cleared AND v_policy.release_interval_ms > 0 THEN
      INSERT INTO {{ schema }}.wake (lane, channel, at, released_at)
      VALUES (v_held.lane, v_held.channel, v_now + v_policy.release_interval_ms * interval '1 ms', v_now);
    END IF;
  END IF;
  RETURN v_message;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._take_one(bigint, bigint, bigint, bigint) IS
'Locks a message and returns it: p_id if it is given, else the first ready one of p_lane. NULL if there is none, or if the channel''s policy did not release it.
p_served is the lane served last, p_lock_ms replaces the message''s own lock time unless NULL.';
