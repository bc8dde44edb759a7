CREATE OR REPLACE FUNCTION {{ schema }}._num_due(p_lane bigint, p_channel text, p_now timestamptz, p_before_at timestamptz, p_before_id bigint, p_most integer)
RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
  -- What is due is READY, or WAITING, or was, and its delay or lock is over. Without a channel there is no index of what waits: then of
  -- all that is over a thousand are looked at.
  RETURN LEAST(p_most, (
    SELECT count(*)
      FROM ((SELECT FROM {{ schema }}.message m
              WHERE m.status = 'READY' AND m.lane = p_lane AND (p_lane = 0 OR m.channel = p_channel)
                AND (m.dequeue_at, m.id) < (p_before_at, p_before_id) LIMIT p_most)
            UNION ALL
            (SELECT FROM {{ schema }}.message m
              WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel AND m.dequeue_at <= p_now
                AND (m.dequeue_at, m.id) < (p_before_at, p_before_id) LIMIT p_most)
            UNION ALL
            (SELECT FROM {{ schema }}.message m
              WHERE m.status = 'LOCKED' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel AND m.unlock_at <= p_now
                AND (m.dequeue_at, m.id) < (p_before_at, p_before_id) LIMIT p_most)
            UNION ALL
            (SELECT FROM (SELECT x.lane, x.dequeue_at, x.id FROM {{ schema }}.message x WHERE p_lane = 0 AND x.timer_at <= p_now ORDER BY x.timer_at LIMIT 1000) m
              WHERE m.lane = 0 AND (m.dequeue_at, m.id) < (p_before_at, p_before_id))) d));
END
$function$;
COMMENT ON FUNCTION {{ schema }}._num_due(bigint, text, timestamptz, timestamptz, bigint, integer) IS
'How many messages of a channel are due at p_now and not locked, and sort before (p_before_at, p_before_id); p_most if it is more.';
