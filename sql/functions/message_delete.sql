CREATE OR REPLACE FUNCTION {{ schema }}.message_delete(id bigint, num_attempts integer)
RETURNS {{ schema }}.delete_result
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
-- Locks the message's own row and nothing else. It waits only for a transaction that holds this very message.
DECLARE
  v_message record;
BEGIN
  -- With an argument that is NULL it finds nothing.
  DELETE FROM {{ schema }}.message m
   WHERE m.id = message_delete.id AND m.num_attempts = message_delete.num_attempts AND m.unlock_at IS NOT NULL
  RETURNING m.lane, m.channel, m.created_at, 'MESSAGE_DELETED'::{{ schema }}.delete_result AS result INTO v_message;
  IF NOT FOUND THEN
    IF message_delete.id IS NULL THEN
      PERFORM {{ schema }}._raise_invalid('id', NULL, 'Give the id of the message.');
    END IF;
    IF message_delete.num_attempts IS NULL THEN
      PERFORM {{ schema }}._raise_invalid('num_attempts', NULL, 'Give num_attempts as message_dequeue returned it.');
    END IF;
    RETURN CASE WHEN EXISTS (SELECT FROM {{ schema }}.message m WHERE m.id = message_delete.id)
                THEN 'MESSAGE_STATE_INVALID'::{{ schema }}.delete_result ELSE 'MESSAGE_NOT_FOUND' END;
  END IF;
  IF v_message.lane <> 0 THEN
    PERFORM {{ schema }}._place_freed(v_message.lane, v_message.channel);
  END IF;
  IF {{ schema }}._event_channel() IS NOT NULL THEN
    PERFORM {{ schema }}._event_notify('MESSAGE_DELETED', message_delete.id, {{ schema }}._channel_name(v_message.channel, message_delete.id, v_message.created_at), NULL);
  END IF;
  RETURN v_message.result;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.message_delete(bigint, integer) IS
'Removes a message that the caller has dequeued: its work is done.
num_attempts is the fencing token that message_dequeue returned; with another one, or if the message was deferred since, the answer is MESSAGE_STATE_INVALID and nothing changes. A worker whose lock has expired may still delete until the message is dequeued again. Errors: 22004.';
