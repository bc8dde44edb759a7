CREATE OR REPLACE FUNCTION {{ schema }}._take_one(p_served bigint, p_lock_ms bigint, p_max_withdrawn integer)
RETURNS {{ schema }}.dequeued
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  c_first  CONSTANT bigint := -9223372036854775808;
  c_last   CONSTANT bigint := 9223372036854775807;
  v_from   bigint;
  v_now    timestamptz;
  v_next   record;
  v_policy {{ schema }}._policy_in_force;
  v_row    {{ schema }}.dequeued;
BEGIN
  LOOP
    v_from := CASE WHEN p_served = c_last THEN c_first ELSE p_served + 1 END;
    LOOP
      SELECT m.id, m.lane, m.channel, m.policy_id, m.unlock_at INTO v_next
        FROM {{ schema }}.message m
       WHERE m.status = 'READY' AND m.lane >= v_from
       ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1
         FOR NO KEY UPDATE SKIP LOCKED;
      EXIT WHEN FOUND OR v_from = c_first;
      v_from := c_first;
    END LOOP;
    IF NOT FOUND THEN
      RETURN NULL;
    END IF;

    -- The policy is looked at when the message is already ours: whatever was in flight when it was set, it binds from here on.
    v_policy := NULL;
    IF v_next.lane <> 0 THEN
      SELECT p.* INTO v_policy FROM {{ schema }}._policy_in_force p WHERE p.channel = v_next.channel;
      IF FOUND AND v_next.policy_id IS DISTINCT FROM v_policy.id THEN
        PERFORM {{ schema }}._channel_withdraw(v_next.lane, v_policy, p_max_withdrawn);
        INSERT INTO {{ schema }}.wake (lane, channel) VALUES (v_next.lane, v_next.channel);
        CONTINUE;
      END IF;
    END IF;

    IF v_next.lane <> p_served THEN
      PERFORM setval($regclass${{ schema }}.rotation$regclass$, v_next.lane);
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
         INTO v_row;
    IF v_policy.release_interval_ms > 0 THEN
      INSERT INTO {{ schema }}.wake (lane, channel, at, released_at)
      VALUES (v_next.lane, v_next.channel, v_now + v_policy.release_interval_ms * interval '1 ms', v_now);
    END IF;
    RETURN v_row;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._take_one(bigint, bigint, integer) IS
'Locks the first ready message of the next lane in rotation after p_served and returns it, NULL if none is to be had.
p_lock_ms replaces the message''s own lock time unless NULL; p_max_withdrawn is how many messages of a channel go back to waiting if one is met that the policy in force did not release.';
