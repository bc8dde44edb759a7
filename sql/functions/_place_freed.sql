CREATE OR REPLACE FUNCTION {{ schema }}._place_freed(p_lane bigint, p_channel text)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- Called after the row was deleted or updated, so that this statement's snapshot is younger than the hold on the row. An advance that found the
-- row untouched is older, and so is all that it left waiting: it is seen here. An advance that found the row in our hands looks again
-- by itself (_channel_survey, is_ending). A snapshot for the whole transaction sees neither, so there the channel is woken in any case.
DECLARE
  v_now        timestamptz := {{ schema }}._clock();
  v_is_waiting boolean;
BEGIN
  v_is_waiting := current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
                  -- The first in the order is enough: it is due, or, if the clock was set back, was due once.
                  OR COALESCE((SELECT m.dequeue_at <= v_now OR m.timer_at IS NULL FROM {{ schema }}.message m
                                WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = p_lane AND m.channel = p_channel
                                ORDER BY m.dequeue_at, m.id LIMIT 1), false);
  IF v_is_waiting THEN
    INSERT INTO {{ schema }}.wake (lane, channel) VALUES (p_lane, p_channel);
  END IF;
  -- What is ready without having been released waits for this place too. The channel has a due wake then, of which who sleeps has to be told.
  IF {{ schema }}._wake_channel() IS NOT NULL
     AND (v_is_waiting OR COALESCE((SELECT true FROM {{ schema }}.message m WHERE m.status = 'READY' AND m.lane = p_lane LIMIT 1), false)) THEN
    PERFORM {{ schema }}._sleepers_wake();
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._place_freed(bigint, text) IS
'Wakes a channel one of whose messages is no longer out, if another waits. To be called after that message''s row was changed, in a statement of its own.';
