CREATE OR REPLACE FUNCTION {{ schema }}._raise_invalid(p_argument text, p_value text, p_hint text)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
  IF p_value IS NULL THEN
    RAISE EXCEPTION '% must not be NULL', p_argument
      USING ERRCODE = 'null_value_not_allowed', HINT = p_hint;
  END IF;
  RAISE EXCEPTION 'invalid %: %', p_argument,
      CASE WHEN p_value = '' THEN '''''' WHEN length(p_value) > 80 THEN left(p_value, 80) || '…' ELSE p_value END
    USING ERRCODE = 'invalid_parameter_value', HINT = p_hint;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._raise_invalid(text, text, text) IS 'Refuses an argument: 22004 if it is NULL, else 22023, with its name, its value and what would be right.';
