CREATE OR REPLACE FUNCTION {{ schema }}._places_freed(p_lanes bigint[], p_channels text[])
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- Called after the rows were deleted or updated, so that this statement's snapshot is younger than the hold on them. An advance that found a
-- row untouched is older, and so is all that it left waiting: it is seen here. An advance that found the row in our hands looks again
-- by itself (_channel_survey, is_ending). A snapshot for the whole transaction sees neither, so there the channel is woken in any case.
DECLARE
  v_now timestamptz := {{ schema }}._clock();
BEGIN
  INSERT INTO {{ schema }}.wake (lane, channel)
  SELECT f.lane, f.channel
    FROM (SELECT DISTINCT u.lane, u.channel FROM unnest(p_lanes, p_channels) AS u (lane, channel)) f
   WHERE current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
      -- The first in the order is enough: it is due, or, if the clock was set back, was due once.
      OR (SELECT m.dequeue_at <= v_now OR m.timer_at IS NULL FROM {{ schema }}.message m
           WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = f.lane AND m.channel = f.channel
           ORDER BY m.dequeue_at, m.id LIMIT 1);
END
$function$;
COMMENT ON FUNCTION {{ schema }}._places_freed(bigint[], text[]) IS
'Wakes those of the channels, given with their lanes, in which messages wait. To be called after messages of theirs that were out were changed, in a statement of its own.';
