CREATE OR REPLACE FUNCTION {{ schema }}._schema_missing()
RETURNS TABLE (name text, statement text)
LANGUAGE plpgsql STABLE
AS $function$
BEGIN
  RETURN QUERY
  SELECT e.name,
         CASE WHEN e.is_constraint THEN format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s', n.nspname, e.relation, e.name, e.definition)
              ELSE format('DROP INDEX CONCURRENTLY IF EXISTS %1$I.%2$I; CREATE INDEX CONCURRENTLY %2$I ON %1$I.%3$I %4$s', n.nspname, e.name, e.relation, e.definition) END
    FROM (SELECT c.relnamespace FROM pg_class c WHERE c.oid = $regclass${{ schema }}.message$regclass$::regclass) q
    JOIN pg_namespace n ON n.oid = q.relnamespace, (VALUES
      ('message', 'message_ready_idx', '(lane, dequeue_at, id) WHERE status = ''READY''', false),
      ('message', 'message_generation_idx', '(generation, lane, dequeue_at, id) WHERE status = ''READY'' AND generation IS NOT NULL', false),
      ('message', 'message_channel_idx', '(lane, status, dequeue_at, id) WHERE status <> ''READY'' AND lane <> 0', false),
      ('message', 'message_timer_idx', '(timer_at, id) WHERE timer_at IS NOT NULL', false),
      ('wake', 'wake_due_idx', '(lane) WHERE at IS NULL', false),
      ('wake', 'wake_generation_idx', '(generation, lane) WHERE at IS NULL AND generation IS NOT NULL', false),
      ('wake', 'wake_timer_idx', '(at, lane) WHERE at IS NOT NULL', false),
      ('wake', 'wake_lane_idx', '(lane) WHERE at IS NOT NULL OR released_at IS NOT NULL', false),
      ('wake_up', 'wake_up_sleeper_idx', '(sleeper)', false),
      ('migration', 'migration_version_pkey', 'PRIMARY KEY (version)', true),
      ('template', 'template_path_pkey', 'PRIMARY KEY (path)', true),
      ('object', 'object_kind_name_part_pkey', 'PRIMARY KEY (kind, name, part)', true),
      ('producer', 'producer_role_pkey', 'PRIMARY KEY (role)', true),
      ('message', 'message_id_pkey', 'PRIMARY KEY (id)', true),
      ('channel_policy', 'channel_policy_channel_id_pkey', 'PRIMARY KEY (channel, id)', true)
    ) AS e (relation, name, definition, is_constraint)
   WHERE NOT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                      WHERE c.relnamespace = n.oid AND c.relname = e.name AND i.indisvalid);
END
$function$;
COMMENT ON FUNCTION {{ schema }}._schema_missing() IS
'The indexes and constraints that are missing or not valid, each with the statement that makes it.';
