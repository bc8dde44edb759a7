CREATE OR REPLACE FUNCTION {{ schema }}._generations_walk()
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- One session at a time: the mutex is only tried. What it sets in sequences others see at once; what it changes in rows they see when this
-- transaction, a dequeue of its own, commits. If it dies before, the next walk finds the same.
--
-- Nothing but speed, and place and turn of what came late, depends on its being right or in time. But late_horizon does, which lets a dequeue that finds
-- nothing in the two generations say so without looking through all: it is lifted only by a walk that began when all had ended that could have
-- committed something late, and found nothing in others.
DECLARE
  c_few         CONSTANT integer  := 10000;
  c_few_stale   CONSTANT integer  := 1000;
  c_few_dead    CONSTANT integer  := 500;
  c_few_a_lane  CONSTANT integer  := 8;
  c_share       CONSTANT integer  := 20;
  c_pause       CONSTANT interval := interval '500 ms';
  c_pause_max   CONSTANT interval := interval '60 s';
  c_margin      CONSTANT interval := interval '20 ms';
  c_unknown     CONSTANT bigint := 9223372036854775807;
  v_began_at    timestamptz := {{ schema }}._clock();
  v_ended_at    timestamptz;
  v_generation  bigint;
  v_is_new      boolean;
  v_older       bigint;
  v_younger     bigint;
  v_late        bigint;
  v_is_over     boolean := false;
  v_num_read    bigint;
  v_few_dead    bigint;
  v_due_at      timestamptz;
  v_messages    record;
  v_wakes       record;
