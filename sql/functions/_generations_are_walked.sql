CREATE OR REPLACE FUNCTION {{ schema }}._generations_are_walked(p_at timestamptz, p_late interval)
RETURNS boolean
LANGUAGE sql STABLE
AS $function$
  -- No SET clause: with one it could not be inlined. What is further away than _generations_walk would have set it comes of a clock that was set back.
  SELECT pg_catalog.pg_sequence_last_value($regclass${{ schema }}.generation_walk$regclass$)
         BETWEEN {{ schema }}._microseconds(p_at OPERATOR(pg_catalog.-) p_late) AND {{ schema }}._microseconds(p_at OPERATOR(pg_catalog.+) '61 s')
$function$;
COMMENT ON FUNCTION {{ schema }}._generations_are_walked(timestamptz, interval) IS 'Whether the next walk of the generations is not overdue at p_at by more than p_late.';
