CREATE OR REPLACE FUNCTION {{ schema }}._entries_read(p_index text)
RETURNS bigint
LANGUAGE sql VOLATILE
AS $function$
  -- No SET clause: with one it could not be inlined, and it is called twice a dequeue. Without the index the queue is slow, but works.
  SELECT COALESCE(pg_catalog.pg_stat_get_xact_tuples_returned(pg_catalog.to_regclass(p_index)), 0)
$function$;
COMMENT ON FUNCTION {{ schema }}._entries_read(text) IS
'A counter of the entries of an index that this session''s searches have read, those of dead rows included. Only differences within a call mean anything. It stands still while track_counts is off.';
