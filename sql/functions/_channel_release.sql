CREATE OR REPLACE FUNCTION {{ schema }}._channel_release(p_lane bigint, p_channel text, p_over_ids bigint[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $function$
-- As _lane_tend, but for one channel and one message, which the caller takes.
DECLARE
  v_now         timestamptz := {{ schema }}._clock();
  v_released_at timestamptz;
  v_count       bigint;
  v_released    bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock($regclass${{ schema }}.wake$regclass$::regclass::oid::integer, hashint8(p_lane)) THEN
    RETURN NULL;
  END IF;
  WITH gone AS (
    DELETE FROM {{ schema }}.wake w
     WHERE w.ctid = ANY (ARRAY (SELECT x.ctid FROM {{ schema }}.wake x
                                 WHERE x.at IS NULL AND x.lane = p_lane AND x.channel = p_channel LIMIT 1000 FOR UPDATE SKIP LOCKED))
        OR w.ctid = ANY (ARRAY (SELECT x.ctid FROM {{ schema }}.wake x
                                 WHERE (x.at IS NOT NULL OR x.released_at IS NOT NULL) AND x.lane = p_lane AND x.channel = p_channel
                                   AND COALESCE(x.at, 'infinity') <= v_now LIMIT 1000 FOR UPDATE SKIP LOCKED))
    RETURNING w.released_at
  )
  SELECT max(g.released_at), count(*) INTO v_released_at, v_count FROM gone g;
  v_released := ({{ schema }}._channel_advance(p_lane, p_channel, v_released_at, p_over_ids, 1))[1];
  IF v_released IS NULL AND v_count > 0 THEN
    -- Another was faster. It may have left something to those wakes.
    INSERT INTO {{ schema }}.wake (lane, channel, released_at) VALUES (p_lane, p_channel, v_released_at);
  END IF;
  RETURN v_released;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_release(bigint, text, bigint[]) IS
'Makes the next message of a limited channel ready, if its policy allows, for the caller to take; returns its id, or none if it is in another transaction''s hands or that has the lane''s mutex.';
