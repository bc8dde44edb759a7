CREATE OR REPLACE FUNCTION {{ schema }}._objects()
RETURNS TABLE (kind text, name text, part text, checksum text)
LANGUAGE sql STABLE
AS $function$
-- Not in it: owners, rights, and settings of autovacuum, which are the user's. Nor what PostgreSQL prints differently from one version to the
-- next, where it can be helped: the checksums outlive a pg_upgrade.
WITH schema AS (
  SELECT n.oid FROM pg_namespace n WHERE n.nspname = {{ schema_literal }}
), relation AS (
  SELECT c.oid, c.relname, c.relpersistence, c.relreplident, c.relrowsecurity, c.reloptions, c.reltype, c.relkind,
         CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type' END AS kind
    FROM schema s JOIN pg_class c ON c.relnamespace = s.oid AND c.relkind IN ('r', 'v', 'S', 'c')
), definition (kind, name, part, facts) AS (
  SELECT r.kind, r.relname, '',
         ARRAY[r.relpersistence::text, r.relreplident::text, r.relrowsecurity::text,
               (SELECT string_agg(o.option, ',' ORDER BY o.option) FROM unnest(r.reloptions) AS o (option) WHERE o.option NOT LIKE 'autovacuum%'),
               -- Without the aliases before columns, which PostgreSQL 15 prints, and 16 where they are needed.
               CASE WHEN r.relkind = 'v' THEN regexp_replace(pg_get_viewdef(r.oid), E'\\m[a-z]\\.', '', 'g') END,
               obj_description(CASE WHEN r.relkind = 'c' THEN r.reltype ELSE r.oid END, CASE WHEN r.relkind = 'c' THEN 'pg_type' ELSE 'pg_class' END),
               s.seqtypid::regtype::text, s.seqmin::text, s.seqmax::text, s.seqincrement::text, s.seqcycle::text]
    FROM relation r LEFT JOIN pg_sequence s ON s.seqrelid = r.oid
  UNION ALL
  SELECT r.kind, r.relname, 'column ' || a.attname,
         ARRAY[format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.attidentity::text, a.attgenerated::text, a.attcollation::regcollation::text,
               pg_get_expr(d.adbin, d.adrelid), col_description(r.oid, a.attnum)]
    FROM relation r
    JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
   WHERE r.relkind <> 'S'
  UNION ALL
  SELECT r.kind, r.relname, 'index ' || c.relname,
         ARRAY[pg_get_indexdef(i.indexrelid), i.indisvalid::text, i.indisunique::text, i.indisreplident::text, obj_description(c.oid, 'pg_class')]
    FROM relation r JOIN pg_index i ON i.indrelid = r.oid JOIN pg_class c ON c.oid = i.indexrelid
  UNION ALL
  -- PostgreSQL 18 has NOT NULL among the constraints; it is one of the column's facts.
  SELECT r.kind, r.relname, 'constraint ' || c.conname, ARRAY[pg_get_constraintdef(c.oid), c.convalidated::text]
    FROM relation r JOIN pg_constraint c ON c.conrelid = r.oid AND c.contype <> 'n'
  UNION ALL
  SELECT r.kind, r.relname, 'trigger ' || t.tgname, ARRAY[pg_get_triggerdef(t.oid), t.tgenabled::text]
    FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
  UNION ALL
  SELECT r.kind, r.relname, 'rule ' || w.rulename, ARRAY[pg_get_ruledef(w.oid), w.ev_enabled::text]
    FROM relation r JOIN pg_rewrite w ON w.ev_class = r.oid AND w.rulename <> '_RETURN'
  UNION ALL
  SELECT r.kind, r.relname, 'policy ' || p.polname, ARRAY[p.polcmd::text, pg_get_expr(p.polqual, r.oid), pg_get_expr(p.polwithcheck, r.oid)]
    FROM relation r JOIN pg_policy p ON p.polrelid = r.oid
  UNION ALL
  SELECT 'type', t.typname, '', ARRAY[(SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
                                      obj_description(t.oid, 'pg_type')]
    FROM schema s JOIN pg_type t ON t.typnamespace = s.oid AND t.typtype = 'e'
  UNION ALL
  SELECT 'function', p.proname, oidvectortypes(p.proargtypes),
         ARRAY[pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), l.lanname, p.prosrc, p.prosecdef::text, p.provolatile::text,
               p.proparallel::text, p.proisstrict::text, p.prorows::text, p.proconfig::text, obj_description(p.oid, 'pg_proc')]
    FROM schema s JOIN pg_proc p ON p.pronamespace = s.oid JOIN pg_language l ON l.oid = p.prolang
   WHERE EXISTS (SELECT FROM {{ schema }}.template t WHERE t.path = 'functions/' || p.proname || '.sql')
)
SELECT d.kind, d.name::text, d.part::text, md5(d.facts::text) FROM definition d
$function$;
COMMENT ON FUNCTION {{ schema }}._objects() IS
'What the catalog says of the objects in this schema: one row each and one for each part, with a checksum of its definition.
To be called with the search path of the public functions. Of functions only those that an install has made, of others all that there are.';
