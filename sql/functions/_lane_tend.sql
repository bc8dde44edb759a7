CREATE OR REPLACE FUNCTION {{ schema }}._lane_tend(p_lane bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $function$
-- The mutex is only ever tried, never waited for, and is held until the transaction ends, so that the next holder sees what this one did.
-- If the transaction stays open, this lane's limited channel stands still, and no other; if it rolls back, the wakes are there again.
DECLARE
  c_batch   CONSTANT integer := 200;
  v_channel record;
BEGIN
  IF NOT pg_try_advisory_xact_lock($regclass${{ schema }}.wake$regclass$::regclass::oid::integer, hashint8(p_lane)) THEN
    RETURN false;
  END IF;
  FOR v_channel IN
    WITH gone AS (
      DELETE FROM {{ schema }}.wake w
       WHERE w.ctid = ANY (ARRAY (SELECT x.ctid FROM {{ schema }}.wake x WHERE x.at IS NULL AND x.lane = p_lane LIMIT 1000 FOR UPDATE SKIP LOCKED))
      RETURNING w.channel, w.released_at
    )
    -- One that another transaction holds is of a dequeue that found it to be of no use at that time; it may be of use now.
    SELECT u.channel, max(u.released_at) AS released_at
      FROM (SELECT g.channel, g.released_at FROM gone g
            UNION ALL
            (SELECT w.channel, NULL FROM {{ schema }}.wake w WHERE w.at IS NULL AND w.lane = p_lane LIMIT 1)) u
     GROUP BY u.channel
  LOOP
    PERFORM {{ schema }}._channel_advance(p_lane, v_channel.channel, v_channel.released_at, ARRAY[]::bigint[], c_batch);
  END LOOP;
  RETURN true;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._lane_tend(bigint) IS
'Removes the due wakes of a lane, at most 1000, and advances their channels, each by 200 messages at most; returns false, and does nothing, if another transaction has the lane''s mutex.';
