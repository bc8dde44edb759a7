CREATE OR REPLACE FUNCTION {{ schema }}._operator()
RETURNS text[]
LANGUAGE sql IMMUTABLE
AS $function$
  SELECT ARRAY['channel_policy_set', 'channel_policy_clear', 'message_cancel', 'message_status', 'message_explain', 'channel_explain', 'check', 'repair',
               'version_status', '_event_channel']
$function$;
COMMENT ON FUNCTION {{ schema }}._operator() IS
'The functions that an operator may call, by name. Who has the right to call this one is an operator.';
