CREATE OR REPLACE FUNCTION {{ schema }}.check(max_open_ms bigint DEFAULT 60000)
RETURNS SETOF {{ schema }}.fault
LANGUAGE plpgsql STABLE ROWS 10
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $function$
-- It only reads, and each table a few times at most. STABLE: all statements see one snapshot, that of the statement that called. Whoever
-- changes something commits what announces it in the same transaction, so in a snapshot they are together; what is missing is missing.
DECLARE
  c_rows CONSTANT integer := 1000;
BEGIN
  IF max_open_ms IS NULL OR max_open_ms NOT BETWEEN 0 AND 3155760000000 THEN
    PERFORM {{ schema }}._raise_invalid('max_open_ms', max_open_ms::text, 'Give milliseconds from 0 to 3155760000000 (100 years).');
  END IF;

  -- Each row by itself. What has no timer was due once, and waits for its policy; without a channel it would wait for ever.
  RETURN QUERY
  SELECT 'MESSAGE_INCONSISTENT', 2, {{ schema }}._channel_name(f.channel, f.id, f.created_at), f.id, f.found,
         'repair() makes it wait until it is due, or locked until its lock ends.'
    FROM (SELECT m.id, m.channel, m.created_at,
                 CASE WHEN m.num_attempts < 0 OR (m.num_attempts = 0) <> (m.locked_at IS NULL) OR m.num_attempts = 0 AND m.unlock_at IS NOT NULL
                      THEN format('it was dequeued %s times, last at %s, its lock ends at %s', m.num_attempts, COALESCE(m.locked_at::text, 'no time'), COALESCE(m.unlock_at::text, 'no time'))
                      WHEN m.status = 'LOCKED' AND (m.unlock_at IS NULL OR m.num_attempts = 0)
                      THEN 'it is LOCKED, but no dequeue has locked it'
                      WHEN m.status = 'LOCKED' AND m.timer_at IS DISTINCT FROM m.unlock_at
                      THEN format('its lock ends at %s, but a dequeue looks at it at %s', m.unlock_at, COALESCE(m.timer_at::text, 'no time'))
                      WHEN m.status = 'READY' AND m.timer_at IS NOT NULL
                      THEN 'it is READY, but has a timer'
                      WHEN m.status = 'WAITING' AND m.timer_at <> m.dequeue_at
                      THEN format('it is due at %s, but a dequeue looks at it at %s', m.dequeue_at, m.timer_at)
                      WHEN m.status = 'WAITING' AND m.timer_at IS NULL AND m.lane = 0
                      THEN 'it is WAITING for a policy, but has no channel'
                      WHEN m.status = 'WAITING' AND m.policy_id IS NOT NULL
                      THEN 'it is WAITING, but released by a policy'
                      WHEN m.lock_ms < 0
                      THEN format('its lock lasts %s ms', m.lock_ms)
                 END AS found
            FROM {{ schema }}.message m) f
   WHERE f.found IS NOT NULL
   LIMIT c_rows;

  RETURN QUERY
  SELECT 'LANE_WRONG', 4, f.channel, f.id, format('%s is in lane %s, its channel is not', f.what, f.lane), 'repair() moves it.'
    FROM (SELECT m.channel, m.id, m.lane, 'a message' AS what FROM {{ schema }}.message m
           WHERE m.lane <> CASE WHEN m.channel IS NULL THEN 0 ELSE {{ schema }}._lane(m.channel) END
          UNION ALL
          SELECT DISTINCT w.channel, NULL::bigint, w.lane, 'a wake' FROM {{ schema }}.wake w WHERE w.lane <> {{ schema }}._lane(w.channel)) f
   LIMIT c_rows;

  RETURN QUERY
  SELECT 'POLICY_INCONSISTENT', 3, p.channel, NULL::bigint,
         format('max_concurrency %s, release_interval_ms %s, cleared %s', COALESCE(p.max_concurrency::text, 'NULL'), COALESCE(p.release_interval_ms::text, 'NULL'), p.cleared),
         'repair() makes it one without limits if it has none, and one that is in force if it has.'
    FROM {{ schema }}.channel_policy p
   WHERE p.cleared <> (p.max_concurrency IS NULL AND COALESCE(p.release_interval_ms, 0) = 0) OR p.max_concurrency < 0 OR p.release_interval_ms < 0
   LIMIT c_rows;

  -- Each channel by itself: what waits without a timer needs a wake, or a reason to wait whose end brings one. A wake may be a timer.
  RETURN QUERY
  WITH channel AS MATERIALIZED (
    SELECT m.channel, p.id AS policy_id, p.max_concurrency, p.release_interval_ms,
           min(m.id) FILTER (WHERE m.status = 'WAITING' AND m.timer_at IS NULL) AS waiting_id,
           count(*) FILTER (WHERE m.status = 'WAITING' AND m.timer_at IS NULL) AS num_waiting,
           min(m.id) FILTER (WHERE m.status = 'READY' AND m.policy_id = p.id) AS ready_id,
           count(*) FILTER (WHERE m.status = 'READY' AND m.policy_id = p.id) AS num_ready,
           count(*) FILTER (WHERE m.status = 'LOCKED') AS num_locked
      FROM {{ schema }}.message m LEFT JOIN {{ schema }}._policy_in_force p ON p.channel = m.channel
     WHERE m.lane <> 0
     GROUP BY m.channel, p.id, p.max_concurrency, p.release_interval_ms
  )
  (SELECT 'MESSAGE_FORGOTTEN', 2, c.channel, c.waiting_id,
          format('%s due messages wait, but nothing will release them: no wake, %s', c.num_waiting,
                 CASE WHEN c.policy_id IS NULL THEN 'no policy' ELSE format('%s out of %s', c.num_ready + c.num_locked, COALESCE(c.max_concurrency::text, 'any number')) END),
          'repair() wakes the channel.'
     FROM channel c
    WHERE c.num_waiting > 0
      AND (c.policy_id IS NULL
           OR (c.max_concurrency IS NULL OR c.num_ready + c.num_locked < c.max_concurrency)
              AND (COALESCE(c.release_interval_ms, 0) = 0 OR c.num_ready = 0))
      AND NOT EXISTS (SELECT FROM {{ schema }}.wake w WHERE w.channel = c.channel)
    LIMIT c_rows)
  UNION ALL
  -- Of what is locked some may have been taken under another policy.
  (SELECT 'CHANNEL_OVERFULL', 3, c.channel, c.ready_id,
          format('%s messages are locked and %s released, of %s%s', c.num_locked, c.num_ready, COALESCE(c.max_concurrency::text, 'any number'),
                 CASE WHEN c.release_interval_ms > 0 THEN format(', one in %s ms', c.release_interval_ms) ELSE '' END),
          'repair() makes those wait that are too many.'
     FROM channel c
    WHERE c.num_ready > 0
      AND (c.num_ready + c.num_locked > c.max_concurrency OR c.num_ready > 1 AND c.release_interval_ms > 0)
    LIMIT c_rows);

  -- A dequeue's transaction is to be committed at once. Only a dequeue, or a heartbeat, locks rows before it changes them. Of sessions that the queue's owner may not see nothing is known.
  RETURN QUERY
  SELECT DISTINCT ON (a.pid)
         'TRANSACTION_OPEN', 1, NULL::text, NULL::bigint,
         format('session %s of %s (%s) has dequeued in a transaction that has been open since %s', a.pid, a.usename, COALESCE(NULLIF(a.application_name, ''), 'no name'), a.xact_start),
         format('Commit it. As a last resort: SELECT pg_terminate_backend(%s)', a.pid)
    FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
   WHERE l.locktype = 'relation' AND l.relation = $regclass${{ schema }}.message$regclass$::regclass AND l.mode = 'RowShareLock' AND l.granted
     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
     AND a.pid <> pg_backend_pid()
     AND a.xact_start < statement_timestamp() - max_open_ms * interval '1 ms'
   ORDER BY a.pid
   LIMIT c_rows;

  RETURN QUERY
  SELECT 'SCHEMA_INCOMPLETE', 8, NULL::text, NULL::bigint, format('%s is missing or not valid', s.name), s.statement
    FROM {{ schema }}._schema_missing() s;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.check(bigint) IS
'What is wrong with the queue: a row for each fault, none when all is well; at most 1000 of a kind.
It reads each table as a whole, once or twice (about a second for a million messages), and locks nothing that anyone waits for. Of the promises in the design it verifies those that a snapshot can show. max_open_ms: for how many milliseconds a transaction that has dequeued may be open; to find them the owner of the queue has to be a role that may see other sessions (pg_read_all_stats). Errors: 22004, 22023.';
