CREATE OR REPLACE FUNCTION {{ schema }}.message_delete_many(ids bigint[], num_attempts integer[])
RETURNS SETOF {{ schema }}.deleted
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $function$
-- Locks the messages' own rows, in the order of their ids (in which the primary key is searched), so that two calls for the same messages,
-- in whatever order, may wait for each other but never deadlock.
DECLARE
  v_bad    record;
  v_gone   record;
BEGIN
  IF message_delete_many.ids IS NULL THEN
    PERFORM {{ schema }}._raise_invalid('ids', NULL, 'Give an array of ids.');
  END IF;
  IF message_delete_many.num_attempts IS NULL THEN
    PERFORM {{ schema }}._raise_invalid('num_attempts', NULL, 'Give an array of num_attempts as message_dequeue returned them.');
  END IF;
  IF cardinality(message_delete_many.num_attempts) <> cardinality(message_delete_many.ids) THEN
    PERFORM {{ schema }}._raise_invalid('num_attempts', message_delete_many.num_attempts::text,
                                        format('Give as many elements as ids (%s).', cardinality(message_delete_many.ids)));
  END IF;
  SELECT u.id, u.n INTO v_bad
    FROM unnest(message_delete_many.ids, message_delete_many.num_attempts) WITH ORDINALITY AS u (id, num_attempts, n)
   WHERE u.id IS NULL OR u.num_attempts IS NULL
   ORDER BY u.n LIMIT 1;
  IF FOUND THEN
    PERFORM {{ schema }}._raise_invalid(format('%s[%s]', CASE WHEN v_bad.id IS NULL THEN 'ids' ELSE 'num_attempts' END, v_bad.n), NULL,
                                        'Give the id and the num_attempts of a message in each place.');
  END IF;

  WITH gone AS (
    DELETE FROM {{ schema }}.message m
     WHERE m.id = ANY (message_delete_many.ids) AND m.unlock_at IS NOT NULL
       -- IS TRUE keeps it a lookup for each row, so that no plan can begin with it.
       AND ((m.id, m.num_attempts) IN (SELECT u.id, u.num_attempts FROM unnest(message_delete_many.ids, message_delete_many.num_attempts) AS u (id, num_attempts))) IS TRUE
    RETURNING m.id, m.num_attempts, m.lane, m.channel, m.created_at
  )
  SELECT array_agg(g.id) AS ids, array_agg(g.num_attempts) AS attempts, array_agg(g.channel) AS channels, array_agg(g.created_at) AS times,
         array_agg(g.lane) FILTER (WHERE g.lane <> 0) AS lanes, array_agg(g.channel) FILTER (WHERE g.lane <> 0) AS named_channels
    INTO v_gone
    FROM gone g;
  IF v_gone.lanes IS NOT NULL THEN
    PERFORM {{ schema }}._places_freed(v_gone.lanes, v_gone.named_channels);
  END IF;
  IF {{ schema }}._event_channel() IS NOT NULL THEN
    PERFORM {{ schema }}._event_notify('MESSAGE_DELETED', u.id, {{ schema }}._channel_name(u.channel, u.id, u.created_at), NULL)
       FROM unnest(v_gone.ids, v_gone.channels, v_gone.times) AS u (id, channel, created_at);
  END IF;

  IF cardinality(v_gone.ids) = cardinality(message_delete_many.ids) THEN
    RETURN QUERY SELECT u.id, 'MESSAGE_DELETED'::{{ schema }}.delete_result FROM unnest(message_delete_many.ids) AS u (id);
    RETURN;
  END IF;
  -- As one call after the other would have answered: the first element with the right number deletes it, for the later ones it is gone.
  RETURN QUERY
  WITH given AS MATERIALIZED (
    SELECT u.id, u.num_attempts, u.n
      FROM unnest(message_delete_many.ids, message_delete_many.num_attempts) WITH ORDINALITY AS u (id, num_attempts, n)
  ), gone AS (
    SELECT g.id, min(g.n) AS n
      FROM given g JOIN unnest(v_gone.ids, v_gone.attempts) AS d (id, num_attempts) ON d.id = g.id AND d.num_attempts = g.num_attempts
     GROUP BY g.id
  )
  SELECT g.id,
         CASE WHEN g.n = d.n THEN 'MESSAGE_DELETED'::{{ schema }}.delete_result
              WHEN g.n > d.n THEN 'MESSAGE_NOT_FOUND'
              WHEN g.n < d.n OR COALESCE((SELECT true FROM {{ schema }}.message m WHERE m.id = g.id LIMIT 1), false) THEN 'MESSAGE_STATE_INVALID'
              ELSE 'MESSAGE_NOT_FOUND' END
    FROM given g LEFT JOIN gone d ON d.id = g.id
   ORDER BY g.n;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.message_delete_many(bigint[], integer[]) IS
'Removes many messages that the caller has dequeued; returns a row for each, in the order of the input.
Each is as by message_delete; one given twice is deleted once and then MESSAGE_NOT_FOUND. Errors: 22004, 22023 for arrays of lengths that do not fit; then nothing is deleted.';
