CREATE OR REPLACE FUNCTION {{ schema }}._channel_survey(
  p_lane bigint, p_policy {{ schema }}._policy_in_force, p_released_at timestamptz, p_now timestamptz, p_over_ids bigint[],
  OUT room bigint, OUT num_due integer, OUT num_foreign integer, OUT num_overtaking integer, OUT over_ids bigint[], OUT ready_ids bigint[],
  OUT suspect_ids bigint[], OUT is_flooded boolean, OUT is_ending boolean, OUT released_at timestamptz, OUT release_at timestamptz, OUT early_at timestamptz,
  OUT next_status {{ schema }}.message_status, OUT next_at timestamptz, OUT next_id bigint, OUT is_next_held boolean)
LANGUAGE plpgsql VOLATILE
AS $function$
-- Counts what a channel has out: ready and locked together in one statement, so in one snapshot. In two, a message that is dequeued
-- between them would be in neither. A lock that is over holds its place until that was noticed: a heartbeat may still renew it. A foreign message
-- holds none, since no dequeue may take it before an advance has released it; but one that did not see the policy yet may be taking it at this
-- moment: a suspect.
--
-- A row version whose xmax is another's (an update leaves the lock that it came with: xmax = xmin) is being updated, deleted or locked by a
-- transaction that is not over, or was by one that rolled back: it may end without seeing what this transaction does.
--
-- Of the ready ones the limit and c_ahead more are read. If there are more, suspects may be among those that were not.
DECLARE
  c_batch CONSTANT integer := 200;
  c_ahead CONSTANT integer := 1000;
  -- One more than the limit tells that it is exceeded; where there is none, only an interval, c_batch does for it. c_ahead more is still an integer.
  v_cap     integer := LEAST(COALESCE(p_policy.max_concurrency, c_batch), 2147480000) + 1;
  v_out     bigint;
  v_ready   bigint;
  v_waiting integer;
