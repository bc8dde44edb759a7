CREATE OR REPLACE FUNCTION {{ schema }}._microseconds(p_at timestamptz)
RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
  -- No SET clause: with one it could not be inlined.
  SELECT (extract(epoch FROM p_at) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8
$function$;
COMMENT ON FUNCTION {{ schema }}._microseconds(timestamptz) IS 'A time as a sequence can hold it: microseconds since 1970.';
