CREATE OR REPLACE FUNCTION {{ schema }}._lane_tend(p_lane bigint, p_channel text DEFAULT NULL)
RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- The mutex is only ever tried, never waited for, and is held until the transaction ends, so that the next holder sees what this one did.
-- If the transaction stays open, this lane's limited channel stands still, and no other; if it rolls back, the wakes are there again.
-- Due wakes are deleted by the holder of the mutex alone, so the DELETE meets no other's lock.
DECLARE
  v_channel record;
  v_count   integer := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock($regclass${{ schema }}.wake$regclass$::regclass::oid::integer, hashint8(p_lane)) THEN
    RETURN NULL;
  END IF;
  FOR v_channel IN
    WITH gone AS (
      DELETE FROM {{ schema }}.wake w
       WHERE w.ctid = ANY (ARRAY (SELECT x.ctid FROM {{ schema }}.wake x WHERE x.at IS NULL AND x.lane = p_lane LIMIT 1000))
      RETURNING w.channel, w.released_at
    )
    SELECT u.channel, max(u.released_at) AS released_at
      FROM (SELECT g.channel, g.released_at FROM gone g UNION ALL SELECT p_channel, NULL) u
     WHERE u.channel IS NOT NULL
     GROUP BY u.channel
  LOOP
    v_count := v_count + {{ schema }}._channel_advance(p_lane, v_channel.channel, v_channel.released_at);
  END LOOP;
  RETURN v_count;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._lane_tend(bigint, text) IS
'Removes the due wakes of a lane, at most 1000, and advances their channels, and p_channel whether it had a wake or not; returns how many messages became ready, NULL if another transaction has the lane''s mutex.';
