CREATE OR REPLACE FUNCTION {{ schema }}._take_many(p_served bigint, p_max_messages integer, p_lock_ms bigint, p_max_withdrawn integer)
RETURNS SETOF {{ schema }}.dequeued
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- What _take_one would do p_max_messages times, in one statement a round: the next lanes in rotation get equal shares, the first ones one
-- more where it does not divide, and what a lane could not fill is shared among all in the next round.
DECLARE
  v_wanted integer := p_max_messages;
  v_served bigint := p_served;
  v_moved  boolean;
  v_next   record;
  v_policy {{ schema }}._policy_in_force;
BEGIN
  LOOP
    v_moved := false;
    FOR v_next IN
      WITH turn AS MATERIALIZED (
        SELECT n.lane, n.position, count(*) OVER () AS num_lanes
          FROM {{ schema }}._lanes_next(v_served, v_wanted) WITH ORDINALITY AS n (lane, position)
      ), held AS MATERIALIZED (
        SELECT t.lane, t.position, h.*
          FROM turn t, LATERAL (
            SELECT m.id, m.channel, m.policy_id, m.dequeue_at, m.unlock_at IS NOT NULL AS is_unlocked
              FROM {{ schema }}.message m
             WHERE m.status = 'READY' AND m.lane = t.lane
             ORDER BY m.dequeue_at, m.id LIMIT v_wanted / t.num_lanes + CASE WHEN t.position <= v_wanted % t.num_lanes THEN 1 ELSE 0 END
               FOR NO KEY UPDATE SKIP LOCKED) h
      ), judged AS MATERIALIZED (
        SELECT h.*, row_number() OVER (PARTITION BY h.position ORDER BY h.dequeue_at, h.id) AS round, p.release_interval_ms,
               p.id IS NULL OR p.id IS NOT DISTINCT FROM h.policy_id AS is_allowed
          FROM held h
          LEFT JOIN LATERAL (SELECT x.id, x.release_interval_ms FROM {{ schema }}._policy_in_force x
                              WHERE x.channel = h.channel AND h.lane <> 0 LIMIT 1) p ON true
      ), clock AS MATERIALIZED (
        -- Read once, and after the rows are held, as in _take_one: it has to count them first.
        SELECT {{ schema }}._clock() AS now FROM (SELECT count(*) FROM judged) j
      ), locked AS (
        UPDATE {{ schema }}.message m
           SET status = 'LOCKED', num_attempts = m.num_attempts + 1, locked_at = c.now,
               lock_ms = COALESCE(p_lock_ms, m.lock_ms),
               unlock_at = c.now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms',
               timer_at = c.now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms'
          FROM judged j, clock c
         WHERE j.is_allowed AND m.id = j.id
        RETURNING j.round, j.position, j.lane, j.is_unlocked, j.release_interval_ms,
                  m.id, m.channel, m.content, m.state, m.num_attempts, m.locked_at, m.unlock_at
      ), timed AS (
        INSERT INTO {{ schema }}.wake (lane, channel, at, released_at)
        SELECT l.lane, l.channel, l.locked_at + l.release_interval_ms * interval '1 ms', l.locked_at
          FROM locked l WHERE l.release_interval_ms > 0
      )
      SELECT l.round, l.position, l.lane, true AS is_allowed, l.channel, l.id, l.content, l.state, l.num_attempts, l.is_unlocked, l.unlock_at
        FROM locked l
      UNION ALL
      SELECT j.round, j.position, j.lane, false, j.channel, j.id, NULL, NULL, NULL, NULL, NULL
        FROM judged j WHERE NOT j.is_allowed
      ORDER BY 1, 2
    LOOP
      v_moved := true;
      IF v_next.is_allowed THEN
        v_wanted := v_wanted - 1;
        v_served := v_next.lane;
        RETURN NEXT ROW('MESSAGE_DEQUEUED', v_next.id, v_next.channel, v_next.content, v_next.state, v_next.num_attempts,
                        v_next.is_unlocked, v_next.unlock_at, NULL)::{{ schema }}.dequeued;
      ELSE
        SELECT p.* INTO v_policy FROM {{ schema }}._policy_in_force p WHERE p.channel = v_next.channel;
        IF FOUND AND {{ schema }}._channel_withdraw(v_next.lane, v_policy, p_max_withdrawn) > 0 THEN
          INSERT INTO {{ schema }}.wake (lane, channel) VALUES (v_next.lane, v_next.channel);
        END IF;
      END IF;
    END LOOP;
    IF v_moved THEN
      PERFORM setval($regclass${{ schema }}.rotation$regclass$, v_served);
    END IF;
    EXIT WHEN v_wanted = 0 OR NOT v_moved;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._take_many(bigint, integer, bigint, integer) IS
'Locks up to p_max_messages ready messages in the order of turns and returns them; no row if none is to be had. Arguments as of _take_one.';
