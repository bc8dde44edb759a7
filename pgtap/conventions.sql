-- What holds for every object of the queue's schema, those of later releases too.
BEGIN;
SELECT plan(21);

CREATE FUNCTION pg_temp.queue() RETURNS oid LANGUAGE sql STABLE
AS $$ SELECT n.oid FROM pg_namespace n WHERE n.nspname = current_schema() $$;

CREATE TEMP VIEW function AS
SELECT p.oid, p.oid::regprocedure::text AS name, p.proname, p.proconfig, p.prosecdef, p.prosrc, p.proargnames, p.proargmodes, l.lanname
FROM pg_proc p
JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = pg_temp.queue();

-- Tables, views, sequences, composite types; not what belongs to another object: a table's row type, an identity's sequence.
CREATE TEMP VIEW relation AS
SELECT c.oid, c.relname, c.relkind, c.reltype
FROM pg_class c
WHERE c.relnamespace = pg_temp.queue()
  AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'c', 'f')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i' AND c.relkind = 'S');

SELECT cmp_ok((SELECT count(*) FROM function), '>=', 11::bigint, 'this file sees the functions');
SELECT cmp_ok((SELECT count(*) FROM relation), '>=', 8::bigint, 'this file sees tables, sequences and composite types');

-- search_path

SELECT is_empty(
    $$ SELECT f.name FROM function f
       WHERE f.proname NOT LIKE '\_%' AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (f.proconfig), false) $$,
    'every public function sets search_path to pg_catalog, pg_temp');
SELECT is_empty(
    $$ SELECT f.name FROM function f WHERE f.proname LIKE '\_%' AND f.proconfig IS NOT NULL $$,
    'no private function does: only public ones call them, and each would do it anew');

-- who may what

SELECT is_empty(
    $$ SELECT f.name FROM function f WHERE f.prosecdef <> (f.proname NOT LIKE '\_%' AND f.proname NOT IN ('role_grant', 'role_revoke')) $$,
    'every public function has its owner''s rights, so that none is needed on tables; not those that grant, nor private ones');
SELECT is_empty(
    $$ SELECT f.name FROM function f
       WHERE f.proname NOT LIKE '\_%' AND f.proname NOT IN ('role_grant', 'role_revoke')
         AND f.proname <> ALL (_producer() || _consumer() || _operator()) $$,
    'every public function is for a producer, a consumer or an operator, but for those that grant');
SELECT is_empty(
    $$ SELECT n.name FROM unnest(_producer() || _consumer() || _operator()) AS n (name) WHERE NOT EXISTS (SELECT FROM function f WHERE f.proname = n.name) $$,
    'what they may call is there');
SELECT is_empty(
    $$ SELECT n.name FROM unnest(_producer() || _consumer() || _operator()) AS n (name) WHERE n.name LIKE '\_%' AND n.name NOT IN ('_event_channel', '_wake_channel') $$,
    'and public, but for the names of the channels that they may listen to');

-- comments

SELECT is_empty(
    $$ SELECT f.name FROM function f WHERE coalesce(obj_description(f.oid, 'pg_proc'), '') !~ '^\S[^\n]*[.?](\n|$)' $$,
    'every function has a comment, and its first line is a sentence');
SELECT is_empty(
    $$ SELECT t.typname
       FROM pg_type t
       WHERE t.typnamespace = pg_temp.queue()
         AND t.typtype IN ('e', 'd', 'r')
         AND coalesce(obj_description(t.oid, 'pg_type'), '') !~ '^\S[^\n]*[.?](\n|$)' $$,
    'every enum, domain and range type has a comment, and its first line is a sentence');
SELECT is_empty(
    $$ SELECT r.relname
       FROM relation r
       WHERE coalesce(CASE WHEN r.relkind = 'c' THEN obj_description(r.reltype, 'pg_type') ELSE obj_description(r.oid, 'pg_class') END, '')
             !~ '^\S[^\n]*[.?](\n|$)' $$,
    'every table, view, sequence and composite type has a comment, and its first line is a sentence');
