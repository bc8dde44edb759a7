CREATE OR REPLACE FUNCTION {{ schema }}.channel_policy_set(channel text, max_concurrency integer DEFAULT NULL, release_interval_ms bigint DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
-- Only inserts: a version and a wake. It waits for nobody, and nobody for it.
BEGIN
  IF channel_policy_set.channel IS NULL OR octet_length(channel_policy_set.channel) NOT BETWEEN 1 AND 512 THEN
    PERFORM {{ schema }}._raise_invalid('channel', channel_policy_set.channel, 'Give a name of 1 to 512 bytes.');
  END IF;
  IF channel_policy_set.max_concurrency < 0 THEN
    PERFORM {{ schema }}._raise_invalid('max_concurrency', channel_policy_set.max_concurrency::text, 'Give 0 to pause the channel, a positive number, or NULL for no limit.');
  END IF;
  IF channel_policy_set.release_interval_ms NOT BETWEEN 0 AND 3155760000000 THEN
    PERFORM {{ schema }}._raise_invalid('release_interval_ms', channel_policy_set.release_interval_ms::text, 'Give milliseconds from 0 to 3155760000000 (100 years), or NULL for no interval.');
  END IF;

  PERFORM {{ schema }}._policy_add(channel_policy_set.channel, channel_policy_set.max_concurrency, channel_policy_set.release_interval_ms);
END
$function$;
COMMENT ON FUNCTION {{ schema }}.channel_policy_set(text, integer, bigint) IS
'Limits a channel: at most max_concurrency of its messages are out at a time, and two dequeues are release_interval_ms milliseconds apart.
max_concurrency NULL: no limit, 0: paused; release_interval_ms NULL or 0: no interval. Both are replaced. It binds every dequeue that begins after it is committed, for messages already there too. Errors: 22004, 22023.';
