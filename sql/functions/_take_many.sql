CREATE OR REPLACE FUNCTION {{ schema }}._take_many(p_served bigint, p_max_messages integer, p_lock_ms bigint, p_is_alone boolean, p_generations bigint[])
RETURNS SETOF {{ schema }}._taken
LANGUAGE plpgsql VOLATILE
AS $function$
-- What single calls would do p_max_messages times, in few statements a round: the next lanes in rotation give one message each; if that is not enough, equal
-- shares of the rest, the first ones one more where it does not divide; and what a lane could not fill is shared among all in the next round.
--
-- If its transaction may stay open, what the policy in force did not release must not be held, so lanes that begin with such a message are left
-- alone, and others are passed by. There may be some of which no wake tells: of a producer that began before the policy and committed after it.
DECLARE
  v_wanted       integer := p_max_messages;
  v_served       bigint := p_served;
  v_now          timestamptz;
  v_lanes        bigint[];
  v_share        integer;
  v_num_more     integer;
  v_turn         bigint;
  v_held         record;
  v_more         record;
  v_foreign_ids  bigint[];
  v_timed_ids    bigint[];
  v_intervals_ms bigint[];
BEGIN
  LOOP
    IF p_is_alone AND p_generations IS NULL THEN
      -- Held as they are come by, so another batch at this moment passes by these.
      WITH RECURSIVE ahead AS (
        SELECT NULL::bigint AS id, NULL::tid AS ctid, v_served AS lane, NULL::timestamptz AS dequeue_at, NULL::text COLLATE "C" AS channel, NULL::bigint AS policy_id, NULL::timestamptz AS unlock_at
        UNION ALL
        SELECT n.* FROM ahead a, LATERAL (
          SELECT m.id, m.ctid, m.lane, m.dequeue_at, m.channel, m.policy_id, m.unlock_at FROM {{ schema }}.message m
           WHERE m.status = 'READY' AND m.lane > a.lane
           ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) n
      ), behind AS (
        SELECT NULL::bigint AS id, NULL::tid AS ctid, bigint '-9223372036854775808' AS lane, NULL::timestamptz AS dequeue_at, NULL::text COLLATE "C" AS channel, NULL::bigint AS policy_id, NULL::timestamptz AS unlock_at
        UNION ALL
        SELECT n.* FROM behind b, LATERAL (
          SELECT m.id, m.ctid, m.lane, m.dequeue_at, m.channel, m.policy_id, m.unlock_at FROM {{ schema }}.message m
           WHERE m.status = 'READY' AND m.lane > b.lane AND m.lane <= v_served
           ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) n
      )
      SELECT array_agg(h.id) AS ids, array_agg(h.ctid) AS ctids, array_agg(h.id) FILTER (WHERE h.unlock_at IS NOT NULL) AS unlocked_ids, array_agg(h.lane) AS lanes,
             array_agg(h.channel) AS channels, array_agg(h.policy_id) AS policy_ids, bool_or(h.lane <> 0) AS are_named, array_agg(h.dequeue_at) AS places
        INTO v_held
        FROM (SELECT a.* FROM ahead a WHERE a.id IS NOT NULL UNION ALL SELECT b.* FROM behind b WHERE b.id IS NOT NULL LIMIT v_wanted) h;
      EXIT WHEN v_held.ids IS NULL;
      v_num_more := v_wanted - cardinality(v_held.ids);
      IF v_num_more = 0 THEN
        -- Said at once, so that others at this moment go on behind these lanes.
        v_turn := v_held.lanes[v_wanted];
        PERFORM setval($regclass${{ schema }}.rotation$regclass$, v_turn);
      ELSE
        -- These are all the lanes: of each what comes behind the one that is held.
        SELECT array_agg(h.id) AS ids, array_agg(h.ctid) AS ctids, array_agg(h.id) FILTER (WHERE h.unlock_at IS NOT NULL) AS unlocked_ids, array_agg(t.lane) AS lanes,
               array_agg(h.channel) AS channels, array_agg(h.policy_id) AS policy_ids
          INTO v_more
          FROM unnest(v_held.lanes, v_held.places, v_held.ids) WITH ORDINALITY AS t (lane, dequeue_at, id, position), LATERAL (
               SELECT m.id, m.ctid, m.channel, m.policy_id, m.unlock_at
                 FROM {{ schema }}.message m
                WHERE m.status = 'READY' AND m.lane = t.lane AND (m.dequeue_at, m.id) > (t.dequeue_at, t.id)
                ORDER BY m.dequeue_at, m.id
                LIMIT v_num_more / cardinality(v_held.lanes) + CASE WHEN t.position <= v_num_more % cardinality(v_held.lanes) THEN 1 ELSE 0 END
                  FOR NO KEY UPDATE SKIP LOCKED) h;
        IF v_more.ids IS NOT NULL THEN
          SELECT v_held.ids || v_more.ids AS ids, v_held.ctids || v_more.ctids AS ctids, v_held.unlocked_ids || v_more.unlocked_ids AS unlocked_ids,
                 v_held.lanes || v_more.lanes AS lanes, v_held.channels || v_more.channels AS channels, v_held.policy_ids || v_more.policy_ids AS policy_ids,
                 v_held.are_named AS are_named
            INTO v_held;
        END IF;
      END IF;
    ELSE
      WITH lane AS MATERIALIZED (
        SELECT n.lane, n.position,
               CASE WHEN NOT p_is_alone AND n.lane <> 0 THEN (
                 SELECT f.channel
                   FROM (SELECT m.channel, m.policy_id FROM {{ schema }}.message m
                          WHERE m.status = 'READY' AND m.lane = n.lane ORDER BY m.dequeue_at, m.id LIMIT 1) f, LATERAL (
                        SELECT x.id, x.cleared FROM {{ schema }}.channel_policy x WHERE x.channel = f.channel ORDER BY x.id DESC LIMIT 1) p
                  WHERE NOT p.cleared AND p.id IS DISTINCT FROM f.policy_id) END AS foreign_channel
          FROM {{ schema }}._lanes_next(v_served, v_wanted, p_generations) WITH ORDINALITY AS n (lane, position)
      ), woken AS (
        INSERT INTO {{ schema }}.wake (lane, channel) SELECT l.lane, l.foreign_channel FROM lane l WHERE l.foreign_channel IS NOT NULL
      )
      SELECT array_agg(l.lane ORDER BY l.position) INTO v_lanes FROM lane l WHERE l.foreign_channel IS NULL;
      EXIT WHEN v_lanes IS NULL;

      v_share := v_wanted / cardinality(v_lanes);
      v_num_more := v_wanted % cardinality(v_lanes);
      IF p_generations IS NULL THEN
        SELECT array_agg(h.id) AS ids, array_agg(h.ctid) AS ctids, array_agg(h.id) FILTER (WHERE h.unlock_at IS NOT NULL) AS unlocked_ids, array_agg(t.lane) AS lanes,
               array_agg(h.channel) AS channels, array_agg(h.policy_id) AS policy_ids, bool_or(t.lane <> 0) AS are_named
          INTO v_held
          FROM unnest(v_lanes) WITH ORDINALITY AS t (lane, position), LATERAL (
               SELECT m.id, m.ctid, m.channel, m.policy_id, m.unlock_at
                 FROM {{ schema }}.message m
                WHERE m.status = 'READY' AND m.lane = t.lane
                  AND (m.lane = 0
                       OR COALESCE((SELECT p.cleared OR p.id IS NOT DISTINCT FROM m.policy_id
                                      FROM {{ schema }}.channel_policy p WHERE p.channel = m.channel ORDER BY p.id DESC LIMIT 1), true))
                ORDER BY m.dequeue_at, m.id LIMIT v_share + CASE WHEN t.position <= v_num_more THEN 1 ELSE 0 END
                  FOR NO KEY UPDATE SKIP LOCKED) h;
      ELSE
        -- The same through message_generation_idx: see _message_hold. Of two generations each gives a whole share, so that the first ones of both
        -- together are among them.
        SELECT array_agg(h.id) AS ids, array_agg(h.ctid) AS ctids, array_agg(h.id) FILTER (WHERE h.unlock_at IS NOT NULL) AS unlocked_ids, array_agg(h.lane) AS lanes,
               array_agg(h.channel) AS channels, array_agg(h.policy_id) AS policy_ids, bool_or(h.lane <> 0) AS are_named
          INTO v_held
          FROM (SELECT x.*, t.lane, t.turn, t.share, row_number() OVER (PARTITION BY t.lane ORDER BY x.dequeue_at, x.id) AS position
                  FROM (SELECT u.lane, u.position AS turn, v_share + CASE WHEN u.position <= v_num_more THEN 1 ELSE 0 END AS share
                          FROM unnest(v_lanes) WITH ORDINALITY AS u (lane, position)) t, unnest(p_generations) AS g (generation), LATERAL (
                       SELECT m.id, m.ctid, m.channel, m.policy_id, m.unlock_at, m.dequeue_at
                         FROM {{ schema }}.message m
                        WHERE m.status = 'READY' AND (m.generation, m.lane) >= (g.generation, t.lane)
                          AND (m.generation, m.lane) <= (g.generation, t.lane) AND m.generation <= g.generation
                          AND (p_is_alone OR m.lane = 0
                               OR COALESCE((SELECT p.cleared OR p.id IS NOT DISTINCT FROM m.policy_id
                                              FROM {{ schema }}.channel_policy p WHERE p.channel = m.channel ORDER BY p.id DESC LIMIT 1), true))
                        ORDER BY m.generation, m.lane, m.dequeue_at, m.id LIMIT t.share
                          FOR NO KEY UPDATE SKIP LOCKED) x
                 -- In the order of turns, as below it is asked which came last; the window has sorted by lane.
                 ORDER BY t.turn) h
         WHERE h.position <= h.share;
      END IF;
      EXIT WHEN v_held.ids IS NULL;
    END IF;

    -- Policies and clock are read when the rows are ours already, as in _take_one.
    IF v_held.are_named THEN
      SELECT array_agg(h.id) FILTER (WHERE h.policy_id IS DISTINCT FROM p.id),
             array_agg(h.id) FILTER (WHERE h.policy_id IS NOT DISTINCT FROM p.id AND p.release_interval_ms > 0),
             array_agg(p.release_interval_ms) FILTER (WHERE h.policy_id IS NOT DISTINCT FROM p.id AND p.release_interval_ms > 0)
        INTO v_foreign_ids, v_timed_ids, v_intervals_ms
        FROM unnest(v_held.ids, v_held.channels, v_held.policy_ids) AS h (id, channel, policy_id), LATERAL (
             SELECT x.id, x.release_interval_ms, x.cleared
               FROM {{ schema }}.channel_policy x WHERE x.channel = h.channel ORDER BY x.id DESC LIMIT 1) p
       WHERE NOT p.cleared;
      IF v_foreign_ids IS NOT NULL THEN
        INSERT INTO {{ schema }}.wake (lane, channel)
        SELECT DISTINCT h.lane, h.channel
          FROM unnest(v_held.ids, v_held.lanes, v_held.channels) AS h (id, lane, channel)
         -- IS TRUE keeps it a lookup for each row. As a join, with hash joins off, it would compare each with each.
         WHERE (h.id IN (SELECT unnest(v_foreign_ids))) IS TRUE;
        -- Their lanes go too: what was not taken was no turn.
        SELECT array_agg(h.id), array_agg(h.ctid), array_agg(h.lane) INTO v_held.ids, v_held.ctids, v_held.lanes
          FROM unnest(v_held.ids, v_held.ctids, v_held.lanes) AS h (id, ctid, lane) WHERE h.id NOT IN (SELECT unnest(v_foreign_ids));
        EXIT WHEN v_held.ids IS NULL;
      END IF;
    END IF;

    v_now := {{ schema }}._clock();
    RETURN QUERY
    WITH locked AS (
      UPDATE {{ schema }}.message m
         SET status = 'LOCKED', num_attempts = m.num_attempts + 1, locked_at = v_now,
             lock_ms = COALESCE(p_lock_ms, m.lock_ms),
             unlock_at = v_now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms',
             timer_at = v_now + COALESCE(p_lock_ms, m.lock_ms) * interval '1 ms'
       -- They are held, so they stay where they are.
       WHERE m.ctid = ANY (v_held.ctids)
      RETURNING m.id, m.lane, m.channel, m.created_at, m.dequeue_at, m.content, m.state, m.num_attempts, m.unlock_at
    )
    SELECT 'MESSAGE_DEQUEUED'::{{ schema }}.dequeue_result, l.id, {{ schema }}._channel_name(l.channel, l.id, l.created_at), l.content, l.state,
           l.num_attempts, l.id IN (SELECT unnest(v_held.unlocked_ids)), l.unlock_at, NULL::bigint
      FROM locked l
     ORDER BY row_number() OVER (PARTITION BY l.lane ORDER BY l.dequeue_at, l.id), l.lane <= v_served, l.lane;
    v_wanted := v_wanted - cardinality(v_held.ids);
    IF v_held.are_named THEN
      IF v_timed_ids IS NOT NULL THEN
        INSERT INTO {{ schema }}.wake (lane, channel, at, released_at)
        SELECT m.lane, m.channel, v_now + u.interval_ms * interval '1 ms', v_now
          FROM unnest(v_timed_ids, v_intervals_ms) AS u (id, interval_ms), LATERAL (
               SELECT x.lane, x.channel FROM {{ schema }}.message x WHERE x.id = u.id LIMIT 1) m;
      END IF;
      v_served := (SELECT h.lane FROM unnest(v_held.lanes) WITH ORDINALITY AS h (lane, n)
                    GROUP BY h.lane ORDER BY count(*) DESC, max(h.n) DESC LIMIT 1);
    ELSE
      v_served := 0;
    END IF;
    IF v_served IS DISTINCT FROM v_turn THEN
      PERFORM setval($regclass${{ schema }}.rotation$regclass$, v_served);
    END IF;
    EXIT WHEN v_wanted = 0 OR v_foreign_ids IS NOT NULL;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._take_many(bigint, integer, bigint, boolean, bigint[]) IS
'Locks up to p_max_messages ready messages in the order of turns and returns them; no row if none is to be had. p_is_alone as of _is_alone, p_generations as of _lanes_next, the others as of _take_one.';
