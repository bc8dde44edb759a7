CREATE OR REPLACE FUNCTION {{ schema }}.message_cancel(id bigint)
RETURNS {{ schema }}.cancel_result
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
  IF message_cancel.id IS NULL THEN
    PERFORM {{ schema }}._raise_invalid('id', NULL, 'Give the id of the message.');
  END IF;

  DELETE FROM {{ schema }}.message m
   WHERE m.id = message_cancel.id AND (m.status <> 'LOCKED' OR m.unlock_at <= {{ schema }}._clock())
  RETURNING m.lane, m.channel, m.created_at, m.status INTO v_message;
  IF NOT FOUND THEN
    RETURN CASE WHEN EXISTS (SELECT FROM {{ schema }}.message m WHERE m.id = message_cancel.id)
                THEN 'MESSAGE_STATE_INVALID'::{{ schema }}.cancel_result ELSE 'MESSAGE_NOT_FOUND' END;
  END IF;
  IF v_message.lane <> 0 AND v_message.status <> 'WAITING' THEN
    PERFORM {{ schema }}._place_freed(v_message.lane, v_message.channel);
  END IF;
  IF {{ schema }}._event_channel() IS NOT NULL THEN
    PERFORM {{ schema }}._event_notify('MESSAGE_DELETED', message_cancel.id, {{ schema }}._channel_name(v_message.channel, message_cancel.id, v_message.created_at), NULL);
  END IF;
  RETURN 'MESSAGE_CANCELLED'::{{ schema }}.cancel_result;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.message_cancel(bigint) IS
'Removes a message that no worker holds; MESSAGE_STATE_INVALID if it is locked.
A lock that is over does not count, even if no dequeue has noticed. Its event is MESSAGE_DELETED. Errors: 22004.';
