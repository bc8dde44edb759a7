CREATE OR REPLACE FUNCTION {{ schema }}.version_status()
RETURNS {{ schema }}.version_state
LANGUAGE sql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT (max(m.version), (SELECT l.package_version FROM {{ schema }}.migration l ORDER BY l.version DESC LIMIT 1),
        max(m.version) FILTER (WHERE m.is_breaking))::{{ schema }}.version_state
  FROM {{ schema }}.migration m
$function$;
COMMENT ON FUNCTION {{ schema }}.version_status() IS
'Which version of the queue is installed, for programs that ask whether they go with it.';
