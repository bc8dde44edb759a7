CREATE OR REPLACE FUNCTION {{ schema }}._channel_offer(p_lane bigint, p_channel text, p_due_ids bigint[], OUT offered bigint[], OUT is_busy boolean, OUT release_at timestamptz)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- The transaction may stay open, so this looks before it touches anything, and changes one message at most, which the caller then takes.
--
-- If there is nothing to be had, wakes that brought the caller here are deleted; that needs no mutex and holds up nobody. They were visible before
-- what they announce was looked at. If nothing waits, whatever will wait comes with a wake of its own. If the channel is at its limit and no
-- transaction has its hands on what is out, each end of that sees what waits (_place_freed).
DECLARE
  v_now    timestamptz := {{ schema }}._clock();
  v_wakes  tid[];
  v_policy {{ schema }}._policy_in_force;
  v_survey record;
BEGIN
  offered := ARRAY[]::bigint[];
  is_busy := false;
  v_wakes := ARRAY ((SELECT w.ctid FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.lane = p_lane AND w.channel = p_channel LIMIT 1000)
                    UNION ALL
                    (SELECT w.ctid FROM {{ schema }}.wake w
                      WHERE (w.at IS NOT NULL OR w.released_at IS NOT NULL) AND w.lane = p_lane AND w.channel = p_channel AND w.at <= v_now LIMIT 1000));
  IF p_lane <> 0 THEN
    SELECT p.* INTO v_policy FROM {{ schema }}._policy_in_force p WHERE p.channel = p_channel;
  END IF;

  IF v_policy.id IS NULL THEN
    IF p_lane <> 0 THEN
      p_due_ids := p_due_ids || ARRAY (SELECT m.id FROM {{ schema }}.message m
                                        WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel AND m.dequeue_at <= v_now
                                        ORDER BY m.dequeue_at, m.id LIMIT 100);
    END IF;
    is_busy := cardinality(p_due_ids) > 0;
    IF is_busy THEN
      WITH moved AS (
        UPDATE {{ schema }}.message m
           SET status = 'READY', policy_id = NULL, timer_at = NULL
         WHERE m.id = ANY (ARRAY (
                 SELECT x.id FROM {{ schema }}.message x
                  WHERE x.id = ANY (p_due_ids)
                    AND (x.timer_at <= v_now OR x.status = 'WAITING' AND x.timer_at IS NULL AND x.dequeue_at <= v_now)
                    -- One that is ready already goes first if it sorts before it.
                    AND COALESCE((x.dequeue_at, x.id) < (SELECT r.dequeue_at, r.id FROM {{ schema }}.message r
                                                          WHERE r.status = 'READY' AND r.lane = p_lane ORDER BY r.dequeue_at, r.id LIMIT 1), true)
                  ORDER BY x.dequeue_at, x.id LIMIT 1
                    FOR NO KEY UPDATE SKIP LOCKED))
        RETURNING m.id
      )
      SELECT COALESCE(array_agg(m.id), ARRAY[]::bigint[]) INTO offered FROM moved m;
      RETURN;
    END IF;
  ELSE
    v_survey := {{ schema }}._channel_survey(p_lane, v_policy, NULL, v_now);
    IF v_survey.next_status IS NULL THEN
      offered := v_survey.ready_ids;
    ELSIF v_survey.release_at > v_now THEN
      release_at := v_survey.release_at;
    ELSIF v_policy.max_concurrency IS DISTINCT FROM 0 AND (v_survey.room > 0 OR v_survey.num_expired > 0 OR v_survey.room = 0 AND v_survey.ready_ids <> '{}') THEN
      offered := CASE WHEN v_survey.is_next_held OR v_survey.suspect_ids <> '{}' THEN {{ schema }}._channel_try_release(p_lane, p_channel)
                      ELSE {{ schema }}._channel_release(p_lane, p_channel) END;
      is_busy := offered = '{}';
      IF is_busy THEN
        offered := v_survey.ready_ids;
      END IF;
      RETURN;
    END IF;
    IF offered <> '{}' OR v_survey.is_ending OR v_survey.num_foreign > 0 THEN
      RETURN;
    END IF;
  END IF;
  DELETE FROM {{ schema }}.wake w
   WHERE w.ctid = ANY (ARRAY (SELECT x.ctid FROM {{ schema }}.wake x WHERE x.ctid = ANY (v_wakes) FOR UPDATE SKIP LOCKED));
  IF release_at IS NOT NULL THEN
    PERFORM {{ schema }}._timer_set(p_lane, p_channel, release_at, v_survey.released_at);
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_offer(bigint, text, bigint[]) IS
'What the caller may take when it is the channel''s turn, in the order of preference: a message that was made ready for it, or those that the policy has released; of a channel without a policy, those that are ready and go first are not named.
p_due_ids: messages of the channel whose delay or lock is over, as far as known. is_busy: something is in another transaction''s hands; release_at: when the channel''s release interval ends, if something waits for that.';
