CREATE OR REPLACE FUNCTION {{ schema }}.message_dequeue(max_messages integer DEFAULT 1, lock_ms bigint DEFAULT NULL)
RETURNS SETOF {{ schema }}.dequeued
LANGUAGE plpgsql VOLATILE ROWS 10
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_sort = off
SET jit = off
AS $function$
-- A lane's turn comes when it has a ready message, or one that this call can make ready. Every row is taken with SKIP LOCKED and every mutex
-- is only tried: it waits for nobody.
--
-- If the transaction stays open, it holds what it took, and the mutex of those channels whose policy released that in this transaction: these stand
-- still. A message of a limited channel that was ready and had to give way to an earlier one is held too, and nothing else (one ready message at
-- the most that it met without a warning: of a channel that got a policy while it was created). If it rolls back, or the server dies, all is as
-- before, but that the rotation goes on from here.
--
-- A call that is a transaction of its own does a share of the work that is due for all before it takes what is ready.
--
-- The usual call takes one message, when nothing is due and no old snapshot is in the way. It does so in as few statements and expressions as there can
-- be, since each is initialised anew in every transaction, which is most of what a call costs.
DECLARE
  v_now          timestamptz := {{ schema }}._clock();
  v_served       bigint := COALESCE(pg_sequence_last_value($regclass${{ schema }}.rotation$regclass$), 0);
  v_num_read     bigint := - {{ schema }}._entries_read($regclass${{ schema }}.message_ready_idx$regclass$);
  v_is_single    boolean := message_dequeue.max_messages = 1 AND COALESCE(message_dequeue.lock_ms BETWEEN 0 AND 3155760000000, true)
                            AND current_setting('transaction_isolation') = 'read committed'
                            AND COALESCE(pg_sequence_last_value($regclass${{ schema }}.generation_walk$regclass$), 0) = 0;
  v_is_looked_at boolean;
  v_held         record;
  v_policy       record;
  v_is_bloated   boolean;
  v_has_messages boolean;
  v_has_timers   boolean;
  v_has_wakes    boolean;
  v_is_due       boolean;
  v_is_alone     boolean;
  v_call_stack   text;
  v_taken        record;
  v_seen         tid[];
  v_ready        tid[];
  v_round        integer;
  v_is_last      boolean;
  v_is_asleep    boolean;
  v_nap_ms       bigint;
  v_message      {{ schema }}._taken;
