CREATE OR REPLACE FUNCTION {{ schema }}._channel_admits(p_lane bigint, p_channel text, p_now timestamptz, p_call_stack text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- For a create that is a transaction of its own and the only row of its statement: it ends at once, and the mutex with it. Any other leaves the decision
-- to the dequeues (_channel_advance), as it would hold up the channel until it ends. So does one that finds others waiting: it could not be admitted,
-- and the mutex is wanted by those who release. They also decide where it takes more than a count: with an interval, or foreign messages.
--
-- The mutex makes the count exact, as in _channel_advance: its holder sees all that earlier holders made ready.
DECLARE
  -- Of those that are out no more are counted: above this the dequeues decide, each for many messages.
  c_most      CONSTANT integer := 200;
  v_policy_id bigint;
BEGIN
  IF NOT {{ schema }}._is_alone(p_call_stack)
     OR octet_length(current_query()) > 4096 OR current_query() !~* E'^\\s*select\\M' OR current_query() ~* E'\\m(from|union|values)\\M'
     OR current_setting('transaction_isolation') <> 'read committed'
     -- The first in the order tells, as in _place_freed.
     OR COALESCE((SELECT m.dequeue_at <= p_now OR m.timer_at IS NULL FROM {{ schema }}.message m
                   WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel
                   ORDER BY m.dequeue_at, m.id LIMIT 1), false)
     OR NOT pg_try_advisory_xact_lock($regclass${{ schema }}.wake$regclass$::regclass::oid::integer, hashint8(p_lane)) THEN
    RETURN NULL;
  END IF;
  SELECT p.id INTO v_policy_id
    FROM (SELECT x.id, x.cleared, LEAST(x.max_concurrency, c_most) AS max_concurrency, x.release_interval_ms
            FROM {{ schema }}.channel_policy x WHERE x.channel = p_channel ORDER BY x.id DESC LIMIT 1) p, LATERAL (
         SELECT count(*) AS num
           FROM (SELECT FROM {{ schema }}.message m
                  WHERE m.status = 'LOCKED' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel LIMIT p.max_concurrency) x) l, LATERAL (
         SELECT count(*) AS num, COALESCE(bool_or(x.policy_id IS DISTINCT FROM p.id), false) AS has_foreign
           FROM (SELECT m.policy_id FROM {{ schema }}.message m
                  WHERE m.status = 'READY' AND m.lane = p_lane AND m.channel = p_channel LIMIT p.max_concurrency) x) r
   WHERE NOT p.cleared AND COALESCE(p.release_interval_ms, 0) = 0 AND l.num + r.num < p.max_concurrency AND NOT r.has_foreign
     -- Once more: what was put back before the mutex was ours is seen only now.
     AND NOT COALESCE((SELECT m.dequeue_at <= p_now OR m.timer_at IS NULL FROM {{ schema }}.message m
                        WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel
                        ORDER BY m.dequeue_at, m.id LIMIT 1), false);
  RETURN v_policy_id;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_admits(bigint, text, timestamptz, text) IS
'The version of a limited channel''s policy that allows one message more to be ready at once; NULL if it does not, or if that is not for the caller to find out. p_now is the time, p_call_stack the caller''s PG_CONTEXT.
To be asked before the transaction has written anything. If it is allowed the channel is the caller''s until its transaction ends.';
