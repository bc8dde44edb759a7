CREATE OR REPLACE FUNCTION {{ schema }}.repair()
RETURNS SETOF {{ schema }}.fault
LANGUAGE plpgsql VOLATILE ROWS 10
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $function$
-- It waits for nobody: what another transaction holds is passed by, and said to be. Of what it makes wait, and of each channel that it wakes, the
-- next dequeue decides, so to repair what was right after all does no harm.
DECLARE
  v_now    timestamptz := {{ schema }}._clock();
  v_fault  {{ schema }}.fault;
  v_lane   bigint;
  v_count  bigint;
  v_is_had boolean;
BEGIN
  -- It may set timers that are over. Until it is committed no search for them begins later (_generation_retire).
  -- Dequeues have this mutex for a moment, another repair until it ends.
  FOR i IN 1 .. 100 LOOP
    v_is_had := pg_try_advisory_xact_lock($regclass${{ schema }}.generation$regclass$::regclass::oid::integer, 1);
    EXIT WHEN v_is_had;
    PERFORM pg_sleep(0.01);
  END LOOP;
  IF NOT v_is_had THEN
    RAISE EXCEPTION 'another transaction is repairing the queue'
      USING ERRCODE = 'lock_not_available', HINT = 'Call repair again when it has ended.';
  END IF;
  -- Another value than any other: who has looked before this must notice.
  PERFORM setval($regclass${{ schema }}.timer_floor$regclass$, - ceil(random() * 1000000000)::bigint);
  FOR v_fault IN SELECT c.* FROM {{ schema }}.check() c LOOP
    v_lane := {{ schema }}._lane(v_fault.channel);
    CASE v_fault.kind
      WHEN 'MESSAGE_INCONSISTENT' THEN
        UPDATE {{ schema }}.message m
           SET (num_attempts, locked_at, unlock_at, timer_at, policy_id) = (
                 SELECT CASE WHEN l.is_locked OR m.locked_at IS NOT NULL THEN GREATEST(m.num_attempts, 1) ELSE GREATEST(m.num_attempts, 0) END,
                        CASE WHEN l.is_locked OR m.num_attempts > 0 THEN COALESCE(m.locked_at, v_now) ELSE m.locked_at END,
                        CASE WHEN l.is_locked THEN l.unlock_at WHEN m.num_attempts > 0 OR m.locked_at IS NOT NULL THEN m.unlock_at END,
                        CASE WHEN l.is_locked THEN l.unlock_at ELSE m.dequeue_at END,
                        CASE WHEN l.is_locked THEN m.policy_id END
                   FROM (SELECT m.status = 'LOCKED' AS is_locked, COALESCE(m.unlock_at, m.timer_at, v_now) AS unlock_at) l),
               status = CASE m.status WHEN 'LOCKED' THEN m.status ELSE 'WAITING' END,
               lock_ms = GREATEST(m.lock_ms, 0)
         WHERE m.id = ANY (ARRAY (SELECT x.id FROM {{ schema }}.message x WHERE x.id = v_fault.message_id FOR NO KEY UPDATE SKIP LOCKED));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_fault.remedy := 'It waits until it is due, or is locked until its lock ends.';

      WHEN 'LANE_WRONG' THEN
        UPDATE {{ schema }}.message m SET lane = CASE WHEN m.channel IS NULL THEN 0 ELSE {{ schema }}._lane(m.channel) END
         WHERE m.id = ANY (ARRAY (SELECT x.id FROM {{ schema }}.message x WHERE x.id = v_fault.message_id FOR NO KEY UPDATE SKIP LOCKED));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        IF v_fault.message_id IS NULL THEN
          DELETE FROM {{ schema }}.wake w
           WHERE w.ctid = ANY (ARRAY (SELECT x.ctid FROM {{ schema }}.wake x
                                       WHERE x.channel = v_fault.channel AND x.lane <> v_lane FOR UPDATE SKIP LOCKED));
          GET DIAGNOSTICS v_count = ROW_COUNT;
        END IF;
        INSERT INTO {{ schema }}.wake (lane, channel) SELECT v_lane, v_fault.channel WHERE v_fault.channel IS NOT NULL;
        v_fault.remedy := 'Moved to the lane of its channel.';

      WHEN 'POLICY_INCONSISTENT' THEN
        UPDATE {{ schema }}.channel_policy p
           SET max_concurrency = CASE WHEN p.max_concurrency < 0 THEN 0 ELSE p.max_concurrency END,
               release_interval_ms = CASE WHEN p.release_interval_ms < 0 THEN 0 ELSE p.release_interval_ms END,
               cleared = p.max_concurrency IS NULL AND COALESCE(p.release_interval_ms, 0) <= 0
         WHERE p.id = ANY (ARRAY (SELECT x.id FROM {{ schema }}.channel_policy x WHERE x.channel = v_fault.channel FOR NO KEY UPDATE SKIP LOCKED))
           AND p.channel = v_fault.channel;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        INSERT INTO {{ schema }}.wake (lane, channel) VALUES (v_lane, v_fault.channel);
        v_fault.remedy := 'Its limits are in force; one below 0 counts as 0.';

      WHEN 'MESSAGE_FORGOTTEN' THEN
        INSERT INTO {{ schema }}.wake (lane, channel) VALUES (v_lane, v_fault.channel);
        v_count := 1;
        v_fault.remedy := 'The channel is woken.';

      WHEN 'CHANNEL_OVERFULL' THEN
        v_count := 0;
        -- As in _channel_advance: what counts a channel's messages holds its mutex.
        IF pg_try_advisory_xact_lock($regclass${{ schema }}.wake$regclass$::regclass::oid::integer, hashint8(v_lane)) THEN
          UPDATE {{ schema }}.message m
             SET status = 'WAITING', policy_id = NULL
           WHERE m.id = ANY (ARRAY (
                   SELECT h.id
                     FROM (SELECT r.id, row_number() OVER (ORDER BY r.dequeue_at, r.id) > LEAST(
                                    CASE WHEN p.release_interval_ms > 0 THEN 1 END,
                                    p.max_concurrency - (SELECT count(*) FROM {{ schema }}.message x WHERE x.status = 'LOCKED' AND x.channel = p.channel)) AS is_too_many
                             FROM {{ schema }}._policy_in_force p JOIN {{ schema }}.message r ON r.channel = p.channel AND r.policy_id = p.id
                            WHERE p.channel = v_fault.channel AND r.status = 'READY') u, LATERAL (
                          SELECT x.id FROM {{ schema }}.message x WHERE x.id = u.id AND x.status::text = 'READY' FOR NO KEY UPDATE SKIP LOCKED) h
                    WHERE u.is_too_many));
          GET DIAGNOSTICS v_count = ROW_COUNT;
          INSERT INTO {{ schema }}.wake (lane, channel) VALUES (v_lane, v_fault.channel);
        END IF;
        v_fault.remedy := format('%s messages were put back.', v_count);

      ELSE
        v_fault.remedy := 'Not mended here. ' || v_fault.remedy;
        v_count := 1;
    END CASE;
    IF v_count = 0 THEN
      v_fault.remedy := 'Not mended: another transaction has it in hand, or has mended it. Check again.';
    END IF;
    RETURN NEXT v_fault;
  END LOOP;
  IF {{ schema }}._wake_channel() IS NOT NULL THEN
    PERFORM {{ schema }}._sleepers_wake();
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.repair() IS
'Mends what check finds and says what it did: the rows of check, with what was done for a remedy.
At most 1000 faults of a kind are mended in a call; TRANSACTION_OPEN and SCHEMA_INCOMPLETE are left to you. Like all functions here it waits for nobody. Errors: 55P03 while another transaction is repairing.';
