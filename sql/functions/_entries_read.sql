CREATE OR REPLACE FUNCTION {{ schema }}._entries_read()
RETURNS bigint
LANGUAGE sql VOLATILE
AS $function$
  -- No SET clause: with one it could not be inlined, and it is called twice a dequeue.
  SELECT pg_catalog.pg_stat_get_xact_tuples_returned($regclass${{ schema }}.message_ready_idx$regclass$::pg_catalog.regclass)
       + pg_catalog.pg_stat_get_xact_tuples_returned($regclass${{ schema }}.message_timer_idx$regclass$::pg_catalog.regclass)
       + pg_catalog.pg_stat_get_xact_tuples_returned($regclass${{ schema }}.message_generation_idx$regclass$::pg_catalog.regclass)
       + pg_catalog.pg_stat_get_xact_tuples_returned($regclass${{ schema }}.wake_due_idx$regclass$::pg_catalog.regclass)
       + pg_catalog.pg_stat_get_xact_tuples_returned($regclass${{ schema }}.wake_generation_idx$regclass$::pg_catalog.regclass)
$function$;
COMMENT ON FUNCTION {{ schema }}._entries_read() IS
'A counter of the index entries that this session''s searches for ready messages, ends and wakes have read, those of dead rows included. Only differences within a call mean anything. It stands still while track_counts is off.';
