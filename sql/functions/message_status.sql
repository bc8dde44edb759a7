CREATE OR REPLACE FUNCTION {{ schema }}.message_status(ids bigint[])
RETURNS SETOF {{ schema }}.message_state
LANGUAGE plpgsql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
DECLARE
  v_missing bigint;
BEGIN
  IF message_status.ids IS NULL THEN
    PERFORM {{ schema }}._raise_invalid('ids', NULL, 'Give an array of ids.');
  END IF;
  SELECT min(u.n) INTO v_missing FROM unnest(message_status.ids) WITH ORDINALITY AS u (id, n) WHERE u.id IS NULL;
  IF v_missing IS NOT NULL THEN
    PERFORM {{ schema }}._raise_invalid(format('ids[%s]', v_missing), NULL, 'Give the id of a message in each place.');
  END IF;
  RETURN QUERY
  SELECT f.*
    FROM unnest(message_status.ids) WITH ORDINALITY AS u (id, n),
         LATERAL (SELECT m.id, m.status, {{ schema }}._channel_name(m.channel, m.id, m.created_at), m.num_attempts, m.created_at, m.dequeue_at, m.locked_at, m.unlock_at
                    FROM {{ schema }}.message m WHERE m.id = u.id OFFSET 0) f
   ORDER BY u.n;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.message_status(bigint[]) IS
'Where messages are in their lives: a row for each that exists, in the order of the input; what is missing is gone.
Name the argument (ids => ''{1,2}'') or give an array (ARRAY[1,2]): message_status(''{1,2}'') is a cast to the type of the same name. Errors: 22004.';