BEGIN
  LOOP
    IF v_is_single THEN
      -- What is due is looked for in the same statement, the first time. Each of these conditions is a lookup in an index of its own.
      IF v_served = 0 THEN
        -- Behind it there is no other lane, so this is all of them.
        SELECT m.id, m.ctid, m.lane, m.channel, m.policy_id, m.unlock_at INTO v_held
          FROM {{ schema }}.message m
         WHERE m.status = 'READY'
           AND (v_is_looked_at
                OR NOT EXISTS (SELECT FROM {{ schema }}.message x WHERE x.timer_at <= v_now)
               AND NOT EXISTS (SELECT FROM {{ schema }}.wake w WHERE w.at IS NULL)
               AND (SELECT true FROM {{ schema }}.wake w WHERE w.at <= v_now ORDER BY w.at LIMIT 1) IS NULL)
         ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1
           FOR NO KEY UPDATE SKIP LOCKED;
      ELSE
        SELECT h.id, h.ctid, h.lane, h.channel, h.policy_id, h.unlock_at, c.is_clear INTO v_held
          FROM (SELECT v_is_looked_at
                       OR NOT EXISTS (SELECT FROM {{ schema }}.message x WHERE x.timer_at <= v_now)
                      AND NOT EXISTS (SELECT FROM {{ schema }}.wake w WHERE w.at IS NULL)
                      AND (SELECT true FROM {{ schema }}.wake w WHERE w.at <= v_now ORDER BY w.at LIMIT 1) IS NULL AS is_clear OFFSET 0) c
          LEFT JOIN LATERAL (
               SELECT m.id, m.ctid, m.lane, m.channel, m.policy_id, m.unlock_at
                 FROM {{ schema }}.message m
                WHERE c.is_clear AND m.status = 'READY' AND m.lane > v_served
                ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1
                  FOR NO KEY UPDATE SKIP LOCKED) h ON true;
        -- Only if those ahead were looked at, or they would lose their turn.
        IF v_held.id IS NULL AND v_held.is_clear THEN
          SELECT m.id, m.ctid, m.lane, m.channel, m.policy_id, m.unlock_at INTO v_held
            FROM {{ schema }}.message m
           WHERE m.status = 'READY' AND m.lane <= v_served
           ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1
             FOR NO KEY UPDATE SKIP LOCKED;
        END IF;
      END IF;
      IF v_held.lane <> 0 THEN
        -- As in _take_one.
        SELECT p.id, p.cleared, p.release_interval_ms INTO v_policy
          FROM {{ schema }}.channel_policy p WHERE p.channel = v_held.channel ORDER BY p.id DESC LIMIT 1;
        IF NOT v_policy.cleared AND v_held.policy_id IS DISTINCT FROM v_policy.id THEN
          INSERT INTO {{ schema }}.wake (lane, channel) VALUES (v_held.lane, v_held.channel);
          v_held.id := NULL;
        END IF;
      END IF;
      IF v_held.id IS NOT NULL THEN
        v_now := {{ schema }}._clock();
        RETURN QUERY
        UPDATE {{ schema }}.message m
           SET status = 'LOCKED', num_attempts = m.num_attempts + 1, locked_at = v_now,
               lock_ms = COALESCE(message_dequeue.lock_ms, m.lock_ms),
               unlock_at = v_now + COALESCE(message_dequeue.lock_ms, m.lock_ms) * interval '1 ms',
               timer_at = v_now + COALESCE(message_dequeue.lock_ms, m.lock_ms) * interval '1 ms'
         -- It is held, so it stays where it is.
         WHERE m.ctid = v_held.ctid
        RETURNING 'MESSAGE_DEQUEUED'::{{ schema }}.dequeue_result, m.id, {{ schema }}._channel_name(m.channel, m.id, m.created_at), m.content, m.state, m.num_attempts,
                  v_held.unlock_at IS NOT NULL, m.unlock_at, NULL::bigint;
        IF v_held.lane <> 0 OR v_served <> 0 THEN
          IF v_held.lane <> v_served THEN
            PERFORM setval($regclass${{ schema }}.rotation$regclass$, v_held.lane);
          END IF;
          IF v_held.lane <> 0 THEN
            IF NOT v_policy.cleared AND v_policy.release_interval_ms > 0 THEN
              INSERT INTO {{ schema }}.wake (lane, channel, at, released_at)
              VALUES (v_held.lane, v_held.channel, v_now + v_policy.release_interval_ms * interval '1 ms', v_now);
            END IF;
          END IF;
        END IF;
        EXIT;
      END IF;
    ELSIF v_is_looked_at AND (v_is_alone OR NOT v_is_due) THEN
      -- Named, so that a call which an upgrade has caught here is none the wiser if there are more of them now.
      RETURN QUERY SELECT t.result, t.id, t.channel, t.content, t.state, t.num_attempts, t.is_unlocked, t.unlock_at, t.retry_ms
                     FROM {{ schema }}._take_many(v_served, message_dequeue.max_messages, message_dequeue.lock_ms, v_is_alone, NULL) t;
      EXIT WHEN FOUND;
    END IF;

    IF v_is_looked_at IS NULL THEN
      IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'message_dequeue works in READ COMMITTED only, not in %', upper(current_setting('transaction_isolation'))
          USING ERRCODE = 'active_sql_transaction',
                HINT = 'An older snapshot cannot see what others have taken. Dequeue in a transaction of its own in READ COMMITTED.';
      END IF;
      IF message_dequeue.max_messages IS NULL OR message_dequeue.max_messages < 1 THEN
        PERFORM {{ schema }}._raise_invalid('max_messages', message_dequeue.max_messages::text, 'Give the greatest number of messages to take, 1 or more.');
      END IF;
      IF message_dequeue.lock_ms NOT BETWEEN 0 AND 3155760000000 THEN
        PERFORM {{ schema }}._raise_invalid('lock_ms', message_dequeue.lock_ms::text, 'Give milliseconds from 0 to 3155760000000 (100 years), or NULL for the message''s own.');
      END IF;

      v_is_bloated := COALESCE(pg_sequence_last_value($regclass${{ schema }}.generation_walk$regclass$), 0) > 0;
      IF v_is_bloated THEN
        IF pg_current_xact_id_if_assigned() IS NULL THEN
          GET DIAGNOSTICS v_call_stack = PG_CONTEXT;
          v_is_alone := {{ schema }}._is_alone(v_call_stack);
        END IF;
        RETURN QUERY SELECT t.result, t.id, t.channel, t.content, t.state, t.num_attempts, t.is_unlocked, t.unlock_at, t.retry_ms
                       FROM {{ schema }}._take_in_generations(message_dequeue.max_messages, message_dequeue.lock_ms, COALESCE(v_is_alone, false)) t;
        IF FOUND THEN
          RETURN;
        END IF;
      END IF;

      SELECT EXISTS (SELECT FROM {{ schema }}.message m WHERE m.timer_at <= v_now),
             COALESCE((SELECT true FROM {{ schema }}.wake w WHERE w.at <= v_now ORDER BY w.at LIMIT 1), false),
             EXISTS (SELECT FROM {{ schema }}.wake w WHERE w.at IS NULL)
        INTO v_has_messages, v_has_timers, v_has_wakes;
      v_is_due := v_has_messages OR v_has_timers OR v_has_wakes;
      IF v_is_alone IS NULL AND (v_is_due OR message_dequeue.max_messages > 1) AND pg_current_xact_id_if_assigned() IS NULL THEN
        GET DIAGNOSTICS v_call_stack = PG_CONTEXT;
        v_is_alone := {{ schema }}._is_alone(v_call_stack);
      END IF;
      v_is_alone := COALESCE(v_is_alone, false);
      IF v_is_alone AND v_is_due THEN
        v_num_read := v_num_read + {{ schema }}._entries_read($regclass${{ schema }}.message_ready_idx$regclass$);
        PERFORM {{ schema }}._tend(GREATEST(32, LEAST(message_dequeue.max_messages, 250)), v_has_messages, v_has_timers, '-infinity', NULL);
        v_num_read := v_num_read - {{ schema }}._entries_read($regclass${{ schema }}.message_ready_idx$regclass$);
        -- That took its time, in which others took turns.
        v_served := COALESCE(pg_sequence_last_value($regclass${{ schema }}.rotation$regclass$), 0);
      END IF;
      v_is_single := message_dequeue.max_messages = 1 AND (v_is_alone OR NOT v_is_due);
      v_is_looked_at := true;
      v_seen := '{}';
      -- Bounded, since others go on making work while this call looks for it.
      v_round := 1;
      v_is_asleep := false;
      CONTINUE;
    END IF;

    v_taken := {{ schema }}._take_in_turn(v_served, message_dequeue.max_messages, message_dequeue.lock_ms, 64);
    IF v_taken.taken_ids = '{}' THEN
      v_now := {{ schema }}._clock();
      v_taken := {{ schema }}._take_in_turn(v_served, message_dequeue.max_messages, message_dequeue.lock_ms, 10000);
    END IF;
    IF v_taken.taken_ids <> '{}' THEN
      RETURN QUERY
      SELECT 'MESSAGE_DEQUEUED'::{{ schema }}.dequeue_result, t.id, {{ schema }}._channel_name(t.channel, t.id, t.created_at), t.content, t.state, t.num_attempts, u.is_unlocked, t.unlock_at, NULL::bigint
        FROM unnest(v_taken.taken_ids, v_taken.are_unlocked) WITH ORDINALITY AS u (id, is_unlocked, n), LATERAL (
          SELECT m.* FROM {{ schema }}.message m WHERE m.id = u.id LIMIT 1) t
       ORDER BY u.n;
      RETURN;
    END IF;

    -- A message that moved under the search may have been missed. Whatever is ready now and was not when we looked before is worth
    -- another look; what was ready then was in another's hands.
    v_ready := ARRAY (SELECT m.ctid FROM {{ schema }}._lanes_next(v_served, 10000, NULL) AS n (lane), LATERAL (
                        SELECT x.ctid FROM {{ schema }}.message x WHERE x.status = 'READY' AND x.lane = n.lane LIMIT 1000) m
                       WHERE n.lane <> ALL (v_taken.limited_lanes) LIMIT 10000);
    v_is_last := v_round = 100;
    IF v_ready <@ v_seen THEN
      IF {{ schema }}._wake_channel() IS NULL OR v_is_asleep THEN
        v_is_last := true;
      ELSE
        -- After the last round there is no other look, which a number asks for.
        v_nap_ms := CASE WHEN v_is_last THEN 10 ELSE {{ schema }}._sleeper_nap_ms() END;
        v_is_last := v_nap_ms IS NOT NULL;
        v_is_asleep := true;
      END IF;
    END IF;
    IF v_is_last THEN
      v_message.result := 'MESSAGE_NOT_AVAILABLE';
      v_message.retry_ms := LEAST({{ schema }}._retry_ms(v_taken.is_busy OR v_ready <> '{}', v_taken.release_at, v_now), v_nap_ms);
      RETURN NEXT v_message;
      RETURN;
    END IF;
    v_seen := v_seen || v_ready;
    v_round := v_round + 1;
  END LOOP;

  IF v_num_read + {{ schema }}._entries_read($regclass${{ schema }}.message_ready_idx$regclass$) > 500 + 8::bigint * message_dequeue.max_messages AND v_is_bloated IS NOT TRUE THEN
    -- Too much to step over: the next call is to find out whether an old snapshot is why.
    PERFORM setval($regclass${{ schema }}.generation_walk$regclass$, 1);
  END IF;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.message_dequeue(integer, bigint) IS
'Takes the next messages, in rotation over the channels, and locks them.
Returns 1 to max_messages rows MESSAGE_DEQUEUED in the order of turns, or one row MESSAGE_NOT_AVAILABLE with retry_ms: milliseconds until something known can become available, at most 50 if something is in another transaction''s hands, NULL if nothing is known (1000 beside an old snapshot). lock_ms, in milliseconds, replaces the messages'' own lock time from now on; NULL keeps it. Commit at once: the lock is in the row, not in the transaction. Errors: 22004, 22023; 25001 unless in READ COMMITTED.';
