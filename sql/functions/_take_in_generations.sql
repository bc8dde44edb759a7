CREATE OR REPLACE FUNCTION {{ schema }}._take_in_generations(p_max_messages integer, p_lock_ms bigint, p_is_alone boolean)
RETURNS SETOF {{ schema }}._taken
LANGUAGE plpgsql VOLATILE
AS $function$
-- While a transaction holds an old snapshot, dead rows stay, and every search steps over those of all messages that ever were. So what
-- becomes ready or due gets a generation, and the search goes through the generation in use only. When that has gathered many dead rows as well,
-- the next one begins: for a moment there are two, until the older one has nothing left, and nothing can come in it. Something can as long as a
-- transaction is under way that was when the younger one began; if that takes long, the older one ends all the same (late_horizon says so), and what
-- comes is found by _generations_walk, or by a dequeue that finds nothing here.
--
-- Ends of delays and locks are searched from a mark on, a little before the last time at which none was left. Before it is said that there is nothing,
-- they are searched from timer_floor on, before which nothing can come.
--
-- Empty is what was so in one look: no row of the generations in use was ready then, nothing could be in others (or it was all in others' hands, no
-- walk moving any meanwhile), and no delay, lock or timer was over. The generation never has the same number again, so if it was the same before that
-- look and after it, it was so all the time; and nothing late can come without another number.
DECLARE
  c_many        CONSTANT integer := 300;
  c_margin_us   CONSTANT bigint := 20000;
  -- Where so many end in that time that stepping over them takes its own.
  c_many_timers CONSTANT integer := 30;
  c_narrow_us   CONSTANT bigint := 2000;
  -- After so long it is asked who keeps the older generation from ending.
  c_patience    CONSTANT interval := interval '200 ms';
  c_unknown     CONSTANT bigint := 9223372036854775807;
  v_now         timestamptz := {{ schema }}._clock();
  v_served      bigint;
  v_generation  bigint;
  v_last_seen   bigint;
  v_generations bigint[];
  v_is_over     boolean;
  v_is_late     boolean := true;
  v_was_late    boolean;
  v_walk_us     bigint;
  v_floor_us    bigint;
  v_floor       timestamptz;
  v_num_busy    integer := 0;
  v_is_none     boolean;
  v_has_had     boolean;
  v_is_asleep   boolean := false;
  v_nap_ms      bigint;
  v_id          bigint;
  v_mark_us     bigint;
  v_mark        timestamptz;
  v_margin_us   bigint;
  v_found       record;
  v_found_us    bigint;
  v_num_read    bigint;
  v_num_dead    bigint;
  v_many        bigint := c_many + 8::bigint * p_max_messages;
  v_num_taken   integer := 0;
  v_message     {{ schema }}._taken;
