CREATE OR REPLACE FUNCTION {{ schema }}._lanes_ahead(p_lane bigint, p_now timestamptz)
RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $function$
-- The lanes that a dequeue would come to: those with something ready, and those with something due, of which it would look which may be had.
DECLARE
  c_most   CONSTANT integer := 20;
  c_due    CONSTANT integer := 5;
  c_timers CONSTANT integer := 300;
  v_served bigint := COALESCE(pg_sequence_last_value($regclass${{ schema }}.rotation$regclass$), 0);
  v_count  integer := 0;
  v_turn   record;
  v_lane   bigint;
  v_looks  integer := 0;
BEGIN
  FOR v_turn IN
    SELECT t.lane, t.channel, bool_or(t.is_ready) AS is_ready
      FROM (SELECT f.lane, f.channel,
                   COALESCE((SELECT p.cleared OR p.id IS NOT DISTINCT FROM f.policy_id FROM {{ schema }}.channel_policy p
                              WHERE p.channel = f.channel AND f.lane <> 0 ORDER BY p.id DESC LIMIT 1), true) AS is_ready
              FROM {{ schema }}._lanes_next(v_served, c_most + 1, NULL) AS n (lane), LATERAL (
                   SELECT m.lane, m.channel, m.policy_id FROM {{ schema }}.message m
                    WHERE m.status = 'READY' AND m.lane = n.lane ORDER BY m.dequeue_at, m.id LIMIT 1) f
            UNION ALL
            (SELECT w.lane, w.channel, false FROM {{ schema }}._wakes_next(v_served, v_served, c_most) w)
            UNION ALL
            (SELECT m.lane, m.channel, false FROM {{ schema }}.message m WHERE m.timer_at <= p_now ORDER BY m.timer_at LIMIT c_timers)
            UNION ALL
            (SELECT w.lane, w.channel, false FROM {{ schema }}.wake w WHERE w.at <= p_now ORDER BY w.at LIMIT c_timers)) t
     WHERE (t.lane <= v_served, t.lane) < (p_lane <= v_served, p_lane)
     GROUP BY t.lane, t.channel
     ORDER BY t.lane, 3 DESC
  LOOP
    CONTINUE WHEN v_turn.lane = v_lane;
    IF NOT v_turn.is_ready THEN
      v_looks := v_looks + 1;
      CONTINUE WHEN v_looks > c_due
                 OR (SELECT o.num_allowed FROM {{ schema }}._channel_outlook(v_turn.lane, v_turn.channel, p_now) o) = 0
                 OR {{ schema }}._num_due(v_turn.lane, v_turn.channel, p_now, 'infinity', 0, 1) = 0;
    END IF;
    v_count := v_count + 1;
    v_lane := v_turn.lane;
    EXIT WHEN v_count = c_most;
  END LOOP;
  RETURN v_count;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._lanes_ahead(bigint, timestamptz) IS
'How many lanes have a message that can be had at p_now, and their turn before p_lane; 20 if it is more, and of those in which nothing is ready yet five are looked at.';
