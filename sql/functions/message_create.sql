CREATE OR REPLACE FUNCTION {{ schema }}.message_create(channel text, content bytea, lock_ms bigint, delay_ms bigint DEFAULT 0)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
-- It only inserts. Its transaction may stay open for an hour or roll back, and nobody notices. One of its own may try for the mutex of a limited
-- channel, to make the message ready there and then, and hold it until it ends. (A pipeline of prepared statements looks so to its first one:
-- while it lasts nothing of that channel is released.)
DECLARE
  -- The clock is read when the transaction has a number, if it sets a timer (_generation_retire).
  v_now        timestamptz := CASE WHEN message_create.delay_ms <= 0 OR pg_current_xact_id() IS NOT NULL THEN {{ schema }}._clock() END;
  v_objection  text;
  v_lane       bigint;
  v_is_limited boolean;
  v_policy_id  bigint;
  v_call_stack text;
  v_id         bigint;
BEGIN
  -- All in one: each expression of its own is initialised anew in every transaction.
  v_objection := CASE
    WHEN octet_length(message_create.channel) NOT BETWEEN 1 AND 512 THEN 'channel'
    -- A row is sent as 1 GiB at most, in which most clients have each byte as two digits; and a state comes on top.
    WHEN COALESCE(octet_length(message_create.content) > 256000000, true) THEN 'content'
    WHEN COALESCE(message_create.lock_ms NOT BETWEEN 0 AND 3155760000000, true) THEN 'lock_ms'
    WHEN COALESCE(message_create.delay_ms NOT BETWEEN -3155760000000 AND 3155760000000, true) THEN 'delay_ms'
    WHEN session_user <> current_user AND has_function_privilege(session_user, $regprocedure${{ schema }}._bound_producer()$regprocedure$::regprocedure, 'EXECUTE')
      THEN 'bound' END;
  IF v_objection IS NOT NULL THEN
    CASE v_objection
      WHEN 'channel' THEN
        PERFORM {{ schema }}._raise_invalid('channel', message_create.channel, 'Give a name of 1 to 512 bytes, or NULL for no channel.');
      WHEN 'content' THEN
        PERFORM {{ schema }}._raise_invalid('content', octet_length(message_create.content) || ' bytes', 'Give at most 256000000 bytes; none at all are a content too.');
      WHEN 'lock_ms' THEN
        PERFORM {{ schema }}._raise_invalid('lock_ms', message_create.lock_ms::text, 'Give milliseconds from 0 to 3155760000000 (100 years).');
      WHEN 'delay_ms' THEN
        PERFORM {{ schema }}._raise_invalid('delay_ms', message_create.delay_ms::text, 'Give milliseconds from -3155760000000 to 3155760000000 (100 years either way).');
      WHEN 'bound' THEN
        PERFORM {{ schema }}._channels_check(ARRAY[message_create.channel]);
    END CASE;
  END IF;

  IF message_create.channel IS NOT NULL THEN
    v_lane := {{ schema }}._lane(message_create.channel);
    -- A policy that is committed while we look is not seen here; the dequeue that takes the message will see it and put the message back.
    SELECT NOT p.cleared INTO v_is_limited
      FROM {{ schema }}.channel_policy p WHERE p.channel = message_create.channel ORDER BY p.id DESC LIMIT 1;
    IF v_is_limited AND message_create.delay_ms <= 0 THEN
      IF message_create.delay_ms = 0 AND pg_current_xact_id_if_assigned() IS NULL THEN
        GET DIAGNOSTICS v_call_stack = PG_CONTEXT;
        v_policy_id := {{ schema }}._channel_admits(v_lane, message_create.channel, v_now, v_call_stack);
      END IF;
      IF v_policy_id IS NULL THEN
        INSERT INTO {{ schema }}.wake (lane, channel) VALUES (v_lane, message_create.channel);
      END IF;
    END IF;
  END IF;
  INSERT INTO {{ schema }}.message AS m (lane, lock_ms, created_at, dequeue_at, timer_at, policy_id, status, channel, content)
  VALUES (COALESCE(v_lane, 0), message_create.lock_ms, v_now, v_now + message_create.delay_ms * interval '1 ms',
          CASE WHEN message_create.delay_ms > 0 THEN v_now + message_create.delay_ms * interval '1 ms' END, v_policy_id,
          CASE WHEN message_create.delay_ms > 0 OR v_is_limited AND v_policy_id IS NULL THEN 'WAITING'::{{ schema }}.message_status ELSE 'READY' END,
          message_create.channel, message_create.content)
  RETURNING m.id INTO v_id;

  IF COALESCE({{ schema }}._wake_channel(), {{ schema }}._event_channel()) IS NOT NULL THEN
    IF {{ schema }}._wake_channel() IS NOT NULL THEN
      PERFORM {{ schema }}._sleepers_wake();
    END IF;
    IF {{ schema }}._event_channel() IS NOT NULL THEN
      PERFORM {{ schema }}._event_notify('MESSAGE_CREATED', v_id, {{ schema }}._channel_name(message_create.channel, v_id, v_now), message_create.delay_ms);
    END IF;
  END IF;
  RETURN v_id;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.message_create(text, bytea, bigint, bigint) IS
'Puts a message into a channel and returns its id.
It can be dequeued once the calling transaction has committed and delay_ms milliseconds have passed since the call; a negative delay puts it ahead of others in its channel. channel NULL: no channel; all such messages share one turn, first in, first out. lock_ms is for how many milliseconds a dequeue locks it and a heartbeat extends the lock. The content has at most 256000000 bytes. Errors: 42501 if the role is bound to other channels, 22004, 22023.';