BEGIN
  IF NOT pg_try_advisory_xact_lock($regclass${{ schema }}.generation$regclass$::regclass::oid::integer, 0)
     OR {{ schema }}._walk_is_in_time(v_began_at, interval '0') THEN
    RETURN;
  END IF;
  v_generation := COALESCE(pg_sequence_last_value($regclass${{ schema }}.generation$regclass$), 0);
  IF v_generation <= 0 THEN
    -- One that nothing has yet, set before the look: what becomes ready from now on has it. Until the look is over nobody may search it: what
    -- is ready already is not in it. Whoever reads the generation reads afterwards whether it is walked.
    v_generation := 2 * (1 + (1 - v_generation) / 2);
    PERFORM setval($regclass${{ schema }}.generation_walk$regclass$, 1);
    PERFORM {{ schema }}._generation_turn(COALESCE(pg_sequence_last_value($regclass${{ schema }}.generation$regclass$), 0), v_generation, NULL, NULL);
    IF pg_sequence_last_value($regclass${{ schema }}.generation$regclass$) IS DISTINCT FROM v_generation THEN
      -- Another has the mutex of the numbers at this moment.
      RETURN;
    END IF;
  END IF;
  -- Perhaps another began with it and got no further.
  v_is_new := pg_sequence_last_value($regclass${{ schema }}.generation_walk$regclass$) = 1;
  v_late := pg_sequence_last_value($regclass${{ schema }}.late_horizon$regclass$);
  IF v_late = c_unknown AND pg_current_xact_id_if_assigned() IS NULL THEN
    PERFORM {{ schema }}._horizons_draw();
  ELSIF v_late <> 0 THEN
    v_is_over := {{ schema }}._horizon_is_over(v_late);
  END IF;
  v_older := v_generation / 2;
  v_younger := (v_generation + 1) / 2;

  BEGIN
    v_num_read := - {{ schema }}._entries_read($regclass${{ schema }}.message_ready_idx$regclass$)
                  - {{ schema }}._entries_read($regclass${{ schema }}.message_timer_idx$regclass$);
    -- Stale is what is in neither generation. What another transaction holds (or one that rolled back held: the row version's xmax is another's) would
    -- keep the older one for as long, so that one is over when nothing else is left in it. Its wakes are taken along, since those of a lane whose
    -- mutex is held stay as well.
    SELECT count(*) AS num, count(DISTINCT x.lane) AS num_lanes, count(*) FILTER (WHERE x.is_stale AND NOT x.is_held) AS num_stale,
           COALESCE(bool_or((x.generation >= v_older) IS NOT TRUE), false) AS has_older, COALESCE(max(x.generation), 0) AS last,
           COALESCE(bool_and(x.is_held) FILTER (WHERE x.generation < v_younger AND NOT x.is_stale), false) AS is_older_held,
           count(*) FILTER (WHERE x.generation < v_younger AND NOT x.is_stale) AS num_older,
           array_agg(x.id) FILTER (WHERE x.is_stale OR x.generation < v_younger AND x.is_held) AS stale
      INTO v_messages
      FROM (SELECT m.id, m.lane, m.generation, (m.generation BETWEEN v_older AND v_younger) IS NOT TRUE AS is_stale, m.xmax <> 0 AND m.xmax <> m.xmin AS is_held
              FROM {{ schema }}.message m
             WHERE m.status = 'READY' ORDER BY m.lane, m.dequeue_at, m.id LIMIT c_few) x;
    SELECT count(*) AS num, count(*) FILTER (WHERE (x.generation BETWEEN v_older AND v_younger) IS NOT TRUE) AS num_stale,
           COALESCE(bool_or((x.generation >= v_older) IS NOT TRUE), false) AS has_older, COALESCE(max(x.generation), 0) AS last,
           COALESCE(bool_or(x.is_held) FILTER (WHERE x.generation < v_younger), false) AS is_older_held,
           array_agg(x.ctid) FILTER (WHERE (x.generation = v_younger) IS NOT TRUE) AS stale
      INTO v_wakes
      FROM (SELECT w.ctid, w.generation, w.xmax <> 0 AND w.xmax <> w.xmin AS is_held FROM {{ schema }}.wake w
             WHERE w.at IS NULL ORDER BY w.lane LIMIT c_few) x;
    -- What another transaction holds is no reason to begin there: if that rolls back, the next walk finds it.
    v_due_at := LEAST((SELECT m.timer_at FROM {{ schema }}.message m WHERE m.timer_at <= v_began_at ORDER BY m.timer_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED),
                      (SELECT w.at FROM {{ schema }}.wake w WHERE w.at <= v_began_at ORDER BY w.at LIMIT 1 FOR UPDATE SKIP LOCKED), v_began_at);
    v_num_read := v_num_read + {{ schema }}._entries_read($regclass${{ schema }}.message_ready_idx$regclass$)
                  + {{ schema }}._entries_read($regclass${{ schema }}.message_timer_idx$regclass$) - v_messages.num;
    v_few_dead := c_few_dead + c_few_a_lane * v_messages.num_lanes;
    IF v_num_read >= v_few_dead AND v_num_read < c_few_dead * v_messages.num_lanes THEN
      -- In each lane there are few, and they may all be of the last moments: then this search has marked them for the next one to pass by. Only
      -- if they stay are they worth the search in generations, which costs more the more lanes there are.
      v_num_read := - {{ schema }}._entries_read($regclass${{ schema }}.message_ready_idx$regclass$)
                    - {{ schema }}._entries_read($regclass${{ schema }}.message_timer_idx$regclass$);
      PERFORM FROM (SELECT FROM {{ schema }}.message m WHERE m.status = 'READY' ORDER BY m.lane, m.dequeue_at, m.id LIMIT v_messages.num) x;
      PERFORM FROM {{ schema }}.message m WHERE m.timer_at <= v_began_at ORDER BY m.timer_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
      v_num_read := v_num_read + {{ schema }}._entries_read($regclass${{ schema }}.message_ready_idx$regclass$)
                    + {{ schema }}._entries_read($regclass${{ schema }}.message_timer_idx$regclass$) - v_messages.num;
    END IF;
  EXCEPTION WHEN query_canceled THEN
    -- Perhaps by a statement_timeout: if the next dequeue tried again, none would ever get further.
    v_ended_at := {{ schema }}._clock();
    IF v_is_new THEN
      PERFORM {{ schema }}._generation_turn(NULL, NULL, NULL, NULL);
    END IF;
    PERFORM setval($regclass${{ schema }}.generation_walk$regclass$, {{ schema }}._microseconds(
              v_ended_at + LEAST(GREATEST(c_share * (v_ended_at - v_began_at), c_pause), c_pause_max)));
    RAISE;
  END;
  PERFORM setval($regclass${{ schema }}.timer_mark$regclass$, {{ schema }}._microseconds(v_due_at - c_margin));

  IF v_num_read < v_few_dead
     OR v_messages.num = c_few OR v_wakes.num = c_few OR v_messages.num_stale > c_few_stale OR v_wakes.num_stale > c_few_stale THEN
    PERFORM {{ schema }}._generation_turn(NULL, NULL, NULL, NULL);
    IF pg_sequence_last_value($regclass${{ schema }}.generation$regclass$) > 0 THEN
      -- Another has the mutex of the numbers at this moment. The next dequeue walks again.
      PERFORM setval($regclass${{ schema }}.generation_walk$regclass$, 1);
      RETURN;
    END IF;
    IF v_num_read < v_few_dead THEN
      PERFORM setval($regclass${{ schema }}.generation_walk$regclass$, 0);
      RETURN;
    END IF;
  ELSE
    UPDATE {{ schema }}.message m
       SET generation = DEFAULT
     WHERE m.id = ANY (ARRAY (
             SELECT h.id FROM unnest(v_messages.stale) AS u (id), LATERAL (
               SELECT x.id FROM {{ schema }}.message x WHERE x.id = u.id AND x.status::text = 'READY' FOR NO KEY UPDATE SKIP LOCKED) h));
    UPDATE {{ schema }}.wake w
       SET generation = DEFAULT
     WHERE w.ctid = ANY (ARRAY (
             SELECT x.ctid FROM {{ schema }}.wake x WHERE x.ctid = ANY (v_wakes.stale) AND x.at IS NULL FOR UPDATE SKIP LOCKED));
    -- If nothing at all is left a dequeue ends it; as a rule what is held is so for a moment only.
    IF v_older < v_younger AND (v_messages.is_older_held OR v_messages.num_older = 0 AND v_wakes.is_older_held)
       -- In the future it is if the clock was set back.
       AND (pg_sequence_last_value($regclass${{ schema }}.generation_at$regclass$)
            BETWEEN {{ schema }}._microseconds(v_began_at - c_pause) + 1 AND {{ schema }}._microseconds(v_began_at)) IS NOT TRUE THEN
      PERFORM {{ schema }}._generation_turn(v_generation, v_generation + 1, NULL, NULL);
    ELSIF v_is_over AND NOT v_messages.has_older AND NOT v_wakes.has_older
          -- What is later than both has come meanwhile, with a generation that has; or before a crash, which resets the numbers.
          AND GREATEST(v_messages.last, v_wakes.last) <= (pg_sequence_last_value($regclass${{ schema }}.generation$regclass$) + 1) / 2 THEN
      PERFORM {{ schema }}._late_lift(v_late);
    END IF;
  END IF;
  v_ended_at := {{ schema }}._clock();
  PERFORM setval($regclass${{ schema }}.generation_walk$regclass$, {{ schema }}._microseconds(
            v_ended_at + LEAST(GREATEST(c_share * (v_ended_at - v_began_at), c_pause), c_pause_max)));
END
$function$;
COMMENT ON FUNCTION {{ schema }}._generations_walk() IS
'Looks through all that is ready or due, dead rows included, and takes what is in neither of the two generations into the younger; begins with generations if none is in use, and ends with them if dead rows are few or ready messages are many. Sets when to walk again: after 20 times as long as it took, at least 500 ms, at most a minute.';
