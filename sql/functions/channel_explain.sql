CREATE OR REPLACE FUNCTION {{ schema }}.channel_explain(channel text)
RETURNS {{ schema }}.channel_explanation
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
-- It only reads. What other transactions hold at this moment it does not know.
DECLARE
  c_most    CONSTANT integer := 100;
  v_now     timestamptz := {{ schema }}._clock();
  v_lane    bigint;
  v_answer  {{ schema }}.channel_explanation;
  v_outlook record;
  v_num_due integer;
  v_next_at timestamptz;
  v_at      timestamptz;
BEGIN
  IF channel_explain.channel IS NULL OR octet_length(channel_explain.channel) NOT BETWEEN 1 AND 512 THEN
    PERFORM {{ schema }}._raise_invalid('channel', channel_explain.channel, 'Give a name of 1 to 512 bytes.');
  END IF;

  v_lane := {{ schema }}._lane(channel_explain.channel);
  v_outlook := {{ schema }}._channel_outlook(v_lane, channel_explain.channel, v_now);
  v_num_due := {{ schema }}._num_due(v_lane, channel_explain.channel, v_now, 'infinity', 0, c_most);
  v_answer.channel := channel_explain.channel;
  v_answer.num_available := LEAST(v_num_due, v_outlook.num_allowed);
  v_answer.num_locked := v_outlook.num_locked;
  v_answer.locked_at := v_outlook.locked_at;
  v_answer.max_concurrency := v_outlook.max_concurrency;
  v_answer.release_interval_ms := v_outlook.release_interval_ms;

  IF v_answer.num_available > 0 THEN
    v_answer.reason := 'READY';
    v_at := v_now;
    v_answer.num_lanes_ahead := {{ schema }}._lanes_ahead(v_lane, v_now);
    v_answer.explanation := format('%s can be dequeued, after the turns of %s other channels.', v_answer.num_available, v_answer.num_lanes_ahead);
  ELSIF v_outlook.max_concurrency = 0 THEN
    v_answer.reason := 'PAUSED';
    v_answer.explanation := format('It is paused: max_concurrency is 0. %s are due.', v_num_due);
  ELSIF v_num_due > 0 AND v_outlook.num_locked >= v_outlook.max_concurrency THEN
    v_answer.reason := 'AT_LIMIT';
    v_at := v_outlook.unlock_at;
    v_answer.explanation := format('It is at its limit: %s of %s are locked, the first since %s. %s are due.',
                                   v_outlook.num_locked, v_outlook.max_concurrency, v_outlook.locked_at, v_num_due);
  ELSIF v_num_due > 0 THEN
    v_answer.reason := 'INTERVAL';
    v_at := v_outlook.release_at;
    v_answer.explanation := format('The next can be dequeued at %s, for it gives one in %s ms. %s are due.',
                                   v_outlook.release_at, v_outlook.release_interval_ms, v_num_due);
  ELSE
    SELECT min(m.dequeue_at) INTO v_next_at FROM {{ schema }}.message m
     WHERE m.status = 'WAITING' AND m.lane <> 0 AND m.lane = v_lane AND m.channel = channel_explain.channel;
    v_at := LEAST(v_next_at, v_outlook.unlock_at);
    IF v_next_at IS NOT NULL THEN
      v_answer.reason := 'DELAYED';
      v_answer.explanation := format('Nothing is due. The next is at %s; %s are locked.', v_next_at, v_outlook.num_locked);
    ELSIF v_outlook.num_locked > 0 THEN
      v_answer.reason := 'LOCKED';
      v_answer.explanation := format('All that it has, %s, is locked, the first since %s.', v_outlook.num_locked, v_outlook.locked_at);
    ELSE
      v_answer.reason := 'EMPTY';
      v_answer.explanation := 'It has no messages.';
    END IF;
  END IF;
  v_answer.available_in_ms := ceil(extract(epoch FROM v_at - v_now) * 1000);
  RETURN v_answer;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.channel_explain(text) IS
'Why is nothing delivered from this channel? One row, in words and columns.
reason is EMPTY, LOCKED (all that it has), DELAYED (nothing is due yet), PAUSED, INTERVAL (the next release is still to come), AT_LIMIT (as many are locked as may be) or READY: num_available can be had, in the turn after num_lanes_ahead other channels. Limits and locks come with it. See message_explain. Errors: 22004, 22023.';
