CREATE OR REPLACE FUNCTION {{ schema }}.message_explain(id bigint)
RETURNS {{ schema }}.message_explanation
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
  v_answer  {{ schema }}.message_explanation;
  v_message record;
  v_outlook record;
  v_is_first boolean;
  v_at      timestamptz := v_now;
BEGIN
  IF message_explain.id IS NULL THEN
    PERFORM {{ schema }}._raise_invalid('id', NULL, 'Give the id of the message.');
  END IF;

  v_answer.id := message_explain.id;
  SELECT m.lane, m.channel, m.status, m.num_attempts, m.dequeue_at, m.locked_at, m.unlock_at INTO v_message
    FROM {{ schema }}.message m WHERE m.id = message_explain.id;
  IF NOT FOUND THEN
    v_answer.reason := 'GONE';
    v_answer.explanation := 'It is gone: deleted, cancelled, rolled back, or it never was.';
    RETURN v_answer;
  END IF;

  IF v_message.status = 'LOCKED' AND v_message.unlock_at > v_now THEN
    v_answer.reason := 'LOCKED';
    v_at := v_message.unlock_at;
    v_answer.explanation := format('A worker has had it since %s, and has it until %s: attempt %s.', v_message.locked_at, v_message.unlock_at, v_message.num_attempts);
  ELSIF v_message.dequeue_at > v_now THEN
    v_answer.reason := 'DELAYED';
    v_at := v_message.dequeue_at;
    v_answer.explanation := format('It is due at %s.', v_message.dequeue_at);
  ELSE
    v_outlook := {{ schema }}._channel_outlook(v_message.lane, v_message.channel, v_now);
    -- Where the limit is high it takes as many to know whether there is room.
    v_answer.num_ahead := {{ schema }}._num_due(v_message.lane, v_message.channel, v_now, v_message.dequeue_at, message_explain.id,
                                                CASE WHEN v_outlook.max_concurrency > c_most THEN v_outlook.max_concurrency ELSE c_most END);
    v_is_first := v_answer.num_ahead < v_outlook.num_allowed;
    v_answer.num_ahead := LEAST(v_answer.num_ahead, c_most);
    IF v_is_first THEN
      v_answer.reason := 'READY';
      v_answer.num_lanes_ahead := {{ schema }}._lanes_ahead(v_message.lane, v_now);
      v_answer.explanation := format('It can be dequeued. Before it come %s of its channel, and the turns of %s other channels.', v_answer.num_ahead, v_answer.num_lanes_ahead);
    ELSIF v_outlook.max_concurrency = 0 THEN
      v_answer.reason := 'PAUSED';
      v_at := NULL;
      v_answer.explanation := 'Its channel is paused: max_concurrency is 0.';
    ELSIF v_outlook.num_locked >= v_outlook.max_concurrency THEN
      v_answer.reason := 'AT_LIMIT';
      v_at := v_outlook.unlock_at;
      v_answer.explanation := format('Its channel is at its limit: %s of %s are locked, the first since %s. Before it come %s of its channel.',
                                     v_outlook.num_locked, v_outlook.max_concurrency, v_outlook.locked_at, v_answer.num_ahead);
    ELSIF v_outlook.release_at > v_now THEN
      v_answer.reason := 'INTERVAL';
      v_at := v_outlook.release_at;
      v_answer.explanation := format('The next message of its channel can be dequeued at %s, for it gives one in %s ms. Before it come %s of its channel.',
                                     v_outlook.release_at, v_outlook.release_interval_ms, v_answer.num_ahead);
    ELSE
      v_answer.reason := 'BEHIND';
      v_at := NULL;
      v_answer.explanation := format('Its channel may give %s, but %s come before it.', v_outlook.num_allowed, v_answer.num_ahead);
    END IF;
  END IF;
  v_answer.available_in_ms := ceil(extract(epoch FROM v_at - v_now) * 1000);
  RETURN v_answer;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.message_explain(bigint) IS
'Why is this message not delivered? One row, in words and columns.
reason is GONE, LOCKED (by a worker), DELAYED, PAUSED, INTERVAL (its channel''s next release is still to come), AT_LIMIT (as many of its channel are locked as may be), BEHIND (others of its channel come first, and there is no room for more) or READY: a dequeue can have it, after num_ahead of its channel and in the turn after num_lanes_ahead others. It uses the survey that decides in a dequeue, but does not know what other transactions hold right now. Errors: 22004.';
