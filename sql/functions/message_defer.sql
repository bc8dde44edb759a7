CREATE OR REPLACE FUNCTION {{ schema }}.message_defer(id bigint, num_attempts integer, delay_ms bigint DEFAULT 0, state bytea DEFAULT NULL)
RETURNS {{ schema }}.defer_result
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
-- Locks the message's own row and nothing else. It waits only for a transaction that holds this very message.
DECLARE
  v_at      timestamptz;
  v_message record;
BEGIN
  IF message_defer.id IS NULL THEN
    PERFORM {{ schema }}._raise_invalid('id', NULL, 'Give the id of the message.');
  END IF;
  IF message_defer.num_attempts IS NULL THEN
    PERFORM {{ schema }}._raise_invalid('num_attempts', NULL, 'Give num_attempts as message_dequeue returned it.');
  END IF;
  IF message_defer.delay_ms IS NULL OR message_defer.delay_ms NOT BETWEEN -3155760000000 AND 3155760000000 THEN
    PERFORM {{ schema }}._raise_invalid('delay_ms', message_defer.delay_ms::text, 'Give milliseconds from -3155760000000 to 3155760000000 (100 years either way).');
  END IF;
  IF octet_length(message_defer.state) > 256000000 THEN
    PERFORM {{ schema }}._raise_invalid('state', format('%s bytes', octet_length(message_defer.state)), 'Give at most 256000000 bytes.');
  END IF;

  -- As in message_create.
  v_at := CASE WHEN pg_current_xact_id() IS NOT NULL THEN {{ schema }}._clock() + message_defer.delay_ms * interval '1 ms' END;
  UPDATE {{ schema }}.message m
     SET status = CASE WHEN message_defer.delay_ms > 0
                         OR m.lane <> 0 AND COALESCE((SELECT true FROM {{ schema }}._policy_in_force p WHERE p.channel = m.channel LIMIT 1), false)
                       THEN 'WAITING'::{{ schema }}.message_status ELSE 'READY' END,
         policy_id = NULL, dequeue_at = v_at, unlock_at = NULL,
         generation = DEFAULT, timer_at = CASE WHEN message_defer.delay_ms > 0 THEN v_at END,
         state = COALESCE(message_defer.state, m.state)
   WHERE m.id = message_defer.id AND m.num_attempts = message_defer.num_attempts AND m.unlock_at IS NOT NULL
  RETURNING m.lane, m.channel, m.created_at INTO v_message;
  IF NOT FOUND THEN
    RETURN CASE WHEN EXISTS (SELECT FROM {{ schema }}.message m WHERE m.id = message_defer.id)
                THEN 'MESSAGE_STATE_INVALID'::{{ schema }}.defer_result ELSE 'MESSAGE_NOT_FOUND' END;
  END IF;
  -- Another may take its place, or it may itself, if it waits and is due at once.
  IF v_message.lane <> 0 THEN
    PERFORM {{ schema }}._place_freed(v_message.lane, v_message.channel);
  END IF;
  IF {{ schema }}._wake_channel() IS NOT NULL THEN
    PERFORM {{ schema }}._sleepers_wake();
  END IF;
  IF {{ schema }}._event_channel() IS NOT NULL THEN
    PERFORM {{ schema }}._event_notify('MESSAGE_DEFERRED', message_defer.id, {{ schema }}._channel_name(v_message.channel, message_defer.id, v_message.created_at), message_defer.delay_ms);
  END IF;
  RETURN 'MESSAGE_DEFERRED'::{{ schema }}.defer_result;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.message_defer(bigint, integer, bigint, bytea) IS
'Gives a message that the caller has dequeued back, to be delivered again after delay_ms milliseconds.
state is kept with the message for the next delivery; NULL keeps the state that it has, an empty one is a state like any other, and 256000000 bytes are the most. A negative delay puts it ahead of others in its channel. num_attempts as in message_delete. Errors: 22004, 22023.';
