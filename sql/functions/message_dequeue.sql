CREATE OR REPLACE FUNCTION {{ schema }}.message_dequeue(max_messages integer DEFAULT 1, lock_ms bigint DEFAULT NULL)
RETURNS SETOF {{ schema }}.dequeued
LANGUAGE plpgsql VOLATILE ROWS 10
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $function$
-- First a share of the work that is due for all (so that ready messages of one channel never keep another's from becoming ready), then the
-- messages, then, if there was none, a search for due work that makes one ready. Every row is taken with SKIP LOCKED and every mutex
-- is only tried: it waits for nobody.
--
-- If the transaction stays open, others pass by the messages it took, and its limited channels stand still. So does what it tended: one more
-- channel as a rule, several where policies were set on channels with ready messages, or where a search found rows in others' hands; and
-- whoever deletes, defers or cancels a message whose row was changed here waits (sql/README.md).
-- If it rolls back, or the server dies, all is as before, but that the rotation goes on from here.
DECLARE
  v_now      timestamptz := {{ schema }}._clock();
  -- Is this call a transaction of its own? The times are equal in the first command of a simple query. A driver that binds parameters on the
  -- server, or prepares the statement, makes them differ, and looks like a longer transaction. One that has written surely is.
  v_is_alone boolean := transaction_timestamp() = statement_timestamp() AND pg_current_xact_id_if_assigned() IS NULL;
  v_budget   integer := GREATEST(32, LEAST(message_dequeue.max_messages, 1000));
  v_withdraw integer := CASE WHEN v_is_alone THEN 200 ELSE 1 END;
  v_served   bigint := COALESCE(pg_sequence_last_value($regclass${{ schema }}.rotation$regclass$), 0);
  v_due      record;
  v_row      {{ schema }}.dequeued;
  v_is_busy  boolean := true;
  v_tended   record;
  v_sought   record;
  v_release_at timestamptz;
  v_seen     tid[] := '{}'::tid[];
  v_new      tid[];
BEGIN
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

  SELECT EXISTS (SELECT FROM {{ schema }}.message m WHERE m.timer_at <= v_now) AS messages,
         EXISTS (SELECT FROM {{ schema }}.wake w WHERE w.at <= v_now) AS timers,
         EXISTS (SELECT FROM {{ schema }}.wake w WHERE w.at IS NULL) AS wakes
    INTO v_due;
  IF v_due.messages OR v_due.timers OR v_due.wakes THEN
    IF v_is_alone THEN
      PERFORM {{ schema }}._tend(v_budget, false);
    ELSE
      PERFORM {{ schema }}._tend_carefully(v_due.messages, v_due.timers, v_due.wakes);
      IF v_due.wakes AND message_dequeue.max_messages > 1 THEN
        PERFORM {{ schema }}._tend_next(v_served, message_dequeue.max_messages);
      END IF;
    END IF;
  END IF;

  -- Bounded, since others go on making work while this call does it; a thousand lanes a round are more than a call meets.
  FOR i IN 1 .. 100 LOOP
    IF message_dequeue.max_messages = 1 THEN
      v_row := {{ schema }}._take_one(v_served, message_dequeue.lock_ms, v_withdraw);
      IF v_row.id IS NOT NULL THEN
        RETURN NEXT v_row;
        RETURN;
      END IF;
    ELSE
      RETURN QUERY SELECT t.* FROM {{ schema }}._take_many(v_served, message_dequeue.max_messages, message_dequeue.lock_ms, v_withdraw) t;
      IF FOUND THEN
        RETURN;
      END IF;
    END IF;

    IF v_is_alone THEN
      v_tended := {{ schema }}._tend(1000, true);
      CONTINUE WHEN v_tended.num_moved > 0;
      -- What is still due was passed by, because another transaction holds it.
      v_is_busy := EXISTS (SELECT FROM {{ schema }}.message m WHERE m.timer_at <= v_now)
                OR EXISTS (SELECT FROM {{ schema }}.wake w WHERE w.at IS NULL)
                OR EXISTS (SELECT FROM {{ schema }}.wake w WHERE w.at <= v_now);
    ELSE
      v_sought := {{ schema }}._seek_carefully();
      CONTINUE WHEN v_sought.is_ready;
      v_is_busy := v_sought.is_busy;
      v_release_at := v_sought.release_at;
    END IF;
    -- A message that moved under the search may have been missed. Whatever is ready now and was not when we looked before is worth
    -- another look; what was ready then was in another's hands.
    v_new := ARRAY (SELECT m.ctid FROM {{ schema }}.message m WHERE m.status = 'READY' AND m.ctid <> ALL (v_seen) LIMIT 10000);
    EXIT WHEN cardinality(v_new) = 0;
    v_seen := v_seen || v_new;
  END LOOP;

  v_row := NULL;
  v_row.result := 'MESSAGE_NOT_AVAILABLE';
  v_row.retry_ms := {{ schema }}._retry_ms(v_is_busy OR EXISTS (SELECT FROM {{ schema }}.message m WHERE m.status = 'READY'), v_release_at);
  RETURN NEXT v_row;
END
$function$;
COMMENT ON FUNCTION {{ schema }}.message_dequeue(integer, bigint) IS
'Takes the next messages, in rotation over the channels, and locks them.
Returns 1 to max_messages rows MESSAGE_DEQUEUED in the order of turns, or one row MESSAGE_NOT_AVAILABLE with retry_ms: milliseconds until something known can become available, at most 50 if something is in another transaction''s hands, NULL if nothing is known. lock_ms, in milliseconds, replaces the messages'' own lock time from now on; NULL keeps it. Commit at once: the lock is in the row, not in the transaction. Errors: 22004, 22023; 25001 unless in READ COMMITTED.';
