CREATE OR REPLACE FUNCTION {{ schema }}._channel_advance(p_lane bigint, p_channel text, p_released_at timestamptz, p_over_ids bigint[], p_max integer)
RETURNS bigint[]
LANGUAGE plpgsql VOLATILE
AS $function$
-- The one place that decides what of a limited channel becomes ready. It is level-triggered: it looks at what is, and keeps no count that
-- could drift. The caller holds the lane's mutex until the end of its transaction, and has removed the wakes that brought it here before.
--
-- Why nothing is forgotten: whoever changes something that matters here commits a wake with it. A wake that was removed was visible, so
-- its cause is visible to the statements below, which take their snapshots later; a wake that was not visible stays for the next time.
-- What is passed by because another transaction holds its row gets a timer, since that transaction may roll back and leave no trace.
--
-- Why limits are exact: only the holder of the mutex makes messages of a limited channel ready, and it sees all that earlier holders
-- committed. A message that slipped by (created before the policy was visible) is stopped by the dequeue that would take it.
--
-- With p_max = 1 the caller takes what is released, and may stay open for an hour: no other row is changed, but the one whose place it takes (one
-- ready that sorts after it, or one whose lock is over; more of these only if they are more than the limit, and foreign ones if too many are).
DECLARE
  -- c_look: when to look again at what was passed by.
  c_look       CONSTANT interval := interval '200 ms';
  c_batch      CONSTANT bigint := 200;
  -- As in message_create.
  v_now        timestamptz := CASE WHEN pg_current_xact_id() IS NOT NULL THEN {{ schema }}._clock() END;
  v_policy     {{ schema }}._policy_in_force;
  v_survey     record;
  v_is_cleared boolean;
  v_has_older  boolean;
  v_room       bigint := 2147483647;
  v_held       bigint := 0;
  v_count      bigint;
  v_moved      bigint := 0;
  v_back       integer := 0;
  v_released   bigint[] := ARRAY[]::bigint[];
  v_waiting    bigint := 2147483647;
  v_more       boolean := true;
  v_tidy       boolean := false;
  v_doubt      boolean := false;
  v_left_at    timestamptz;
