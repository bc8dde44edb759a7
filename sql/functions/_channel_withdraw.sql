CREATE OR REPLACE FUNCTION {{ schema }}._channel_withdraw(p_lane bigint, p_policy {{ schema }}._policy_in_force, p_limit integer)
RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- Passes by what another transaction is dequeuing at this moment. If that rolls back, the next dequeue finds it and calls this again.
DECLARE
  v_count integer;
BEGIN
  UPDATE {{ schema }}.message m
     SET status = 'WAITING', policy_id = NULL
   WHERE m.id = ANY (ARRAY (
           SELECT x.id FROM {{ schema }}.message x
            WHERE x.status = 'READY' AND x.lane = p_lane AND x.channel = p_policy.channel
              AND x.policy_id IS DISTINCT FROM p_policy.id
            ORDER BY x.dequeue_at, x.id LIMIT p_limit
              FOR NO KEY UPDATE SKIP LOCKED));
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN v_count;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._channel_withdraw(bigint, {{ schema }}._policy_in_force, integer) IS
'Puts ready messages of a channel that the policy in force did not release back to waiting, at most p_limit; returns how many.
The caller sees to a wake, so that they are released again as that policy allows.';
