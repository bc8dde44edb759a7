CREATE OR REPLACE FUNCTION {{ schema }}._walk_is_in_time(p_at timestamptz, p_late interval)
RETURNS boolean
LANGUAGE sql STABLE
AS $function$
  -- No SET clause: with one it could not be inlined. What is further away than _generations_walk would have set it comes of a clock that was set back.
  SELECT pg_catalog.pg_sequence_last_value($regclass${{ schema }}.generation_walk$regclass$)
         BETWEEN {{ schema }}._microseconds(p_at OPERATOR(pg_catalog.-) p_late) AND {{ schema }}._microseconds(p_at OPERATOR(pg_catalog.+) '61 s')
$function$;
COMMENT ON FUNCTION {{ schema }}._walk_is_in_time(timestamptz, interval) IS 'Whether the next walk of the generations is overdue at p_at by p_late at most. False before the first one is over.';
