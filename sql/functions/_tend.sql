CREATE OR REPLACE FUNCTION {{ schema }}._tend(p_budget integer, p_messages boolean, p_timers boolean, p_mark timestamptz, p_generations bigint[])
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $function$
-- For a dequeue that is a transaction of its own: what is done here is committed, and so seen by others, at once.
-- Rows that another transaction holds are passed by and stay for the next dequeue: the timer is in the row itself.
DECLARE
  v_now      timestamptz := {{ schema }}._clock();
  v_served   bigint := COALESCE(pg_sequence_last_value($regclass${{ schema }}.wake_rotation$regclass$), 0);
  v_lane     bigint := v_served;
  v_next     bigint;
  v_is_round boolean := false;
  v_has_had  boolean := false;
BEGIN
  IF p_messages THEN
    WITH moved AS (
      UPDATE {{ schema }}.message m
         SET status = CASE WHEN m.lane <> 0 AND COALESCE((SELECT true FROM {{ schema }}._policy_in_force p WHERE p.channel = m.channel LIMIT 1), false)
                           THEN 'WAITING'::{{ schema }}.message_status ELSE 'READY' END,
             policy_id = NULL, timer_at = NULL, generation = DEFAULT
       WHERE m.id = ANY (ARRAY (
               SELECT x.id FROM {{ schema }}.message x
                WHERE x.timer_at > p_mark AND x.timer_at <= v_now
                -- As in _message_offer: not to be taken without a policy while another acts on one.
                AND (x.lane = 0
                     OR COALESCE((SELECT true FROM {{ schema }}._policy_in_force p WHERE p.channel = x.channel LIMIT 1), false)
                     OR pg_try_advisory_xact_lock_shared($regclass${{ schema }}.wake$regclass$::regclass::oid::integer, hashint8(x.lane)))
                -- Each may cost a mutex, and the server's lock table has 64 places a session unless configured otherwise.
                ORDER BY x.timer_at LIMIT p_budget
                  FOR NO KEY UPDATE SKIP LOCKED))
      RETURNING m.lane, m.channel, m.status
    ), woken AS (
      INSERT INTO {{ schema }}.wake (lane, channel)
      SELECT DISTINCT m.lane, m.channel FROM moved m WHERE m.status = 'WAITING'
    )
    SELECT count(*) > 0 INTO v_has_had FROM moved m;
  END IF;
  IF p_timers THEN
    UPDATE {{ schema }}.wake w
       SET at = NULL, generation = DEFAULT
     WHERE w.ctid = ANY (ARRAY (
             SELECT x.ctid FROM {{ schema }}.wake x
              WHERE x.at > p_mark AND x.at <= v_now
              ORDER BY x.at LIMIT p_budget * 4
                FOR UPDATE SKIP LOCKED));
    v_has_had := v_has_had OR FOUND;
  END IF;

  -- One lane after the other, each looked for anew: others do the same at this moment, and what they have done need not be done again.
  FOR i IN 1 .. p_budget LOOP
    IF p_generations IS NULL THEN
      SELECT w.lane INTO v_next FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.lane > v_lane ORDER BY w.lane LIMIT 1;
    ELSE
      SELECT w.lane INTO v_next
        FROM unnest(p_generations) AS g (generation), LATERAL (
             SELECT x.lane FROM {{ schema }}.wake x
              WHERE x.at IS NULL AND (x.generation, x.lane) > (g.generation, v_lane) AND x.generation <= g.generation
              ORDER BY x.generation, x.lane LIMIT 1) w
       ORDER BY w.lane LIMIT 1;
    END IF;
    IF v_next IS NULL THEN
      IF v_is_round THEN
        RETURN v_has_had;
      END IF;
      v_is_round := true;
      -- Before all lanes.
      v_lane := -9223372036854775808;
      CONTINUE;
    END IF;
    IF v_is_round AND v_next > v_served THEN
      RETURN v_has_had;
    END IF;
    v_lane := v_next;
    PERFORM setval($regclass${{ schema }}.wake_rotation$regclass$, v_lane);
    v_has_had := {{ schema }}._lane_tend(v_lane) OR v_has_had;
  END LOOP;
  RETURN true;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._tend(integer, boolean, boolean, timestamptz, bigint[]) IS
'Notices delays, locks and timers that are over, at most p_budget messages (each becomes ready, or waits with a wake if its channel has a policy) and four times as many timers (each becomes a due wake), then advances the channels of the next p_budget lanes that have due wakes. Returns false if all of this is in other transactions'' hands.
p_messages: there are messages whose delay or lock is over; p_timers: there are timers that are. p_mark: what was over before is not looked at; p_generations: nor wakes of others, unless NULL.';
