CREATE OR REPLACE FUNCTION {{ schema }}._seek_carefully(OUT is_ready boolean, OUT is_busy boolean, OUT release_at timestamptz)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- Looks before it takes a mutex or touches a row, so as to touch only what gives the caller a message to take: the transaction may stay
-- open, and everything touched here stands still until it ends. Where the look was wrong, the mutex stays taken all the same.
DECLARE
  v_served    bigint := COALESCE(pg_sequence_last_value($regclass${{ schema }}.wake_rotation$regclass$), 0);
  v_now       timestamptz := {{ schema }}._clock();
  v_candidate record;
  v_hope      record;
  v_count     integer;
  v_barren    bigint[] := '{}'::bigint[];
BEGIN
  is_ready := false;
  is_busy := false;
  FOR v_candidate IN
    (SELECT m.id, m.lane, m.channel FROM {{ schema }}.message m WHERE m.timer_at <= v_now ORDER BY m.timer_at LIMIT 10000)
    UNION ALL
    (SELECT NULL, w.lane, w.channel FROM {{ schema }}.wake w WHERE w.at <= v_now ORDER BY w.at LIMIT 10000)
    UNION ALL
    (SELECT NULL, w.lane, w.channel FROM {{ schema }}._wakes_next(v_served, 10000) w
      WHERE EXISTS (SELECT FROM {{ schema }}.message m WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = w.lane AND m.dequeue_at <= v_now))
  LOOP
    CONTINUE WHEN v_candidate.lane = ANY (v_barren);
    IF v_candidate.id IS NOT NULL
       AND NOT (v_candidate.lane <> 0 AND COALESCE((SELECT true FROM {{ schema }}._policy_in_force p WHERE p.channel = v_candidate.channel LIMIT 1), false)) THEN
      UPDATE {{ schema }}.message m
         SET status = 'READY', policy_id = NULL, timer_at = NULL
       WHERE m.id = ANY (ARRAY (
               SELECT x.id FROM {{ schema }}.message x
                WHERE x.id = v_candidate.id AND x.timer_at <= v_now
                  FOR NO KEY UPDATE SKIP LOCKED));
      is_ready := FOUND;
      is_busy := is_busy OR NOT is_ready;
      EXIT WHEN is_ready;
      CONTINUE;
    END IF;

    v_hope := {{ schema }}._channel_can_release(v_candidate.lane, v_candidate.channel, v_now);
    IF NOT v_hope.can_release THEN
      release_at := LEAST(release_at, v_hope.release_at);
      v_barren := v_barren || v_candidate.lane;
      CONTINUE;
    END IF;
    v_count := {{ schema }}._lane_tend(v_candidate.lane, v_candidate.channel);
    IF v_count > 0 THEN
      PERFORM setval($regclass${{ schema }}.wake_rotation$regclass$, v_candidate.lane);
      is_ready := true;
      EXIT;
    END IF;
    is_busy := is_busy OR v_count IS NULL;
    v_barren := v_barren || v_candidate.lane;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._seek_carefully() IS
'For a dequeue within a longer transaction that found nothing ready: does the first due thing that makes a message ready; returns whether there was one, whether one was in another transaction''s hands, and the first end of a release interval that was met.
It looks at 10000 messages and timers that are over, and at as many lanes with due wakes.';
