CREATE OR REPLACE FUNCTION {{ schema }}._horizon_is_over(p_horizon bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $function$
-- A transaction that has to do with it has a lock on one of the tables until it has ended, and has taken it before it read which generation is in
-- use. To list the locks costs more the more there are, so that is asked only if transactions are under way that are as old.
DECLARE
  c_unknown CONSTANT bigint := 9223372036854775807;
BEGIN
  RETURN pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= p_horizon
         OR p_horizon < c_unknown AND NOT EXISTS (
              -- One that waits for its lock counts too.
              WITH held AS MATERIALIZED (SELECT l.locktype, l.database, l.relation, l.transactionid, l.virtualtransaction, l.mode, l.pid FROM pg_locks l)
              SELECT FROM held t, held r
               WHERE t.locktype = 'transactionid' AND t.mode = 'ExclusiveLock' AND age(t.transactionid) > age((p_horizon % 4294967296)::text::xid)
                 AND r.virtualtransaction = t.virtualtransaction AND r.locktype = 'relation' AND r.mode = 'RowExclusiveLock'
                 AND r.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                 -- Its own are seen by the caller.
                 AND r.pid IS DISTINCT FROM pg_backend_pid()
                 AND r.relation IN ($regclass${{ schema }}.message$regclass$::regclass, $regclass${{ schema }}.wake$regclass$::regclass));
END
$function$;
COMMENT ON FUNCTION {{ schema }}._horizon_is_over(bigint) IS
'Whether all transactions with numbers below p_horizon that may have made something ready have ended: what they have committed is seen from now on.';
