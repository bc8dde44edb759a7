CREATE OR REPLACE FUNCTION {{ schema }}.message_create_many(channels text[], contents bytea[], lock_ms bigint[], delay_ms bigint[] DEFAULT '{0}')
RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $function$
-- As message_create, in one statement for all: it only inserts, so batches in any order neither wait nor deadlock.
DECLARE
  v_count  integer := cardinality(message_create_many.contents);
  v_lock   bigint[] := message_create_many.lock_ms;
  v_delay  bigint[] := message_create_many.delay_ms;
  -- As in message_create.
  v_now    timestamptz := CASE WHEN pg_current_xact_id() IS NOT NULL THEN {{ schema }}._clock() END;
  v_row    record;
  v_ids    bigint[];
BEGIN
  IF v_count IS NULL THEN
    PERFORM {{ schema }}._raise_invalid('contents', NULL, 'Give an array of bytea, one element a message.');
  END IF;
  IF v_lock IS NULL OR cardinality(v_lock) NOT IN (1, v_count) THEN
    PERFORM {{ schema }}._raise_invalid('lock_ms', v_lock::text, format('Give one element for all or as many as contents (%s).', v_count));
  END IF;
  IF v_delay IS NULL OR cardinality(v_delay) NOT IN (1, v_count) THEN
    PERFORM {{ schema }}._raise_invalid('delay_ms', v_delay::text, format('Give one element for all or as many as contents (%s).', v_count));
  END IF;
  IF cardinality(message_create_many.channels) <> v_count THEN
    PERFORM {{ schema }}._raise_invalid('channels', message_create_many.channels::text, format('Give as many elements as contents (%s), or NULL for no channels.', v_count));
  END IF;
  IF cardinality(v_lock) = 1 THEN
    v_lock := array_fill((SELECT unnest(v_lock)), ARRAY[v_count]);
  END IF;
  -- Also when it has as many: of any shape, it is counted from 1 to the end below.
  v_delay := CASE WHEN cardinality(v_delay) = 1 THEN array_fill((SELECT unnest(v_delay)), ARRAY[v_count])
                  ELSE ARRAY (SELECT unnest(v_delay)) END;

  SELECT u.* INTO v_row
    FROM unnest(message_create_many.channels, message_create_many.contents, v_lock, v_delay)
         WITH ORDINALITY AS u (channel, content, lock_ms, delay_ms, n)
   WHERE octet_length(u.channel) NOT BETWEEN 1 AND 512
      OR u.content IS NULL OR octet_length(u.content) > 256000000
      OR u.lock_ms IS NULL OR u.lock_ms NOT BETWEEN 0 AND 3155760000000
      OR u.delay_ms IS NULL OR u.delay_ms NOT BETWEEN -3155760000000 AND 3155760000000
   ORDER BY u.n LIMIT 1;
  IF FOUND THEN
    IF octet_length(v_row.channel) NOT BETWEEN 1 AND 512 THEN
      PERFORM {{ schema }}._raise_invalid(format('channels[%s]', v_row.n), v_row.channel, 'Give names of 1 to 512 bytes, or NULL for no channel.');
    ELSIF v_row.content IS NULL THEN
      PERFORM {{ schema }}._raise_invalid(format('contents[%s]', v_row.n), NULL, 'Give every content as bytea; it may be empty.');
    ELSIF octet_length(v_row.content) > 256000000 THEN
      PERFORM {{ schema }}._raise_invalid(format('contents[%s]', v_row.n), format('%s bytes', octet_length(v_row.content)), 'Give at most 256000000 bytes each.');
    ELSIF v_row.lock_ms IS NULL OR v_row.lock_ms NOT BETWEEN 0 AND 3155760000000 THEN
      PERFORM {{ schema }}._raise_invalid(format('lock_ms[%s]', v_row.n), v_row.lock_ms::text, 'Give milliseconds from 0 to 3155760000000 (100 years).');
    ELSE
      PERFORM {{ schema }}._raise_invalid(format('delay_ms[%s]', v_row.n), v_row.delay_ms::text, 'Give milliseconds from -3155760000000 to 3155760000000 (100 years either way).');
    END IF;
  END IF;

  IF session_user <> current_user AND has_function_privilege(session_user, $regprocedure${{ schema }}._bound_producer()$regprocedure$::regprocedure, 'EXECUTE') THEN
    PERFORM {{ schema }}._channels_check(COALESCE(message_create_many.channels, ARRAY[NULL]));
  END IF;

  WITH given AS (
    SELECT u.channel, CASE WHEN u.channel IS NULL THEN 0 ELSE {{ schema }}._lane(u.channel) END AS lane,
           u.content, u.lock_ms, u.delay_ms, v_now + u.delay_ms * interval '1 ms' AS at, u.n
      FROM unnest(message_create_many.channels, message_create_many.contents, v_lock, v_delay)
           WITH ORDINALITY AS u (channel, content, lock_ms, delay_ms, n)
  ), created AS (
    INSERT INTO {{ schema }}.message AS m (lane, lock_ms, created_at, dequeue_at, timer_at, status, channel, content)
    SELECT g.lane, g.lock_ms, v_now, g.at,
           CASE WHEN g.delay_ms > 0 THEN g.at END,
           CASE WHEN g.delay_ms > 0
                  OR g.lane <> 0 AND (SELECT NOT p.cleared FROM {{ schema }}.channel_policy p WHERE p.channel = g.channel ORDER BY p.id DESC LIMIT 1)
                THEN 'WAITING'::{{ schema }}.message_status ELSE 'READY' END,
           g.channel, g.content
      FROM given g ORDER BY g.n
    RETURNING m.id, m.lane, m.channel, m.status, m.timer_at
  ), woken AS (
    INSERT INTO {{ schema }}.wake (lane, channel)
    SELECT DISTINCT c.lane, c.channel FROM created c WHERE c.status = 'WAITING' AND c.timer_at IS NULL
  )
  -- Ids are drawn in the order of insertion, which is the order of the input.
  SELECT array_agg(c.id ORDER BY c.id) INTO v_ids FROM created c;
  IF v_ids IS NOT NULL AND {{ schema }}._wake_channel() IS NOT NULL THEN
    PERFORM {{ schema }}._sleepers_wake();
  END IF;
  IF {{ schema }}._event_channel() IS NOT NULL THEN
    PERFORM {{ schema }}._event_notify('MESSAGE_CREATED', u.id, {{ schema }}._channel_name(u.channel, u.id, v_now), u.delay_ms)
       FROM unnest(v_ids, message_create_many.channels, v_delay) AS u (id, channel, delay_ms);
  END IF;
  RETURN QUERY SELECT u.id FROM unnest(v_ids) AS u (id);
END
$function$;
COMMENT ON FUNCTION {{ schema }}.message_create_many(text[], bytea[], bigint[], bigint[]) IS
'Puts many messages in at once and returns their ids in the order of the input.
channels NULL, or an element NULL: no channel. lock_ms and delay_ms, in milliseconds, have one element for all or as many as contents. Each message is as by message_create. Errors: 42501 if the role is bound to other channels, 22004, 22023, also for arrays of lengths that do not fit; then nothing is created.';