BEGIN
  IF p_is_alone AND NOT {{ schema }}._walk_is_in_time(v_now, interval '0') THEN
    PERFORM {{ schema }}._generations_walk();
    -- It may have taken seconds, and the time of the next one is counted from its end.
    v_now := {{ schema }}._clock();
  END IF;

  -- Others may take all that we see and leave what we do not see yet, or go on to another generation. Bounded, since some may hold what they took.
  FOR i IN 1 .. 10 LOOP
    v_generation := pg_sequence_last_value($regclass${{ schema }}.generation$regclass$);
    EXIT WHEN (v_generation > 0) IS NOT TRUE;
    IF NOT {{ schema }}._walk_is_in_time(v_now, interval '1 s') THEN
      -- Not to be relied on before the first walk is over, or if nobody walks (all sessions dequeue in longer transactions, or the clock was set). A walk
      -- that is under way may just take longer than that: if all searched everything meanwhile, it would take longer still.
      EXIT WHEN pg_sequence_last_value($regclass${{ schema }}.generation_walk$regclass$) = 1;
      -- In one expression, lest a cancel between the two leave the lock to the session.
      EXIT WHEN pg_try_advisory_lock_shared($regclass${{ schema }}.generation$regclass$::regclass::oid::integer, 0)
            AND pg_advisory_unlock_shared($regclass${{ schema }}.generation$regclass$::regclass::oid::integer, 0);
    END IF;
    v_generations := CASE WHEN v_generation % 2 = 0 THEN ARRAY[v_generation / 2] ELSE ARRAY[v_generation / 2, v_generation / 2 + 1] END;
    IF p_is_alone AND v_generation % 2 <> 0 AND pg_sequence_last_value($regclass${{ schema }}.generation_horizon$regclass$) = c_unknown
       AND pg_current_xact_id_if_assigned() IS NULL THEN
      PERFORM {{ schema }}._horizons_draw();
    END IF;
    -- Not needed if something is found at once.
    IF i > 1 THEN
      v_was_late := v_is_late;
      v_is_late := (pg_sequence_last_value($regclass${{ schema }}.late_horizon$regclass$) = 0) IS NOT TRUE;
      v_walk_us := pg_sequence_last_value($regclass${{ schema }}.generation_walk$regclass$);
      v_floor_us := COALESCE(pg_sequence_last_value($regclass${{ schema }}.timer_floor$regclass$), 0);
      IF v_floor_us > {{ schema }}._microseconds({{ schema }}._clock()) THEN
        -- The clock was set back. (v_now is older than what others have done meanwhile.)
        PERFORM setval($regclass${{ schema }}.timer_floor$regclass$, 0);
        v_floor_us := 0;
      END IF;
    END IF;
    v_served := COALESCE(pg_sequence_last_value($regclass${{ schema }}.rotation$regclass$), 0);
    v_mark_us := COALESCE(pg_sequence_last_value($regclass${{ schema }}.timer_mark$regclass$), 0);
    v_mark := timestamptz 'epoch' + v_mark_us * interval '1 us';
    v_num_read := - {{ schema }}._entries_read($regclass${{ schema }}.message_generation_idx$regclass$);
    v_margin_us := - {{ schema }}._entries_read($regclass${{ schema }}.message_timer_idx$regclass$);
    SELECT (SELECT m.timer_at FROM {{ schema }}.message m WHERE m.timer_at > v_mark AND m.timer_at <= v_now ORDER BY m.timer_at LIMIT 1) AS message_at,
           (SELECT w.at FROM {{ schema }}.wake w WHERE w.at > v_mark AND w.at <= v_now ORDER BY w.at LIMIT 1) AS timer_at,
           (SELECT w.generation FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.generation >= v_generation / 2 AND w.generation <= (v_generation + 1) / 2
             ORDER BY w.generation, w.lane LIMIT 1) AS wake_generation,
           (SELECT m.generation FROM {{ schema }}.message m WHERE m.status = 'READY' AND m.generation >= v_generation / 2 AND m.generation <= (v_generation + 1) / 2
             ORDER BY m.generation, m.lane LIMIT 1) AS message_generation
      INTO v_found;
    v_is_over := v_generations[1] < LEAST(v_generations[2], v_found.wake_generation, v_found.message_generation);
    IF v_is_over AND pg_current_xact_id_if_assigned() IS NULL THEN
      v_num_dead := v_num_read + {{ schema }}._entries_read($regclass${{ schema }}.message_generation_idx$regclass$);
      PERFORM {{ schema }}._generation_retire(v_generation, v_num_dead > 2 * v_many OR v_now - c_patience > (
                timestamptz 'epoch' + pg_sequence_last_value($regclass${{ schema }}.generation_at$regclass$) * interval '1 us'));
    END IF;
    v_is_none := v_found.message_at IS NULL AND v_found.timer_at IS NULL AND v_found.wake_generation IS NULL AND v_found.message_generation IS NULL;
    IF v_found.message_at IS NOT NULL OR v_found.timer_at IS NOT NULL OR v_found.wake_generation IS NOT NULL THEN
      EXIT WHEN NOT p_is_alone;
      v_num_read := v_num_read + {{ schema }}._entries_read($regclass${{ schema }}.message_generation_idx$regclass$);
      v_has_had := {{ schema }}._tend(GREATEST(32, LEAST(p_max_messages, 250)), v_found.message_at IS NOT NULL, v_found.timer_at IS NOT NULL, v_mark, v_generations);
      v_num_read := v_num_read - {{ schema }}._entries_read($regclass${{ schema }}.message_generation_idx$regclass$);
    ELSE
      v_has_had := false;
    END IF;
    IF v_num_busy = 2 AND NOT v_has_had OR i > 2 AND v_is_none AND v_generation = v_last_seen THEN
      -- Nor if nobody has walked for a minute: it may be a copy of a database, whose numbers are younger than its rows.
      EXIT WHEN v_was_late OR NOT {{ schema }}._walk_is_in_time(v_now, interval '1 min');
      v_floor := timestamptz 'epoch' + v_floor_us * interval '1 us';
      v_floor := LEAST((SELECT m.timer_at FROM {{ schema }}.message m WHERE m.timer_at > v_floor AND m.timer_at <= LEAST(v_mark, v_now) ORDER BY m.timer_at LIMIT 1),
                       (SELECT w.at FROM {{ schema }}.wake w WHERE w.at > v_floor AND w.at <= LEAST(v_mark, v_now) ORDER BY w.at LIMIT 1));
      IF v_floor IS NOT NULL THEN
        EXIT WHEN NOT p_is_alone;
        PERFORM setval($regclass${{ schema }}.timer_mark$regclass$, {{ schema }}._microseconds(v_floor) - 1);
        v_num_busy := 0;
        CONTINUE;
      END IF;
      IF {{ schema }}._wake_channel() IS NOT NULL AND NOT v_is_asleep THEN
        v_nap_ms := {{ schema }}._sleeper_nap_ms();
        v_is_asleep := true;
        IF v_nap_ms IS NULL THEN
          -- Its number is drawn: one more look.
          v_last_seen := NULL;
          v_num_busy := 0;
          CONTINUE;
        END IF;
      END IF;
      v_message.result := 'MESSAGE_NOT_AVAILABLE';
      v_message.retry_ms := LEAST({{ schema }}._retry_ms(NOT v_is_none, NULL, v_now), v_nap_ms);
      RETURN NEXT v_message;
      RETURN;
    END IF;
    v_last_seen := v_generation;
    v_found_us := {{ schema }}._microseconds(LEAST(v_found.message_at, v_found.timer_at, v_now));
    v_margin_us := CASE WHEN v_margin_us + {{ schema }}._entries_read($regclass${{ schema }}.message_timer_idx$regclass$) > c_many_timers
                        THEN c_narrow_us ELSE c_margin_us END;
    IF v_found_us - v_mark_us > 2 * v_margin_us THEN
      PERFORM setval($regclass${{ schema }}.timer_mark$regclass$, v_found_us - v_margin_us);
    END IF;
    IF v_is_over THEN
      v_generations := v_generations[2:];
    END IF;

    IF p_max_messages > 1 THEN
      -- With two generations it holds more than it takes, for as long as the transaction lasts.
      EXIT WHEN v_generations[1] < v_generations[2] AND NOT p_is_alone;
      RETURN QUERY SELECT t.* FROM {{ schema }}._take_many(v_served, p_max_messages, p_lock_ms, p_is_alone, v_generations) t;
      GET DIAGNOSTICS v_num_taken = ROW_COUNT;
    END IF;
    -- A batch looks at the first lanes only, and these may all be in others' hands.
    IF v_num_taken = 0 THEN
      IF v_generations[1] < v_generations[2] THEN
        -- Whose turn is it, and of the same lane, which comes first? The other one is second, in case that what we see is in another's hands.
        SELECT array_agg(g.generation ORDER BY f.lane <= v_served, f.lane, f.dequeue_at, f.id, g.generation) INTO v_generations
          FROM unnest(v_generations) AS g (generation) LEFT JOIN LATERAL (
               SELECT n.lane, x.dequeue_at, x.id
                 FROM {{ schema }}._lanes_next(v_served, 1, ARRAY[g.generation]) AS n (lane), LATERAL (
                      SELECT m.dequeue_at, m.id FROM {{ schema }}.message m
                       WHERE m.status = 'READY' AND (m.generation, m.lane) >= (g.generation, n.lane)
                         AND (m.generation, m.lane) <= (g.generation, n.lane) AND m.generation <= g.generation
                       ORDER BY m.generation, m.lane, m.dequeue_at, m.id LIMIT 1) x) f ON true;
      END IF;
      v_id := COALESCE({{ schema }}._message_hold(v_served, v_generations[1]), {{ schema }}._message_hold(v_served, v_generations[2]));
      IF v_id IS NOT NULL THEN
        v_message := {{ schema }}._take_one(v_served, NULL, v_id, p_lock_ms);
        EXIT WHEN v_message.id IS NULL;
        RETURN NEXT v_message;
        v_num_taken := 1;
      END IF;
    END IF;
    IF v_num_taken > 0 THEN
      v_num_read := v_num_read + {{ schema }}._entries_read($regclass${{ schema }}.message_generation_idx$regclass$);
      IF v_generation % 2 = 0 AND v_num_read > v_many OR v_is_over AND v_num_read > 8 * v_many THEN
        PERFORM {{ schema }}._generation_turn(v_generation, v_generation + 1, NULL, NULL);
      END IF;
      EXIT;
    END IF;
    -- All that was seen is in others' hands, unless a walk moved it from the one to the other between the two looks, or does at this moment.
    v_num_busy := CASE WHEN NOT v_is_none AND NOT v_has_had AND NOT v_is_late AND pg_sequence_last_value($regclass${{ schema }}.generation$regclass$) = v_generation
                        AND pg_sequence_last_value($regclass${{ schema }}.generation_walk$regclass$) = v_walk_us
                        AND pg_try_advisory_lock_shared($regclass${{ schema }}.generation$regclass$::regclass::oid::integer, 0)
                        AND pg_advisory_unlock_shared($regclass${{ schema }}.generation$regclass$::regclass::oid::integer, 0) THEN v_num_busy + 1 ELSE 0 END;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._take_in_generations(integer, bigint, boolean) IS
'What message_dequeue does beside an old snapshot: takes up to p_max_messages of those that are ready in the generations in use; no row if none is to be had there, or none is in use.
p_lock_ms as of _take_one, p_is_alone as of _is_alone.';