BEGIN
  SELECT l.num + r.num_own, r.num, r.num - r.num_own, COALESCE(r.ready_ids, '{}'), COALESCE(r.suspect_ids, '{}'),
         COALESCE(l.is_held AND p_policy.max_concurrency IS NOT NULL, false) OR COALESCE(r.is_held, false),
         d.num, d.num_due, COALESCE(d.is_held, false), d.early_at
    INTO v_out, v_ready, num_foreign, ready_ids, suspect_ids, is_ending, v_waiting, num_due, is_next_held, early_at
    FROM (SELECT count(*) AS num, bool_or(x.xmax <> 0 AND x.xmax <> x.xmin) AS is_held
            FROM (SELECT m.xmin, m.xmax FROM {{ schema }}.message m
                   WHERE m.status = 'LOCKED' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel
                   LIMIT v_cap + c_batch) x) l,
         (SELECT count(*) AS num,
                 count(*) FILTER (WHERE x.is_own) AS num_own,
                 array_agg(x.id ORDER BY x.dequeue_at, x.id) FILTER (WHERE x.is_own) AS ready_ids,
                 array_agg(x.id) FILTER (WHERE x.is_held AND NOT x.is_own) AS suspect_ids,
                 bool_or(x.is_held AND x.is_own) AS is_held
            FROM (SELECT m.id, m.dequeue_at, m.policy_id IS NOT DISTINCT FROM p_policy.id AS is_own, m.xmax <> 0 AND m.xmax <> m.xmin AS is_held
                    FROM {{ schema }}.message m
                   WHERE m.status = 'READY' AND m.lane = p_lane AND m.channel = p_policy.channel
                   ORDER BY m.dequeue_at, m.id LIMIT v_cap + c_ahead) x) r,
         (SELECT count(*) AS num, count(*) FILTER (WHERE x.is_due) AS num_due, bool_or(x.is_held AND x.is_due) AS is_held,
                 min(x.dequeue_at) FILTER (WHERE NOT x.is_due AND x.timer_at IS NULL) AS early_at
            FROM (SELECT m.dequeue_at, m.timer_at, m.dequeue_at <= p_now AS is_due, m.xmax <> 0 AND m.xmax <> m.xmin AS is_held
                    FROM {{ schema }}.message m
                   WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel
                   ORDER BY m.dequeue_at, m.id LIMIT 2) x) d;

  -- The rest as a rule need not be asked.
  IF v_waiting = 2 AND early_at IS NULL THEN
    SELECT min(x.dequeue_at) FILTER (WHERE x.timer_at IS NULL) INTO early_at
      FROM (SELECT m.dequeue_at, m.timer_at FROM {{ schema }}.message m
             WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel AND m.dequeue_at > p_now
             ORDER BY m.dequeue_at, m.id LIMIT 100) x;
  END IF;
  num_overtaking := 0;
  IF num_due > 0 AND ready_ids <> '{}' THEN
    SELECT count(*) INTO num_overtaking
      FROM (SELECT m.dequeue_at, m.id FROM {{ schema }}.message m WHERE m.id = ready_ids[cardinality(ready_ids)] LIMIT 1) last, LATERAL (
           SELECT FROM {{ schema }}.message m
            WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel
              AND m.dequeue_at <= p_now AND (m.dequeue_at, m.id) < (last.dequeue_at, last.id)
            LIMIT c_batch) x;
  END IF;
  released_at := p_released_at;
  IF p_policy.release_interval_ms > 0 THEN
    SELECT GREATEST(p_released_at, max(x.released_at)) INTO released_at
      FROM {{ schema }}.wake x
     WHERE (x.at IS NOT NULL OR x.released_at IS NOT NULL) AND x.lane = p_lane AND x.channel = p_policy.channel;
    release_at := released_at + p_policy.release_interval_ms * interval '1 ms';
  END IF;

  is_flooded := v_ready = v_cap + c_ahead;
  room := COALESCE(p_policy.max_concurrency, 2147483647) - v_out;
  over_ids := CASE WHEN p_over_ids = '{}' THEN p_over_ids
                   ELSE ARRAY (SELECT m.id FROM unnest(p_over_ids) AS u (id), LATERAL (
                                 SELECT x.id, x.dequeue_at FROM {{ schema }}.message x
                                  WHERE x.id = u.id AND x.status = 'LOCKED' AND x.unlock_at <= p_now LIMIT 1) m
                                ORDER BY m.dequeue_at, m.id) END;

  -- Only if there is something to compare: as a rule the one that waits first is the next.
  IF over_ids <> '{}' OR num_foreign > 0 OR ready_ids <> '{}' AND num_due > 0 THEN
    SELECT n.status, n.dequeue_at, n.id, n.is_held INTO next_status, next_at, next_id, is_next_held
      FROM ((SELECT m.status, m.dequeue_at, m.id, m.xmax <> 0 AND m.xmax <> m.xmin AS is_held FROM {{ schema }}.message m
              WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel AND m.dequeue_at <= p_now
              ORDER BY m.dequeue_at, m.id LIMIT 1)
            UNION ALL
            (SELECT m.status, m.dequeue_at, m.id, m.xmax <> 0 AND m.xmax <> m.xmin AS is_held FROM {{ schema }}.message m
              WHERE m.id = over_ids[1] AND m.status = 'LOCKED')
            UNION ALL
            (SELECT m.status, m.dequeue_at, m.id, m.xmax <> 0 AND m.xmax <> m.xmin AS is_held FROM {{ schema }}.message m
              WHERE m.status = 'READY' AND m.lane = p_lane AND m.channel = p_policy.channel AND m.policy_id IS DISTINCT FROM p_policy.id
                AND num_foreign > 0
              ORDER BY m.dequeue_at, m.id LIMIT 1)) n
     ORDER BY n.dequeue_at, n.id LIMIT 1;
  ELSIF num_due > 0 THEN
    next_status := 'WAITING';
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_survey(bigint, {{ schema }}._policy_in_force, timestamptz, timestamptz, bigint[]) IS
'What a channel has out, and what could come next. p_policy is the policy in force, p_released_at the last release that the caller knows of, p_now the time, p_over_ids messages of the channel whose lock may be over.
room: how many more may be out, negative if too many are. num_due: how many wait and are due, two at most. num_foreign: ready, but released by another version of the policy or by none. num_overtaking: wait, due, although they sort before something ready. over_ids: those of p_over_ids whose lock is over, in order. ready_ids: released by this policy, in order. suspect_ids: foreign, and perhaps in another transaction''s hands. is_flooded: there are too many to know all suspects. is_ending: something that is out is in another''s hands. release_at: when the interval ends. early_at: when something is due that was due before, as the clock was set back; it has no timer. next_status: the status of the message that would be the next to release, NULL if there is none; next_at, next_id: its place, if others are ready; is_next_held: it is perhaps in another transaction''s hands.';
