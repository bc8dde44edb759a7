CREATE OR REPLACE FUNCTION {{ schema }}._clock()
RETURNS timestamptz
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $function$
  -- No SET clause: with one it could not be inlined, and it is called in every statement.
  SELECT pg_catalog.clock_timestamp()
$function$;
COMMENT ON FUNCTION {{ schema }}._clock() IS 'The one clock of the queue: the time now, not the transaction''s or the statement''s. Tests replace it.';
