CREATE OR REPLACE FUNCTION {{ schema }}._turns_due(p_after bigint, p_last bigint, p_window integer, p_taken_ids bigint[])
RETURNS TABLE (lane bigint, channel text, message_ids bigint[])
LANGUAGE plpgsql VOLATILE
AS $function$
-- Delays, locks and timers that are over are ordered by time, not by lane. Of those, the oldest p_window are looked at and, if there are more, as
-- many from a random place on, so that old ones that nobody can move (their channel is paused, say) do not hide the others for ever. Many may have
-- the same time: those of a batch.
DECLARE
  v_now     timestamptz := {{ schema }}._clock();
  v_message record;
  v_wake    record;
BEGIN
  SELECT NULL::timestamptz AS at, NULL::bigint AS id INTO v_message;
  SELECT NULL::timestamptz AS at, NULL::bigint AS lane INTO v_wake;
  IF (SELECT count(*) FROM (SELECT FROM {{ schema }}.message m WHERE m.timer_at <= v_now ORDER BY m.timer_at LIMIT p_window + 1) x) > p_window THEN
    SELECT l.timer_at AS at, f.id + floor(random() * (l.id - f.id + 1))::bigint AS id INTO v_message
      FROM (SELECT m.timer_at + random() * (v_now - m.timer_at) AS at FROM {{ schema }}.message m WHERE m.timer_at <= v_now ORDER BY m.timer_at LIMIT 1) r,
           LATERAL (SELECT m.timer_at, m.id FROM {{ schema }}.message m WHERE m.timer_at <= r.at ORDER BY m.timer_at DESC, m.id DESC LIMIT 1) l,
           LATERAL (SELECT m.id FROM {{ schema }}.message m WHERE m.timer_at = l.timer_at ORDER BY m.timer_at, m.id LIMIT 1) f;
  END IF;
  IF (SELECT count(*) FROM (SELECT FROM {{ schema }}.wake w WHERE w.at <= v_now ORDER BY w.at LIMIT p_window + 1) x) > p_window THEN
    SELECT l.at, (f.lane + floor(random()::numeric * (l.lane::numeric - f.lane + 1)))::bigint AS lane INTO v_wake
      FROM (SELECT w.at + random() * (v_now - w.at) AS at FROM {{ schema }}.wake w WHERE w.at <= v_now ORDER BY w.at LIMIT 1) r,
           LATERAL (SELECT w.at, w.lane FROM {{ schema }}.wake w WHERE w.at <= r.at ORDER BY w.at DESC, w.lane DESC LIMIT 1) l,
           LATERAL (SELECT w.lane FROM {{ schema }}.wake w WHERE w.at = l.at ORDER BY w.at, w.lane LIMIT 1) f;
  END IF;
  RETURN QUERY
  SELECT t.lane, t.channel, array_remove(array_agg(t.id), NULL)
    FROM ((SELECT m.id, m.lane, m.channel FROM {{ schema }}.message m
            WHERE m.timer_at <= v_now ORDER BY m.timer_at, m.id LIMIT p_window)
          UNION ALL
          (SELECT m.id, m.lane, m.channel FROM {{ schema }}.message m
            WHERE (m.timer_at, m.id) >= (v_message.at, v_message.id) AND m.timer_at <= v_now ORDER BY m.timer_at, m.id LIMIT p_window)
          UNION ALL
          (SELECT NULL, w.lane, w.channel FROM {{ schema }}.wake w
            WHERE w.at <= v_now ORDER BY w.at, w.lane LIMIT p_window)
          UNION ALL
          (SELECT NULL, w.lane, w.channel FROM {{ schema }}.wake w
            WHERE (w.at, w.lane) >= (v_wake.at, v_wake.lane) AND w.at <= v_now ORDER BY w.at, w.lane LIMIT p_window)
          UNION ALL
          (SELECT NULL, n.lane, n.channel FROM {{ schema }}._wakes_next(p_after, p_last, 10000) n)) t
   WHERE (t.lane <= p_after, t.lane) <= (p_last <= p_after, p_last) AND (t.id <> ALL (p_taken_ids)) IS NOT FALSE
   GROUP BY t.lane, t.channel
   ORDER BY t.lane <= p_after, t.lane, 2;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._turns_due(bigint, bigint, integer, bigint[]) IS
'The channels for which something is due, in rotation after the lane p_after and up to p_last (the same: all the way round), each with its messages whose delay or lock is over, as far as p_window shows them and without p_taken_ids.';
