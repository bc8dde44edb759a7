CREATE OR REPLACE FUNCTION {{ schema }}._sleepers_wake()
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
-- Called by whoever makes something available, or may, when the transaction commits. It waits for nobody, but a NOTIFY has the commit wait for others that notify. The shared lock, held until then, tells who is
-- about to fall asleep (_sleeper_nap_ms) that something is on its way of which it may not be told; so it comes before the look at who sleeps.
--
-- Told are all who sleep if a wake-up for the last of them is committed: a notification is delivered with the commit. Until then others send one too.
DECLARE
  v_sleeper bigint;
BEGIN
  IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted')
     AND pg_try_advisory_xact_lock_shared($regclass${{ schema }}.wake_up$regclass$::regclass::oid::integer, 0) THEN
    v_sleeper := pg_sequence_last_value($regclass${{ schema }}.sleeper$regclass$);
    IF v_sleeper IS NULL OR COALESCE((SELECT true FROM {{ schema }}.wake_up u WHERE u.sleeper >= v_sleeper LIMIT 1), false) THEN
      RETURN;
    END IF;
    INSERT INTO {{ schema }}.wake_up (sleeper) VALUES (v_sleeper);
  END IF;
  PERFORM pg_notify({{ schema }}._wake_channel(), '');
END
$function$;
COMMENT ON FUNCTION {{ schema }}._sleepers_wake() IS
'Wakes the workers that sleep, when, and only if, the transaction commits; does nothing if all of them have been woken since they fell asleep.';
