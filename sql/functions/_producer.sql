CREATE OR REPLACE FUNCTION {{ schema }}._producer()
RETURNS text[]
LANGUAGE sql IMMUTABLE
AS $function$
  SELECT ARRAY['message_create', 'message_create_many', 'version_status', '_event_channel']
$function$;
COMMENT ON FUNCTION {{ schema }}._producer() IS
'The functions that a producer may call, by name. Who has the right to call this one is a producer.';
