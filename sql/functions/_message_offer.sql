CREATE OR REPLACE FUNCTION {{ schema }}._message_offer(p_lane bigint, p_channel text, p_over_ids bigint[], p_now timestamptz, OUT offered bigint, OUT is_busy boolean)
LANGUAGE plpgsql VOLATILE
AS $function$
-- One after the other in the order of the channel, each after those that are ready and sort before it. What others hold is passed by.
DECLARE
  v_due record;
BEGIN
  is_busy := false;
  FOR v_due IN
    SELECT m.dequeue_at, m.id
      FROM unnest(p_over_ids) AS u (id), LATERAL (
        SELECT x.id, x.dequeue_at FROM {{ schema }}.message x WHERE x.id = u.id AND COALESCE(x.timer_at, 'infinity') <= p_now LIMIT 1) m
    UNION
    -- One without a timer was due once, and is early only because the clock was set back.
    SELECT m.dequeue_at, m.id
      FROM (SELECT x.id, x.dequeue_at, x.timer_at FROM {{ schema }}.message x
             WHERE x.status = 'WAITING' AND x.lane <> 0 AND x.lane = p_lane AND x.channel = p_channel
             ORDER BY x.dequeue_at, x.id LIMIT 100) m
     WHERE m.timer_at IS NULL OR m.timer_at <= p_now
     ORDER BY 1, 2
  LOOP
    is_busy := true;
    -- Shared by all who take without a policy: whoever acts on a policy that is set now has to know what was taken before.
    IF p_lane <> 0 AND NOT pg_try_advisory_xact_lock_shared($regclass${{ schema }}.wake$regclass$::regclass::oid::integer, hashint8(p_lane)) THEN
      RETURN;
    END IF;
    SELECT m.id INTO offered FROM {{ schema }}.message m
     WHERE m.status = 'READY' AND m.lane = p_lane AND (p_lane = 0 OR m.channel = p_channel)
       AND (m.dequeue_at, m.id) < (v_due.dequeue_at, v_due.id)
     ORDER BY m.dequeue_at, m.id LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
      RETURN;
    END IF;
    UPDATE {{ schema }}.message m
       SET status = 'READY', policy_id = NULL, timer_at = NULL, generation = DEFAULT
     WHERE m.id = ANY (ARRAY (
             SELECT x.id FROM {{ schema }}.message x
              WHERE x.id = v_due.id AND (x.timer_at <= p_now OR x.status = 'WAITING' AND x.timer_at IS NULL)
                FOR NO KEY UPDATE SKIP LOCKED))
    RETURNING m.id INTO offered;
    IF FOUND THEN
      RETURN;
    END IF;
  END LOOP;

  -- All of the first hundred that wait are in others' hands, perhaps those of one batch. The shared lock was taken above.
  IF is_busy AND p_lane <> 0 THEN
    UPDATE {{ schema }}.message m
       SET status = 'READY', policy_id = NULL, timer_at = NULL, generation = DEFAULT
     WHERE m.id = ANY (ARRAY (
             SELECT x.id FROM {{ schema }}.message x
              WHERE x.status = 'WAITING' AND x.lane <> 0 AND x.lane = p_lane AND x.channel = p_channel AND x.dequeue_at <= p_now
              ORDER BY x.dequeue_at, x.id LIMIT 1
                FOR NO KEY UPDATE SKIP LOCKED))
    RETURNING m.id INTO offered;
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._message_offer(bigint, text, bigint[], timestamptz) IS
'As _channel_offer, for a channel without a policy or the messages without a channel. is_busy: something is due; if nothing is offered it is in another transaction''s hands.';
