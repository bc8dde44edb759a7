CREATE OR REPLACE FUNCTION {{ schema }}._places_freed(p_lanes bigint[], p_channels text[])
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- _place_freed, with its reasons, for many at once. For one it takes several times as long (measured), so single calls have their own.
DECLARE
  v_now timestamptz := {{ schema }}._clock();
BEGIN
  INSERT INTO {{ schema }}.wake (lane, channel)
  SELECT f.lane, f.channel
    FROM (SELECT DISTINCT u.lane, u.channel FROM unnest(p_lanes, p_channels) AS u (lane, channel)) f
   WHERE current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
      OR (SELECT m.dequeue_at <= v_now OR m.timer_at IS NULL FROM {{ schema }}.message m
           WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = f.lane AND m.channel = f.channel
           ORDER BY m.dequeue_at, m.id LIMIT 1);
  IF {{ schema }}._wake_channel() IS NOT NULL
     AND (FOUND OR COALESCE((SELECT true FROM unnest(p_lanes) AS u (lane), LATERAL (
                               SELECT FROM {{ schema }}.message m WHERE m.status = 'READY' AND m.lane = u.lane LIMIT 1) r LIMIT 1), false)) THEN
    PERFORM {{ schema }}._sleepers_wake();
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._places_freed(bigint[], text[]) IS
'Wakes those of the channels, given with their lanes, in which messages wait. To be called after messages of theirs that were out were changed, in a statement of its own.';
