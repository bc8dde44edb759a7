CREATE OR REPLACE FUNCTION {{ schema }}._seek_carefully()
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- Looks before it takes a mutex or touches a row, and touches only what will give the caller a message to take: the transaction may stay
-- open, and everything touched here stands still until it ends.
DECLARE
  v_served    bigint := COALESCE(pg_sequence_last_value($regclass${{ schema }}.wake_rotation$regclass$), 0);
  v_now       timestamptz := {{ schema }}._clock();
  v_candidate record;
BEGIN
  FOR v_candidate IN
    (SELECT m.id, m.lane, m.channel FROM {{ schema }}.message m WHERE m.timer_at <= v_now ORDER BY m.timer_at LIMIT 100)
    UNION ALL
    (SELECT NULL, w.lane, w.channel FROM {{ schema }}.wake w WHERE w.at <= v_now ORDER BY w.at LIMIT 100)
    UNION ALL
    (SELECT NULL, w.lane, w.channel FROM {{ schema }}._wakes_next(v_served, 1000) w
      WHERE EXISTS (SELECT FROM {{ schema }}.message m WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = w.lane AND m.dequeue_at <= v_now))
  LOOP
    IF v_candidate.id IS NOT NULL
       AND NOT (v_candidate.lane <> 0 AND EXISTS (SELECT FROM {{ schema }}._policy_in_force p WHERE p.channel = v_candidate.channel)) THEN
      UPDATE {{ schema }}.message m
         SET status = 'READY', policy_id = NULL, timer_at = NULL
       WHERE m.id = ANY (ARRAY (
               SELECT x.id FROM {{ schema }}.message x
                WHERE x.id = v_candidate.id AND x.timer_at <= v_now
                  FOR NO KEY UPDATE SKIP LOCKED));
      IF FOUND THEN
        RETURN true;
      END IF;
      CONTINUE;
    END IF;

    CONTINUE WHEN NOT {{ schema }}._channel_can_release(v_candidate.lane, v_candidate.channel, v_now);
    IF {{ schema }}._lane_tend(v_candidate.lane, v_candidate.channel) > 0 THEN
      PERFORM setval($regclass${{ schema }}.wake_rotation$regclass$, v_candidate.lane);
      RETURN true;
    END IF;
  END LOOP;
  RETURN false;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._seek_carefully() IS
'For a dequeue within a longer transaction that found nothing ready: does the first due thing that makes a message ready; returns whether there was one.
It looks at the first 100 messages and 100 timers that are over, and at 1000 lanes with due wakes.';