SELECT is_empty(
    $$ SELECT r.relname || '.' || a.attname
       FROM relation r
       JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
       WHERE r.relkind <> 'S'
         AND coalesce(col_description(r.oid, a.attnum), '') !~ '^\S[^\n]*[.?](\n|$)' $$,
    'every column, of composite types too, has a comment, and its first line is a sentence');
SELECT is_empty(
    $$ SELECT i.indexrelid::regclass
       FROM pg_index i
       JOIN relation r ON r.oid = i.indrelid
       WHERE NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)
         AND coalesce(obj_description(i.indexrelid, 'pg_class'), '') !~ '^\S[^\n]*[.?](\n|$)' $$,
    'every index that is not a constraint''s has a comment');

-- privileges

SELECT is_empty(
    $$ SELECT f.name FROM function f WHERE has_function_privilege('public', f.oid, 'EXECUTE') $$,
    'PUBLIC may execute no function');
SELECT is_empty(
    $$ SELECT r.relname
       FROM relation r
       WHERE r.relkind <> 'c'
         AND (r.relkind <> 'S' AND has_table_privilege('public', r.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
              OR r.relkind = 'S' AND has_sequence_privilege('public', r.oid, 'SELECT, USAGE, UPDATE'))
       UNION ALL
       SELECT current_schema()
       WHERE has_schema_privilege('public', pg_temp.queue(), 'USAGE, CREATE') $$,
    'PUBLIC may use no table, sequence or view, nor the schema');

-- time

SELECT is_empty(
    $$ SELECT f.name
       FROM function f
       WHERE f.proname <> '_clock'
         AND f.prosrc ~* '\m(clock_timestamp|now|timeofday)\s*\(|\m(current_timestamp|current_date|current_time|localtimestamp|localtime)\M' $$,
    'no function but _clock asks what time it is');
SELECT is_empty(
    $$ SELECT r.relname || '.' || a.attname
       FROM relation r
       JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
       WHERE r.relkind <> 'S'
         AND ((a.atttypid = 'timestamptz'::regtype) <> (a.attname ~ '(^|_)at$')
              OR a.atttypid = 'timestamp'::regtype
              OR a.attname ~ '_ms$' AND a.atttypid <> 'bigint'::regtype) $$,
    'a point in time is a timestamptz and named _at, a duration in milliseconds a bigint and named _ms');

-- style

SELECT is_empty(
    $$ SELECT f.name FROM function f WHERE f.prosrc ~* '\mwhen\s+others\M' $$,
    'no function swallows errors that it cannot name');
SELECT is_empty(
    $$ SELECT f.name || ' ' || a.name
       FROM function f
       CROSS JOIN unnest(f.proargnames, f.proargmodes) AS a (name, mode)
       WHERE coalesce(a.mode, 'i') = 'i'
         AND (f.proname ~ '^_') <> (a.name ~ '^p_') $$,
    'the arguments of private functions begin with p_, those of public ones do not');
SELECT is_empty(
    $$ SELECT i.indexrelid::regclass
       FROM pg_index i
       JOIN relation r ON r.oid = i.indrelid
       JOIN pg_class c ON c.oid = i.indexrelid
       WHERE NOT starts_with(c.relname, r.relname || '_') OR c.relname !~ '_(pkey|key|idx)$' $$,
    'an index is named after its table and what it is');
SELECT is_empty(
    $$ SELECT c.conname
       FROM pg_constraint c
       JOIN relation r ON r.oid = c.conrelid
       WHERE c.contype IN ('p', 'u', 'f', 'c', 'x')
         AND (NOT starts_with(c.conname, r.relname || '_') OR c.conname !~ '_(pkey|key|fkey|check|excl)$') $$,
    'a constraint is named after its table and what it is');

SELECT * FROM finish();
ROLLBACK;
