CREATE OR REPLACE FUNCTION {{ schema }}._tend_next(p_served bigint, p_max_messages integer)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
-- Without this a batch from a channel that is always ready would keep the limited ones from their turns: _tend_carefully does one thing a call.
-- Nobody else is held up: the caller goes on from p_served, so it takes a message of every lane that was advanced here.
DECLARE
  v_now     timestamptz := {{ schema }}._clock();
  v_last    bigint;
  v_budget  integer := LEAST(p_max_messages, 1000);
  v_wake    record;
BEGIN
  SELECT max(n.lane) FILTER (WHERE n.position = v_budget) INTO v_last
    FROM {{ schema }}._lanes_next(p_served, v_budget) WITH ORDINALITY AS n (lane, position);
  FOR v_wake IN
    SELECT w.lane, w.channel FROM {{ schema }}._wakes_next(p_served, v_budget + 3) w
     WHERE (v_last IS NULL OR (w.lane <= p_served, w.lane) < (v_last <= p_served, v_last))
       AND EXISTS (SELECT FROM {{ schema }}.message m
                    WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = w.lane AND m.dequeue_at <= v_now)
  LOOP
    EXIT WHEN v_budget = 0;
    IF ({{ schema }}._channel_can_release(v_wake.lane, v_wake.channel, v_now)).can_release AND {{ schema }}._lane_tend(v_wake.lane) > 0 THEN
      v_budget := v_budget - 1;
    END IF;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._tend_next(bigint, integer) IS
'Advances channels with due wakes whose turn would be among the next p_max_messages after the lane p_served, and only if that makes a message ready.';
