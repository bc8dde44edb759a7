CREATE OR REPLACE FUNCTION {{ schema }}._take_many(p_served bigint, p_max_messages integer, p_lock_ms bigint)
RETURNS SETOF {{ schema }}.dequeued
LANGUAGE plpgsql VOLATILE
AS $function$
-- What _take_one would do p_max_messages times, in two statements a round: the next lanes in rotation get equal shares, the first ones one
-- more where it does not divide, and what a lane could not fill is shared among all in the next round.
DECLARE
  v_wanted integer := p_max_messages;
  v_served bigint := p_served;
  v_now    timestamptz;
  v_held   record;
  v_taken  record;
BEGIN
  LOOP
    -- Lanes whose first message is not released by the policy in force are left alone, as in _take_one.
    WITH lane AS MATERIALIZED (
      SELECT n.lane, n.position, f.channel,
             n.lane <> 0 AND COALESCE((SELECT p.id IS DISTINCT FROM f.policy_id FROM {{ schema }}._policy_in_force p WHERE p.channel = f.channel LIMIT 1), false) AS is_foreign
        FROM {{ schema }}._lanes_next(v_served, v_wanted) WITH ORDINALITY AS n (lane, position), LATERAL (
             SELECT m.channel, m.policy_id FROM {{ schema }}.message m
              WHERE m.status = 'READY' AND m.lane = n.lane ORDER BY m.dequeue_at, m.id LIMIT 1) f
    ), woken AS (
      INSERT INTO {{ schema }}.wake (lane, channel) SELECT l.lane, l.channel FROM lane l WHERE l.is_foreign
    ), turn AS MATERIALIZED (
      SELECT l.lane, row_number() OVER (ORDER BY l.position) AS position, count(*) OVER () AS num_lanes FROM lane l WHERE NOT l.is_foreign
    )
    SELECT array_agg(h.id) AS ids, array_agg(t.lane) AS lanes, array_agg(t.position) AS positions, array_agg(h.channel) AS channels,
           array_agg(h.policy_id) AS policy_ids, array_agg(h.dequeue_at) AS dequeue_ats, array_agg(h.is_unlocked) AS are_unlocked
      INTO v_held
      FROM turn t, LATERAL (
        SELECT m.id, m.channel, m.policy_id, m.dequeue_at, m.unlock_at IS NOT NULL AS is_unlocked
          FROM {{ schema }}.message m
         WHERE m.status = 'READY' AND m.lane = t.lane
           AND (m.lane = 0 OR COALESCE((SELECT p.id IS NOT DISTINCT FROM m.policy_id FROM {{ schema }}._policy_in_force p WHERE p.channel = m.channel LIMIT 1), true))
         ORDER BY m.dequeue_at, m.id LIMIT v_wanted / t.num_lanes + CASE WHEN t.position <= v_wanted % t.num_lanes THEN 1 ELSE 0 END
           FOR NO KEY UPDATE SKIP LOCKED) h;
    EXIT WHEN v_held.ids IS NULL;

    -- Policies and clock are read when the rows are ours already, as in _take_one.
    v_now := {{ schema }}._clock();
    p_max_messages := v_wanted;
    FOR v_taken IN
      WITH judged AS MATERIALIZED (
        SELECT h.*, row_number() OVER (PARTITION BY h.position ORDER BY h.dequeue_at, h.id) AS round, p.release_interval_ms,
               p.id IS NULL OR p.id IS NOT DISTINCT FROM h.policy_id AS is_allowed
          FROM unnest(v_held.ids, v_held.lanes, v_held.positions, v_held.channels, v_held.policy_ids, v_held.dequeue_ats, v_held.are_unlocked)
               AS h (id, lane, position, channel, policy_id, dequeue_at, is_unlocked)
          LEFT JOIN LATERAL (SELECT x.id, x.release_interval_ms FROM {{ schema }}._policy_in_force x
                              WHERE x.channel = h.channel AND h.lane <> 0 LIMIT 1) p ON true
      ), locked AS (
        UPDATE {{ schema }}.message m
           SET status = 'LOCKED', num_attempts = m.num_attempts + 1, locked_at = v_now,
               lock_ms = COALESCE(p_lock_ms, m.lock_ms),
               unlock_at = v_now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms',
               timer_at = v_now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms'
          FROM judged j
         WHERE j.is_allowed AND m.id = j.id
        RETURNING j.round, j.position, j.lane, j.is_unlocked, m.id, {{ schema }}._channel_name(m.channel, m.id, m.created_at) AS channel, m.content, m.state, m.num_attempts, m.unlock_at
      ), timed AS (
        INSERT INTO {{ schema }}.wake (lane, channel, at, released_at)
        SELECT j.lane, j.channel, v_now + j.release_interval_ms * interval '1 ms', v_now
          FROM judged j WHERE j.is_allowed AND j.release_interval_ms > 0
      ), refused AS (
        INSERT INTO {{ schema }}.wake (lane, channel)
        SELECT DISTINCT j.lane, j.channel FROM judged j WHERE NOT j.is_allowed
      )
      SELECT l.* FROM locked l ORDER BY l.round, l.position
    LOOP
      v_wanted := v_wanted - 1;
      v_served := v_taken.lane;
      RETURN NEXT ROW('MESSAGE_DEQUEUED', v_taken.id, v_taken.channel, v_taken.content, v_taken.state, v_taken.num_attempts,
                      v_taken.is_unlocked, v_taken.unlock_at, NULL)::{{ schema }}.dequeued;
    END LOOP;
    EXIT WHEN v_wanted = p_max_messages;
    PERFORM setval($regclass${{ schema }}.rotation$regclass$, v_served);
    EXIT WHEN v_wanted = 0;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._take_many(bigint, integer, bigint) IS
'Locks up to p_max_messages ready messages in the order of turns and returns them; no row if none is to be had. Arguments as of _take_one.';
