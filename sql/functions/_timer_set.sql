CREATE OR REPLACE FUNCTION {{ schema }}._timer_set(p_lane bigint, p_channel text, p_at timestamptz, p_released_at timestamptz)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
  -- One that is there already is held, lest another transaction deletes it that does not see yet what this one wants it for.
  PERFORM FROM {{ schema }}.wake w
    WHERE (w.at IS NOT NULL OR w.released_at IS NOT NULL) AND w.lane = p_lane AND w.channel = p_channel
      AND COALESCE(w.at, 'infinity') <= p_at AND (p_released_at IS NULL OR w.released_at = p_released_at)
    LIMIT 1 FOR KEY SHARE SKIP LOCKED;
  IF NOT FOUND THEN
    INSERT INTO {{ schema }}.wake (lane, channel, at, released_at) VALUES (p_lane, p_channel, p_at, p_released_at);
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}._timer_set(bigint, text, timestamptz, timestamptz) IS
'Has a channel looked at when p_at is over, unless a timer does so already. p_released_at: the release that an interval is counted from, or NULL.';
