CREATE OR REPLACE FUNCTION {{ schema }}._channel_offer(p_lane bigint, p_channel text, p_over_ids bigint[], OUT offered bigint, OUT is_busy boolean, OUT is_limited boolean, OUT release_at timestamptz)
LANGUAGE plpgsql VOLATILE
AS $function$
-- The transaction may stay open, so this looks before it touches anything, and changes one message at most, which the caller then takes.
--
-- If there is nothing to be had, wakes that brought the caller here are deleted; that needs no mutex and holds up nobody. They were visible before
-- what they announce was looked at. If nothing waits, whatever will wait comes with a wake of its own. If the channel is at its limit and no
-- transaction has its hands on what is out, each end of that sees what waits (_place_freed). They are kept if they, or what would replace them, say
-- more than that: others do not see what is set here.
DECLARE
  v_now    timestamptz := {{ schema }}._clock();
  v_wakes  tid[];
  v_policy {{ schema }}._policy_in_force;
  v_survey record;
BEGIN
  is_busy := false;
  v_wakes := ARRAY ((SELECT w.ctid FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.lane = p_lane AND w.channel = p_channel LIMIT 1000)
                    UNION ALL
                    (SELECT w.ctid FROM {{ schema }}.wake w
                      WHERE (w.at IS NOT NULL OR w.released_at IS NOT NULL) AND w.lane = p_lane AND w.channel = p_channel AND COALESCE(w.at, 'infinity') <= v_now LIMIT 1000));
  -- Later than the wakes: what they announce is due by now, unless the clock was set back.
  v_now := {{ schema }}._clock();
  IF p_lane <> 0 THEN
    SELECT p.* INTO v_policy FROM {{ schema }}._policy_in_force p WHERE p.channel = p_channel;
  END IF;

  is_limited := v_policy.id IS NOT NULL;
  IF NOT is_limited THEN
    -- Is something due in others' hands, perhaps all of it?
    IF p_lane <> 0
       AND COALESCE((SELECT true FROM {{ schema }}.message m
                      WHERE m.id = ANY (p_over_ids) AND COALESCE(m.timer_at, 'infinity') <= v_now AND m.xmax <> 0 AND m.xmax <> m.xmin LIMIT 1),
                    (SELECT true
                       FROM (SELECT m.timer_at, m.xmin, m.xmax FROM {{ schema }}.message m
                              WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel
                              ORDER BY m.dequeue_at, m.id LIMIT 100) x
                      WHERE (x.timer_at IS NULL OR x.timer_at <= v_now) AND x.xmax <> 0 AND x.xmax <> x.xmin LIMIT 1), false) THEN
      offered := {{ schema }}._message_try_offer(p_lane, p_channel, p_over_ids, v_now);
      is_busy := true;
      RETURN;
    END IF;
    SELECT o.offered, o.is_busy INTO offered, is_busy FROM {{ schema }}._message_offer(p_lane, p_channel, p_over_ids, v_now) o;
    IF is_busy THEN
      RETURN;
    END IF;
  ELSIF v_policy.max_concurrency = 0 THEN
    -- Nothing can be had. What is ready is foreign, and what knows of the last release stays.
    IF COALESCE((SELECT true FROM {{ schema }}.message m WHERE m.status = 'READY' AND m.lane = p_lane AND m.channel = p_channel LIMIT 1), false) THEN
      RETURN;
    END IF;
    v_wakes := ARRAY (SELECT w.ctid FROM {{ schema }}.wake w WHERE w.ctid = ANY (v_wakes) AND w.released_at IS NULL);
  ELSE
    v_survey := {{ schema }}._channel_survey(p_lane, v_policy, NULL, v_now, p_over_ids);
    -- First what is ready and sorts before what could be released, then that, then anything that is ready: what sorts before it is in others' hands.
    FOR v_step IN 1 .. 3 LOOP
      IF v_step <> 2 AND v_survey.ready_ids <> '{}' THEN
        -- One after the other until one is had: a sort would hold them all.
        SELECT h.id INTO offered
          FROM unnest(v_survey.ready_ids) AS u (id), LATERAL (
            SELECT m.id FROM {{ schema }}.message m
             WHERE m.id = u.id AND m.status::text = 'READY'
               AND (v_step = 3 OR v_survey.next_status IS NULL OR (m.dequeue_at, m.id) < (v_survey.next_at, v_survey.next_id))
               FOR NO KEY UPDATE SKIP LOCKED) h
         LIMIT 1;
        is_busy := true;
      ELSIF v_step = 2 AND v_survey.next_status IS NOT NULL AND (v_survey.release_at > v_now) IS NOT TRUE
            AND (v_survey.room > 0 OR v_survey.over_ids <> '{}' OR v_survey.room = 0 AND v_survey.ready_ids <> '{}') THEN
        -- Does it depend on rows that are perhaps in others' hands? If too many are ready they are put back bit by bit, which has to last.
        IF NOT v_survey.is_flooded
           AND (v_survey.is_next_held OR v_survey.suspect_ids <> '{}'
                OR v_survey.is_ending AND (v_survey.room <= 0 OR v_survey.ready_ids <> '{}')) THEN
          offered := {{ schema }}._channel_try_release(p_lane, p_channel, p_over_ids);
        ELSE
          offered := {{ schema }}._channel_release(p_lane, p_channel, p_over_ids);
        END IF;
        is_busy := true;
      END IF;
      IF offered IS NOT NULL THEN
        RETURN;
      END IF;
    END LOOP;
    IF v_survey.next_status IS NOT NULL AND v_survey.release_at > v_now THEN
      release_at := v_survey.release_at;
    END IF;
    -- What ends at this moment may make room.
    is_busy := is_busy OR v_survey.is_ending AND v_survey.next_status IS NOT NULL AND release_at IS NULL;
    IF is_busy OR v_survey.early_at IS NOT NULL OR v_survey.num_foreign > 0 OR v_survey.is_ending THEN
      RETURN;
    END IF;
    IF v_survey.release_at > v_now THEN
      -- The wakes may be all that is known of the last release, to us or, if the timer is ours, to others.
      IF NOT COALESCE((SELECT true FROM {{ schema }}.wake w
                        WHERE (w.at IS NOT NULL OR w.released_at IS NOT NULL) AND w.lane = p_lane AND w.channel = p_channel
                          AND w.at = v_survey.release_at AND w.released_at = v_survey.released_at
                          AND w.xmin <> COALESCE(pg_current_xact_id_if_assigned()::xid, '0'::xid) LIMIT 1), false) THEN
        -- As in message_create. If it is over meanwhile, the wakes stay, and will say so.
        IF pg_current_xact_id() IS NOT NULL AND v_survey.release_at > {{ schema }}._clock() THEN
          INSERT INTO {{ schema }}.wake (lane, channel, at, released_at) VALUES (p_lane, p_channel, v_survey.release_at, v_survey.released_at);
        END IF;
        RETURN;
      END IF;
    END IF;
  END IF;
  DELETE FROM {{ schema }}.wake w
   WHERE w.ctid = ANY (ARRAY (SELECT x.ctid FROM {{ schema }}.wake x WHERE x.ctid = ANY (v_wakes) FOR UPDATE SKIP LOCKED));
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_offer(bigint, text, bigint[]) IS
'The message that the caller may take when it is the channel''s turn, made ready for it or held; none if none is to be had or, in a channel without a policy, nothing of it is due.
p_over_ids: messages of the channel whose delay or lock is over, as far as known. is_busy: there is something, and if nothing is offered it is in another transaction''s hands; is_limited: the channel has a policy; release_at: when the channel''s release interval ends, if something waits for that.';
