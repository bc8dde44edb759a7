CREATE OR REPLACE FUNCTION {{ schema }}._turns_due(p_after bigint, p_last bigint, p_window integer)
RETURNS TABLE (lane bigint, channel text, message_ids bigint[])
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- Delays, locks and timers that are over are ordered by time, not by lane. Of those, the oldest p_window are looked at and as many from
-- a random time on, so that old ones that nobody can move (their channel is paused, say) do not hide the others for ever.
DECLARE
  v_now        timestamptz := {{ schema }}._clock();
  v_message_at timestamptz;
  v_wake_at    timestamptz;
BEGIN
  SELECT min(m.timer_at) + random() * (v_now - min(m.timer_at)) INTO v_message_at FROM {{ schema }}.message m WHERE m.timer_at <= v_now;
  SELECT min(w.at) + random() * (v_now - min(w.at)) INTO v_wake_at FROM {{ schema }}.wake w WHERE w.at <= v_now;
  RETURN QUERY
  SELECT t.lane, t.channel, array_remove(array_agg(t.id), NULL)
    FROM ((SELECT m.id, m.lane, m.channel FROM {{ schema }}.message m WHERE m.timer_at <= v_now ORDER BY m.timer_at LIMIT p_window)
          UNION ALL
          (SELECT m.id, m.lane, m.channel FROM {{ schema }}.message m WHERE m.timer_at BETWEEN v_message_at AND v_now ORDER BY m.timer_at LIMIT p_window)
          UNION ALL
          (SELECT NULL, w.lane, w.channel FROM {{ schema }}.wake w WHERE w.at <= v_now ORDER BY w.at LIMIT p_window)
          UNION ALL
          (SELECT NULL, w.lane, w.channel FROM {{ schema }}.wake w WHERE w.at BETWEEN v_wake_at AND v_now ORDER BY w.at LIMIT p_window)
          UNION ALL
          (SELECT NULL, n.lane, n.channel FROM {{ schema }}._wakes_next(p_after, p_last, 10000) n)) t
   WHERE (t.lane <= p_after, t.lane) <= (p_last <= p_after, p_last)
   GROUP BY t.lane, t.channel
   ORDER BY t.lane <= p_after, t.lane, t.channel;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._turns_due(bigint, bigint, integer) IS
'The channels for which something is due, in rotation after the lane p_after and up to p_last (the same: all the way round), each with its messages whose delay or lock is over, as far as p_window shows them.';
