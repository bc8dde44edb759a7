CREATE OR REPLACE FUNCTION {{ schema }}._channel_survey(
  p_lane bigint, p_policy {{ schema }}._policy_in_force, p_released_at timestamptz, p_now timestamptz,
  OUT allowance integer, OUT has_due boolean, OUT is_ending boolean, OUT num_expired integer, OUT num_foreign integer,
  OUT num_overtaking integer, OUT released_at timestamptz, OUT release_at timestamptz)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- Counts what a channel has out: ready and locked together in one statement, so in one snapshot. In two, a message that is dequeued
-- between them would be in neither. Nothing is counted further than the limit: more than that is too many, however many it is.
--
-- A row version whose xmax is another's (an update leaves the lock that it came with: xmax = xmin) is being updated, deleted or locked by a
-- transaction that is not over, or was by one that rolled back: it may end without seeing what this transaction does.
DECLARE
  v_cap    integer := LEAST(COALESCE(p_policy.max_concurrency, 200), 2147483646) + 1;
  v_locked integer;
  v_ready  integer;
BEGIN
  SELECT l.num, l.num_expired, r.num, r.num_foreign, COALESCE(l.is_held AND p_policy.max_concurrency IS NOT NULL, false) OR COALESCE(r.is_held, false),
         o.num, GREATEST(p_released_at, w.released_at), d.has_due
    INTO v_locked, num_expired, v_ready, num_foreign, is_ending, num_overtaking, released_at, has_due
    FROM (SELECT count(*) AS num,
                 count(*) FILTER (WHERE x.unlock_at <= p_now) AS num_expired,
                 bool_or(x.xmax <> 0 AND x.xmax <> x.xmin) AS is_held
            FROM (SELECT m.unlock_at, m.xmin, m.xmax FROM {{ schema }}.message m
                   WHERE m.status = 'LOCKED' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel
                   LIMIT v_cap) x) l,
         (SELECT count(*) AS num,
                 count(*) FILTER (WHERE x.policy_id IS DISTINCT FROM p_policy.id) AS num_foreign,
                 bool_or(x.xmax <> 0 AND x.xmax <> x.xmin) AS is_held
            FROM (SELECT m.policy_id, m.xmin, m.xmax FROM {{ schema }}.message m
                   WHERE m.status = 'READY' AND m.lane = p_lane AND m.channel = p_policy.channel
                   LIMIT v_cap) x) r,
         (SELECT count(*) AS num
            FROM (SELECT m.dequeue_at, m.id FROM {{ schema }}.message m
                   WHERE m.status = 'READY' AND m.lane = p_lane AND m.channel = p_policy.channel
                   ORDER BY m.dequeue_at DESC, m.id DESC LIMIT 1) last,
         LATERAL (SELECT FROM {{ schema }}.message m
                   WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel
                     AND m.dequeue_at <= p_now AND (m.dequeue_at, m.id) < (last.dequeue_at, last.id)
                   LIMIT 200) x) o,
         (SELECT max(x.released_at) AS released_at FROM {{ schema }}.wake x
           WHERE (x.at IS NOT NULL OR x.released_at IS NOT NULL) AND x.lane = p_lane AND x.channel = p_policy.channel) w,
         (SELECT EXISTS (SELECT FROM {{ schema }}.message m
                          WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_policy.channel
                            AND m.dequeue_at <= p_now) AS has_due) d;

  allowance := GREATEST(LEAST(p_policy.max_concurrency - v_locked - v_ready, 200), 0);
  IF p_policy.release_interval_ms > 0 THEN
    release_at := released_at + p_policy.release_interval_ms * interval '1 ms';
    allowance := CASE WHEN v_ready > 0 OR release_at > p_now THEN 0 ELSE LEAST(allowance, 1) END;
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_survey(bigint, {{ schema }}._policy_in_force, timestamptz, timestamptz) IS
'What a channel has out, and how many more of it may be made ready now (at most 200).
p_policy is the policy in force, p_released_at the last release that the caller knows of, p_now the time. is_ending: something that is out is in the hands of another transaction at this moment; foreign: ready, but released by another version of the policy or by none; overtaking: waits although it sorts before something ready; release_at: when the interval ends.';
