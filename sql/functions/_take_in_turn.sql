CREATE OR REPLACE FUNCTION {{ schema }}._take_in_turn(
  p_served bigint, p_max_messages integer, p_lock_ms bigint, p_window integer,
  OUT taken_ids bigint[], OUT are_unlocked boolean[], OUT is_busy boolean, OUT release_at timestamptz, OUT limited_lanes bigint[])
LANGUAGE plpgsql VOLATILE
AS $function$
-- Goes round the lanes, a message from each, until it has enough or a whole round gave none. It looks at a stretch of them at a time, each with
-- eight times as many ready lanes as the one before, since as a rule the first few have what is wanted.
--
-- Its transaction may stay open for an hour, so it holds what it takes, the mutex of that channel if it had to release the message, and
-- nothing else.
DECLARE
  v_served  bigint := p_served;
  v_from    bigint := p_served;
  v_last    bigint;
  v_num     integer := LEAST(p_max_messages, 10000);
  v_lanes   bigint[];
  v_lane    bigint;
  v_turn    record;
  v_first   record;
  v_offer   record;
  v_taken   {{ schema }}._taken;
  v_id      bigint;
  v_missing integer := p_max_messages;
BEGIN
  taken_ids := '{}';
  is_busy := false;
  limited_lanes := '{}';
  LOOP
    v_lanes := ARRAY (SELECT n.lane FROM {{ schema }}._lanes_next(v_from, v_num, NULL) AS n (lane)
                       WHERE v_from = p_served OR (n.lane <= p_served, n.lane) > (v_from <= p_served, v_from));
    v_last := CASE WHEN cardinality(v_lanes) = v_num THEN v_lanes[v_num] ELSE p_served END;
    -- The fourth column puts the lanes that come after the turn of the numbers behind the others.
    FOR v_turn IN
      SELECT t.lane, t.channel, t.message_ids, t.lane <= p_served FROM {{ schema }}._turns_due(v_from, v_last, p_window, taken_ids) t
      UNION ALL
      SELECT u.lane, NULL, NULL, u.lane <= p_served FROM unnest(v_lanes) AS u (lane)
      ORDER BY 4, 1, 3 NULLS LAST
    LOOP
      -- It had its turn already, or is known to have nothing.
      CONTINUE WHEN v_turn.lane = v_lane OR v_turn.lane = ANY (limited_lanes);
      v_id := NULL;
      IF v_turn.message_ids IS NULL THEN
        -- Looked at first and then held: a message that its channel's policy did not release stays untouched.
        SELECT m.channel, COALESCE((SELECT p.id IS DISTINCT FROM m.policy_id FROM {{ schema }}._policy_in_force p
                                     WHERE p.channel = m.channel AND m.lane <> 0 LIMIT 1), false) AS is_limited INTO v_first
          FROM {{ schema }}.message m
         WHERE m.status = 'READY' AND m.lane = v_turn.lane
         ORDER BY m.dequeue_at, m.id LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        IF v_first.is_limited THEN
          v_turn.channel := v_first.channel;
          v_turn.message_ids := ARRAY[]::bigint[];
        END IF;
      END IF;
      IF v_turn.message_ids IS NOT NULL THEN
        v_offer := {{ schema }}._channel_offer(v_turn.lane, v_turn.channel, v_turn.message_ids);
        is_busy := is_busy OR v_offer.is_busy;
        release_at := LEAST(release_at, v_offer.release_at);
        IF v_offer.offered IS NULL THEN
          IF v_offer.is_limited THEN
            limited_lanes := limited_lanes || v_turn.lane;
          END IF;
          CONTINUE;
        END IF;
        v_id := v_offer.offered;
      END IF;
      v_taken := {{ schema }}._take_one(v_served, v_turn.lane, v_id, p_lock_ms);
      IF v_taken.id IS NULL AND v_id IS NULL AND v_turn.lane <> 0 THEN
        -- All that its policy released is in others' hands. There may be room for more.
        v_offer := {{ schema }}._channel_offer(v_turn.lane, v_first.channel, ARRAY[]::bigint[]);
        IF v_offer.offered IS NOT NULL THEN
          v_taken := {{ schema }}._take_one(v_served, v_turn.lane, v_offer.offered, p_lock_ms);
        END IF;
      END IF;
      IF v_taken.id IS NULL THEN
        is_busy := true;
        CONTINUE;
      END IF;
      v_lane := v_turn.lane;
      taken_ids := taken_ids || v_taken.id;
      are_unlocked := are_unlocked || v_taken.is_unlocked;
      v_served := v_lane;
      IF cardinality(taken_ids) = p_max_messages THEN
        RETURN;
      END IF;
    END LOOP;
    v_from := v_last;
    v_num := LEAST(v_num * 8, 10000);
    IF v_last = p_served THEN
      EXIT WHEN cardinality(taken_ids) = p_max_messages - v_missing;
      v_missing := p_max_messages - cardinality(taken_ids);
      v_num := LEAST(v_missing, 10000);
      v_lane := NULL;
    END IF;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._take_in_turn(bigint, integer, bigint, integer) IS
'Takes up to p_max_messages, those whose turn it is after the lane p_served, made ready for it if need be; none if none is to be had.
p_lock_ms as of _take_one, p_window as of _turns_due. is_busy: something is in another transaction''s hands; release_at: the first end of a release interval that something waits for; limited_lanes: those that have nothing to be had now, because of a policy. The ids of what it took come in the order of turns, are_unlocked with them; not the rows, since an array takes no more than 1 GB.';
