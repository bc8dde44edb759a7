CREATE OR REPLACE FUNCTION {{ schema }}.message_heartbeat(id bigint, num_attempts integer, lock_ms bigint DEFAULT NULL)
RETURNS {{ schema }}.heartbeat_result
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
-- Takes the message's own row with SKIP LOCKED. If it waited, a worker that deletes in an open transaction and then joins the thread
-- that sends its heartbeats would hang for ever.
BEGIN
  IF message_heartbeat.id IS NULL THEN
    PERFORM {{ schema }}._raise_invalid('id', NULL, 'Give the id of the message.');
  END IF;
  IF message_heartbeat.num_attempts IS NULL THEN
    PERFORM {{ schema }}._raise_invalid('num_attempts', NULL, 'Give num_attempts as message_dequeue returned it.');
  END IF;
  IF message_heartbeat.lock_ms NOT BETWEEN 0 AND 3155760000000 THEN
    PERFORM {{ schema }}._raise_invalid('lock_ms', message_heartbeat.lock_ms::text, 'Give milliseconds from 0 to 3155760000000 (100 years), or NULL for the message''s own.');
  END IF;

  UPDATE {{ schema }}.message m
     SET lock_ms = COALESCE(message_heartbeat.lock_ms, m.lock_ms),
         (unlock_at, timer_at) = (
           SELECT u.at, u.at
             FROM (SELECT GREATEST(m.unlock_at, {{ schema }}._clock() + COALESCE(message_heartbeat.lock_ms, m.lock_ms) * interval '1 ms') AS at) u)
   WHERE m.id = ANY (ARRAY (
           SELECT x.id FROM {{ schema }}.message x
            WHERE x.id = message_heartbeat.id AND x.num_attempts = message_heartbeat.num_attempts AND x.status = 'LOCKED'
              FOR NO KEY UPDATE SKIP LOCKED));
  IF FOUND THEN
    RETURN 'MESSAGE_HEARTBEATED'::{{ schema }}.heartbeat_result;
  END IF;
  RETURN COALESCE(
    (SELECT CASE WHEN m.status = 'LOCKED' AND m.num_attempts = message_heartbeat.num_attempts
                 THEN 'MESSAGE_BUSY'::{{ schema }}.heartbeat_result ELSE 'MESSAGE_STATE_INVALID' END
       FROM {{ schema }}.message m WHERE m.id = message_heartbeat.id),
    'MESSAGE_NOT_FOUND');
END
$function$;
COMMENT ON FUNCTION {{ schema }}.message_heartbeat(bigint, integer, bigint) IS
'Extends the lock of a message that the caller has dequeued to lock_ms milliseconds from now; never shortens it.
lock_ms replaces the message''s own lock time from now on; NULL keeps it. Never waits: MESSAGE_BUSY if another transaction is at this very message right now. After the lock has expired it works only until a dequeue has noticed. num_attempts as in message_delete. Errors: 22004, 22023.';