BEGIN
  SELECT p.id, p.channel, p.max_concurrency, p.release_interval_ms, p.cleared,
         COALESCE((SELECT true FROM {{ schema }}.channel_policy x WHERE x.channel = p_channel AND x.id < p.id LIMIT 1), false)
    INTO v_policy.id, v_policy.channel, v_policy.max_concurrency, v_policy.release_interval_ms, v_is_cleared, v_has_older
    FROM {{ schema }}.channel_policy p WHERE p.channel = p_channel ORDER BY p.id DESC LIMIT 1;
  IF v_has_older THEN
    -- The mutex keeps out all but repair.
    DELETE FROM {{ schema }}.channel_policy v
     WHERE v.channel = p_channel
       AND v.id = ANY (ARRAY (SELECT x.id FROM {{ schema }}.channel_policy x WHERE x.channel = p_channel AND x.id < v_policy.id FOR UPDATE SKIP LOCKED));
  END IF;
  IF v_is_cleared THEN
    v_policy := NULL;
  END IF;

  IF v_policy.id IS NOT NULL THEN
    v_survey := {{ schema }}._channel_survey(p_lane, v_policy, p_released_at, v_now, p_over_ids);
    v_room := v_survey.room;
    IF p_max = 1 AND v_survey.next_status IS NULL THEN
      RETURN v_released;
    END IF;

    -- Which of the suspects are in another's hands? That is known by whether they can be locked, which must leave no lock behind: see
    -- _channel_try_release for PYUND.
    IF cardinality(v_survey.suspect_ids) > 0 THEN
      BEGIN
        PERFORM FROM unnest(v_survey.suspect_ids) AS u (id), LATERAL (
          SELECT FROM {{ schema }}.message m WHERE m.id = u.id AND m.status::text = 'READY' FOR NO KEY UPDATE SKIP LOCKED) h;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        RAISE EXCEPTION USING ERRCODE = 'PYUND';
      EXCEPTION WHEN SQLSTATE 'PYUND' THEN
        v_held := cardinality(v_survey.suspect_ids) - v_count;
      END;
      v_room := v_room - v_held;
      v_doubt := v_held > 0;
    END IF;

    -- Those whose lock is over and foreign ones wait from now on: all that one call should move, or what is released below and, if there is no
    -- room for it, as many locks that are over as make room.
    v_count := CASE WHEN p_max > 1 THEN cardinality(v_survey.over_ids)
                    WHEN v_survey.next_status = 'LOCKED' THEN GREATEST(1 - v_room, 1)
                    ELSE 1 - v_room END;
    IF v_survey.over_ids <> '{}' AND v_count > 0 THEN
      UPDATE {{ schema }}.message m
         SET status = 'WAITING', policy_id = NULL, timer_at = NULL
       WHERE m.id = ANY (ARRAY (
               SELECT h.id FROM unnest(v_survey.over_ids) AS u (id), LATERAL (
                 SELECT x.id FROM {{ schema }}.message x
                  WHERE x.id = u.id AND x.status = 'LOCKED' AND x.unlock_at <= v_now
                    FOR NO KEY UPDATE SKIP LOCKED) h
                LIMIT v_count));
      GET DIAGNOSTICS v_moved = ROW_COUNT;
      v_room := v_room + v_moved;
    END IF;
    v_count := CASE WHEN v_survey.num_foreign = 0 THEN 0
                    WHEN v_survey.is_flooded THEN c_batch
                    WHEN p_max > 1 OR v_survey.next_status = 'READY' THEN p_max
                    ELSE 0 END;
    IF v_count > 0 THEN
      UPDATE {{ schema }}.message m
         SET status = 'WAITING', policy_id = NULL
       WHERE m.id = ANY (ARRAY (
               SELECT x.id FROM {{ schema }}.message x
                WHERE x.status = 'READY' AND x.lane = p_lane AND x.channel = p_channel AND x.policy_id IS DISTINCT FROM v_policy.id
                ORDER BY x.dequeue_at, x.id LIMIT v_count
                  FOR NO KEY UPDATE SKIP LOCKED));
      GET DIAGNOSTICS v_count = ROW_COUNT;
    END IF;
    v_tidy := CASE WHEN p_max = 1 THEN v_survey.num_foreign - v_held > v_count ELSE v_count = c_batch END;
    v_moved := v_moved + v_count;
    v_more := p_max > 1 OR v_survey.num_due + cardinality(v_survey.over_ids) + v_survey.num_foreign > 1;

    -- If none or one is due and that is all, this is how many may be left. What came since has its own wake.
    IF v_survey.num_due < 2 AND v_moved = 0 AND v_survey.early_at IS NULL THEN
      v_waiting := v_survey.num_due;
    END IF;
    IF v_survey.early_at IS NOT NULL THEN
      PERFORM {{ schema }}._timer_set(p_lane, p_channel, v_survey.early_at, NULL);
    END IF;
    IF v_survey.release_at > v_now THEN
      -- Kept even if nothing waits now: it is all that is known of the last release.
      PERFORM {{ schema }}._timer_set(p_lane, p_channel, v_survey.release_at, v_survey.released_at);
      v_room := 0;
    ELSIF v_survey.is_flooded THEN
      v_room := 0;
    ELSE
      -- As many as were overtaken make room for those that overtook them: the last ones of the order.
      v_back := LEAST(cardinality(v_survey.ready_ids),
                      CASE WHEN p_max > 1 THEN v_survey.num_overtaking + v_moved
                           WHEN v_room > 0 AND COALESCE(v_policy.release_interval_ms, 0) = 0 THEN 0 ELSE 1 END);
      IF v_back > 0 AND v_room + v_back > 0 THEN
        UPDATE {{ schema }}.message m
           SET status = 'WAITING', policy_id = NULL
         WHERE m.id = ANY (ARRAY (
                 SELECT h.id
                   FROM unnest(v_survey.ready_ids[cardinality(v_survey.ready_ids) - v_back + 1 :]) AS u (id), LATERAL (
                     SELECT x.id FROM {{ schema }}.message x WHERE x.id = u.id AND x.status::text = 'READY' FOR NO KEY UPDATE SKIP LOCKED) h));
        GET DIAGNOSTICS v_back = ROW_COUNT;
        v_room := v_room + v_back;
        -- Whoever ends a message of this channel does not see what was put back until this transaction commits.
        v_doubt := true;
      ELSE
        v_back := 0;
      END IF;
      IF v_policy.release_interval_ms > 0 THEN
        v_room := CASE WHEN cardinality(v_survey.ready_ids) > v_back OR v_held > 0 THEN 0 ELSE LEAST(v_room, 1) END;
      END IF;
    END IF;
    v_doubt := (v_doubt OR v_moved > CASE WHEN p_max = 1 AND v_survey.next_status <> 'WAITING' THEN 1 ELSE 0 END OR v_survey.is_ending) AND v_policy.max_concurrency IS DISTINCT FROM 0;
  END IF;

  IF v_room > 0 THEN
    WITH released AS (
      UPDATE {{ schema }}.message m
         SET status = 'READY', policy_id = v_policy.id, timer_at = NULL, generation = DEFAULT
       WHERE m.id = ANY (ARRAY (
               SELECT x.id FROM {{ schema }}.message x
                WHERE x.status = 'WAITING' AND x.lane <> 0 AND x.lane = p_lane AND x.channel = p_channel AND x.dequeue_at <= v_now
                ORDER BY x.dequeue_at, x.id LIMIT LEAST(v_room, p_max)
                  FOR NO KEY UPDATE SKIP LOCKED))
      RETURNING m.id
    )
    SELECT COALESCE(array_agg(r.id), ARRAY[]::bigint[]) INTO v_released FROM released r;
  END IF;

  -- What waits from now on, by this transaction, was locked for everybody else: who ends a message meanwhile does not see it (_place_freed).
  IF v_policy.max_concurrency > 0 AND NOT v_doubt THEN
    v_doubt := v_moved > cardinality(v_released)
               -- Moved by _tend, which did so just before.
               OR p_max > 1 AND v_survey.num_due > 0
                  AND COALESCE((SELECT true
                                  FROM (SELECT m.xmin FROM {{ schema }}.message m
                                         WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel
                                         ORDER BY m.dequeue_at, m.id LIMIT 100) x
                                 WHERE x.xmin = pg_current_xact_id_if_assigned()::xid LIMIT 1), false);
  END IF;

  IF v_tidy OR v_more AND cardinality(v_released) = p_max AND v_room > p_max THEN
    INSERT INTO {{ schema }}.wake (lane, channel) VALUES (p_lane, p_channel);
  ELSIF v_doubt OR cardinality(v_released) < LEAST(v_room, v_waiting) THEN
    -- A row was passed by, or the end of something that is out may have looked for a waiting message before this one waits (_place_freed). One
    -- without a timer was due once: it is early only because the clock was set back.
    SELECT min(x.dequeue_at) INTO v_left_at
      FROM (SELECT m.dequeue_at, m.timer_at FROM {{ schema }}.message m
             WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel
             ORDER BY m.dequeue_at, m.id LIMIT 100) x
     WHERE x.dequeue_at <= v_now OR x.timer_at IS NULL;
    IF v_left_at IS NOT NULL THEN
      PERFORM {{ schema }}._timer_set(p_lane, p_channel, GREATEST(v_left_at, v_now + c_look), NULL);
    END IF;
  END IF;
  RETURN v_released;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_advance(bigint, text, timestamptz, bigint[], integer) IS
'Makes ready what the channel''s policy allows now, at most p_max messages, and takes back what it does not allow, as many; returns the ids of what became ready.
p_released_at is the newest time of release among the wakes that the caller removed, p_over_ids are messages of the channel whose lock may be over. The caller holds the lane''s mutex. With p_max = 1 nothing else is touched, and if nothing is returned the caller has to undo it.';
