CREATE OR REPLACE FUNCTION {{ schema }}._bound_producer()
RETURNS text[]
LANGUAGE sql IMMUTABLE
AS $function$
  SELECT {{ schema }}._producer()
$function$;
COMMENT ON FUNCTION {{ schema }}._bound_producer() IS
'The functions that a producer of some channels only may call, by name. Who has the right to call this one, and not _producer, is one.';
