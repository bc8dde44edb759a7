CREATE OR REPLACE FUNCTION {{ schema }}._consumer()
RETURNS text[]
LANGUAGE sql IMMUTABLE
AS $function$
  SELECT ARRAY['message_dequeue', 'message_delete', 'message_delete_many', 'message_defer', 'message_heartbeat', 'version_status', '_event_channel',
               '_wake_channel']
$function$;
COMMENT ON FUNCTION {{ schema }}._consumer() IS
'The functions that a consumer may call, by name. Who has the right to call this one is a consumer.';
