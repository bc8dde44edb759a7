CREATE OR REPLACE FUNCTION {{ schema }}._timers_expire(p_max_messages integer, p_max_wakes integer, OUT num_ready integer, OUT num_moved integer)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- Rows that another transaction holds are passed by and stay for the next dequeue: the timer is in the row itself.
DECLARE
  v_now timestamptz := {{ schema }}._clock();
  v_num_wakes integer;
BEGIN
  num_ready := 0;
  num_moved := 0;
  IF p_max_messages > 0 THEN
    WITH moved AS (
      UPDATE {{ schema }}.message m
         SET status = CASE WHEN m.lane <> 0 AND COALESCE((SELECT true FROM {{ schema }}._policy_in_force p WHERE p.channel = m.channel LIMIT 1), false)
                           THEN 'WAITING'::{{ schema }}.message_status ELSE 'READY' END,
             policy_id = NULL, timer_at = NULL
       WHERE m.id = ANY (ARRAY (
               SELECT x.id FROM {{ schema }}.message x
                WHERE x.timer_at <= v_now
                ORDER BY x.timer_at LIMIT p_max_messages
                  FOR NO KEY UPDATE SKIP LOCKED))
      RETURNING m.lane, m.channel, m.status
    ), woken AS (
      INSERT INTO {{ schema }}.wake (lane, channel)
      SELECT DISTINCT m.lane, m.channel FROM moved m WHERE m.status = 'WAITING'
    )
    SELECT count(*) FILTER (WHERE m.status = 'READY'), count(*) INTO num_ready, num_moved FROM moved m;
  END IF;

  IF p_max_wakes > 0 THEN
    UPDATE {{ schema }}.wake w
       SET at = NULL
     WHERE w.ctid = ANY (ARRAY (
             SELECT x.ctid FROM {{ schema }}.wake x
              WHERE x.at <= v_now
              ORDER BY x.at LIMIT p_max_wakes
                FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_num_wakes = ROW_COUNT;
    num_moved := num_moved + v_num_wakes;
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._timers_expire(integer, integer) IS
'Notices delays, locks and timers that are over: a message becomes ready, or waits with a wake if its channel has a policy; a timer becomes a due wake.
Returns how many messages became ready, and how many messages and timers were moved.';
