"""The list. Each mutant is one edit of one file of sql/functions/, which a user would notice in time."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.databases import SQL


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit: `old`, which occurs exactly once in the file, becomes `new`."""

    id: str
    breaks: str
    """The sentence of the contract, or the promise, that holds no more."""
    function: str
    old: str
    new: str
    first: str = ""
    """The test most likely to see it: a file of pgtap/ (if not given, the function's own), or a node ID: of
    integration/, or with its folder."""

    def mutate(self, text: str) -> str:
        """The function's text with the edit. Raises ValueError if it does not fit."""
        if (count := text.count(self.old)) != 1 or self.old == self.new:
            raise ValueError(f"{self.id}: {count} places to edit in {self.function}.sql, not one")
        return text.replace(self.old, self.new)

    def original(self) -> str:
        """The function's text as it is."""
        return (SQL / "functions" / f"{self.function}.sql").read_text(encoding="utf-8")

    def test(self) -> str:
        """The node ID of the test to run first."""
        name = self.first or self.function
        if "/" in name:
            return f"tests/{name}"
        if name.startswith("test_"):
            return f"tests/integration/{name}"
        return f"tests/integration/test_pgtap.py::test_pgtap[{name}-lonny]"


MUTANTS = [
    # _sleepers_wake, _sleeper_nap_ms and who calls them
    Mutant(
        "wake-up-unseen",
        "who sleeps misses nothing: what is on its way untold is known to who falls asleep",
        "_sleepers_wake",
        "AND pg_try_advisory_xact_lock_shared(",
        "AND hashint8extended(",
        "test_wake_ups.py",
    ),
    Mutant(
        "wake-up-each",
        "wake-ups scale: who has been woken is not woken again",
        "_sleepers_wake",
        "u.sleeper >=",
        "u.sleeper >",
        "test_wake_ups.py",
    ),
    Mutant(
        "sleep-looks-once",
        "who sleeps misses nothing: it looks once more when it has its number",
        "message_dequeue",
        "v_is_asleep := true;",
        "EXIT;",
        "test_wake_ups.py",
    ),
    Mutant(
        "sleep-without-pause",
        "wake-ups scale: nobody falls asleep within 10 ms of another",
        "_sleeper_nap_ms",
        "v_asleep_ms >= 0 AND v_asleep_ms < c_pause_ms",
        "false",
        "test_wake_ups.py",
    ),
    Mutant(
        "place-freed-untold",
        "who sleeps misses nothing: a place that is freed wakes",
        "_place_freed",
        "{{ schema }}._wake_channel() IS NOT NULL",
        "false",
        "test_wake_ups.py",
    ),
    # message_create, message_create_many
    Mutant(
        "admit-one-too-many",
        "limits are exact: a create admits no more than the limit",
        "_channel_admits",
        "l.num + r.num < p.max_concurrency",
        "l.num + r.num <= p.max_concurrency",
        "test_admission.py",
    ),
    Mutant(
        "admit-without-mutex",
        "limits are exact: who admits has the channel to itself",
        "_channel_admits",
        "OR NOT pg_try_advisory_xact_lock(",
        "OR NOT pg_try_advisory_xact_lock_shared(",
        "test_admission.py",
    ),
    Mutant(
        "admit-when-open",
        "nothing waits: a longer transaction holds up no channel",
        "_channel_admits",
        "NOT {{ schema }}._is_alone(p_call_stack)",
        "false",
        "test_admission.py",
    ),
    Mutant(
        "create-ignores-delay",
        "delay_ms says when a message is due",
        "message_create",
        "v_now, v_now + message_create.delay_ms * interval '1 ms',\n",
        "v_now, v_now,\n",
    ),
    Mutant(
        "create-without-timer",
        "nothing is lost: a delayed message has a timer",
        "message_create",
        "CASE WHEN message_create.delay_ms > 0 THEN v_now + message_create.delay_ms * interval '1 ms' END,",
        "NULL,",
    ),
    Mutant(
        "create-without-wake",
        "nothing is lost: a message that waits in a limited channel has a wake",
        "message_create",
        "IF v_is_limited AND message_create.delay_ms <= 0 THEN",
        "IF false THEN",
        "test_attacks.py::test_many_wakes_of_one_channel_delay_another_by_nothing",
    ),
    Mutant(
        "create-513-bytes",
        "a channel name of more than 512 bytes is refused",
        "message_create",
        "BETWEEN 1 AND 512",
        "BETWEEN 1 AND 513",
    ),
    Mutant(
        "create-any-size",
        "what is accepted at create can never make a later dequeue raise: it can be sent",
        "message_create",
        "octet_length(message_create.content) > 256000000",
        "octet_length(message_create.content) > 1256000000",
        "proof/test_bad_input.py::TestLargeContent",
    ),
    Mutant(
        "create-without-turn",
        "messages without a channel share one turn",
        "message_create",
        "COALESCE(v_lane, 0)",
        "COALESCE(v_lane, {{ schema }}._lane(gen_random_uuid()::text))",
    ),
    Mutant(
        "create-event-shows-null",
        "the name of a message without a channel is shown in events",
        "message_create",
        "{{ schema }}._channel_name(message_create.channel, v_id, v_now), message_create.delay_ms",
        "message_create.channel, message_create.delay_ms",
        "test_events.py",
    ),
    Mutant(
        "create-many-unordered",
        "ids are returned in input order",
        "message_create_many",
        "array_agg(c.id ORDER BY c.id)",
        "array_agg(c.id ORDER BY c.id DESC)",
    ),
    Mutant(
        "create-many-unlimited",
        "what a batch creates in a limited channel waits until the policy releases it",
        "message_create_many",
        "(SELECT NOT p.cleared FROM {{ schema }}.channel_policy p"
        " WHERE p.channel = g.channel ORDER BY p.id DESC LIMIT 1)",
        "false",
        "test_alone.py",
    ),
    Mutant(
        "create-many-any-length",
        "arrays of lengths that do not fit are refused",
        "message_create_many",
        "IF cardinality(message_create_many.channels) <> v_count THEN",
        "IF cardinality(message_create_many.channels) > v_count THEN",
    ),
    # message_dequeue
    Mutant(
        "dequeue-repeatable-read",
        "a dequeue refuses snapshots that are older than the statement",
        "message_dequeue",
        "NOT IN ('read committed', 'read uncommitted')",
        "NOT IN ('read committed', 'read uncommitted', 'repeatable read')",
        "test_message_dequeue.py",
    ),
    Mutant(
        "dequeue-may-sort",
        "cost does not depend on statistics: generations are searched by their index",
        "message_dequeue",
        "SET enable_sort = off\n",
        "",
        "test_plans.py",
    ),
    Mutant(
        "dequeue-wakes-by-any-index",
        "cost does not depend on statistics: a search for what is over goes by its index",
        "message_dequeue",
        "w.at <= v_now ORDER BY w.at LIMIT 1), false),",
        "w.at <= v_now LIMIT 1), false),",
        "test_plans.py",
    ),
    Mutant(
        "dequeue-looks-once",
        "empty means empty: what moved while a dequeue looked is looked for again",
        "message_dequeue",
        "IF v_ready <@ v_seen THEN",
        "IF true THEN",
        "test_open_dequeues.py",
    ),
    Mutant(
        "take-one-by-any-index",
        "cost does not depend on statistics: a lookup by id goes by the primary key",
        "_take_one",
        "m.status::text = 'READY'",
        "m.status = 'READY'",
        "test_plans.py",
    ),
    Mutant(
        "dequeue-waits",
        "nothing waits: a dequeue passes by what others hold",
        "message_dequeue",
        "FOR NO KEY UPDATE SKIP LOCKED;\n      ELSE",
        "FOR NO KEY UPDATE;\n      ELSE",
        "test_promises.py",
    ),
    Mutant(
        "take-many-waits",
        "nothing waits: a batch passes by what others hold",
        "_take_many",
        "LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) n\n      ), behind",
        "LIMIT 1 FOR NO KEY UPDATE) n\n      ), behind",
        "test_promises.py",
    ),
    Mutant(
        "dequeue-rotation-rests",
        "rotation is fair: the lane that was served comes last",
        "message_dequeue",
        "PERFORM setval($regclass${{ schema }}.rotation$regclass$, v_held.lane);",
        "NULL;",
        "message_dequeue",
    ),
    Mutant(
        "dequeue-passes-by",
        "rotation is fair: the lanes ahead were looked at before it begins anew",
        "message_dequeue",
        "IF v_held.id IS NULL AND v_held.is_clear THEN",
        "IF v_held.id IS NULL THEN",
        "test_fairness.py",
    ),
    Mutant(
        "dequeue-newest-first",
        "the order in a channel is (dequeue_at, id)",
        "message_dequeue",
        "ORDER BY m.lane, m.dequeue_at, m.id LIMIT 1\n           FOR NO KEY UPDATE SKIP LOCKED;\n      ELSE",
        "ORDER BY m.lane, m.id LIMIT 1\n           FOR NO KEY UPDATE SKIP LOCKED;\n      ELSE",
        "test_scenario_order.py",
    ),
    Mutant(
        "dequeue-stale-clock",
        "one clock: it is read when the message is held",
        "message_dequeue",
        "      IF v_held.id IS NOT NULL THEN\n        v_now := {{ schema }}._clock();\n",
        "      IF v_held.id IS NOT NULL THEN\n        v_now := now();\n",
        "test_peer_defects.py",
    ),
    Mutant(
        "dequeue-unchecked-policy",
        "limits are exact: a policy binds what was in flight when it was set",
        "message_dequeue",
        "IF NOT v_policy.cleared AND v_held.policy_id IS DISTINCT FROM v_policy.id THEN",
        "IF false THEN",
        "test_attacks.py::test_a_policy_committed_between_the_advance_and_the_take_binds",
    ),
    Mutant(
        "dequeue-without-release-wake",
        "limits are exact: two dequeues are an interval apart",
        "message_dequeue",
        "IF NOT v_policy.cleared AND v_policy.release_interval_ms > 0 THEN",
        "IF false THEN",
        "channel_policy_set",
    ),
    Mutant(
        "take-one-stale-clock",
        "one clock: it is read when the message is held",
        "_take_one",
        "  v_now := {{ schema }}._clock();\n",
        "  v_now := now();\n",
        "test_peer_defects.py",
    ),
    Mutant(
        "take-one-unchecked-policy",
        "limits are exact: a policy binds what was in flight when it was set",
        "_take_one",
        "IF NOT v_policy.cleared AND v_held.policy_id IS DISTINCT FROM v_policy.id THEN",
        "IF false THEN",
        "test_attacks.py::test_a_policy_committed_between_the_advance_and_the_take_binds",
    ),
    Mutant(
        "take-one-without-release-wake",
        "limits are exact: two dequeues are an interval apart",
        "_take_one",
        "IF NOT v_policy.cleared AND v_policy.release_interval_ms > 0 THEN",
        "IF false THEN",
        "channel_policy_set",
    ),
    Mutant(
        "dequeue-never-unlocked",
        "is_unlocked is true if this delivery follows a lock that expired",
        "message_dequeue",
        "v_held.unlock_at IS NOT NULL, m.unlock_at, NULL::bigint",
        "false, m.unlock_at, NULL::bigint",
        "message_dequeue",
    ),
    Mutant(
        "dequeue-keeps-number",
        "num_attempts counts dequeues",
        "message_dequeue",
        "num_attempts = m.num_attempts + 1,",
        "num_attempts = GREATEST(m.num_attempts, 1),",
        "message_dequeue",
    ),
    Mutant(
        "take-many-first-lane-only",
        "rotation is fair: the lanes of a batch get equal shares",
        "_take_many",
        "LIMIT v_num_more / cardinality(v_held.lanes) + CASE",
        "LIMIT v_num_more + CASE",
        "message_dequeue",
    ),
    Mutant(
        "take-many-without-release-time",
        "limits are exact: two dequeues are an interval apart, whatever wakes the channel between them",
        "_take_many",
        "v_now + u.interval_ms * interval '1 ms', v_now\n",
        "v_now + u.interval_ms * interval '1 ms', NULL\n",
        "test_promises.py::TestPromise3LimitsAreExact",
    ),
    Mutant(
        "retry-rounds-down",
        "retry_ms is rounded up",
        "_retry_ms",
        "LEAST(ceil(",
        "LEAST(floor(",
        "scenario_retry",
    ),
    Mutant(
        "retry-never-busy",
        "retry_ms is at most 50 if another transaction has what is due",
        "_retry_ms",
        "CASE WHEN p_is_busy THEN c_busy_ms END",
        "NULL",
        "test_message_dequeue.py",
    ),
    # What decides when a message is ready
    Mutant(
        "survey-one-more",
        "limits are exact: never more than max_concurrency are out",
        "_channel_survey",
        "room := COALESCE(p_policy.max_concurrency, 2147483647) - v_out;",
        "room := COALESCE(p_policy.max_concurrency, 2147483647) - v_out + 1;",
        "channel_policy_set",
    ),
    Mutant(
        "survey-ready-uncounted",
        "limits are exact: what is ready has a place too",
        "_channel_survey",
        "SELECT l.num + r.num_own,",
        "SELECT l.num,",
        "test_promises.py::TestPromise3LimitsAreExact",
    ),
    Mutant(
        "survey-short-interval",
        "limits are exact: no interval is short by a millisecond",
        "_channel_survey",
        "release_at := released_at + p_policy.release_interval_ms * interval '1 ms';",
        "release_at := released_at + (p_policy.release_interval_ms - 1) * interval '1 ms';",
        "channel_policy_set",
    ),
    Mutant(
        "survey-forgets-release",
        "limits are exact: an interval that changes counts from the last dequeue",
        "_channel_survey",
        "GREATEST(p_released_at, max(x.released_at))",
        "p_released_at",
        "channel_policy_set",
    ),
    Mutant(
        "advance-late",
        "a message is due at dequeue_at, not after it",
        "_channel_advance",
        "AND x.lane = p_lane AND x.channel = p_channel AND x.dequeue_at <= v_now\n",
        "AND x.lane = p_lane AND x.channel = p_channel AND x.dequeue_at < v_now\n",
        "scenario_time",
    ),
    Mutant(
        "advance-never-looks-again",
        "nothing is lost: what an advance passed by is looked at again",
        "_channel_advance",
        "ELSIF v_doubt OR cardinality(v_released) < LEAST(v_room, v_waiting) THEN",
        "ELSIF false THEN",
        "test_attacks.py::test_what_begins_to_wait_beside_an_open_end_is_released_when_that_commits",
    ),
    Mutant(
        "advance-deletes-policy",
        "a policy is in force until another is",
        "_channel_advance",
        "x.id < v_policy.id FOR UPDATE SKIP LOCKED",
        "x.id <= v_policy.id FOR UPDATE SKIP LOCKED",
        "channel_policy_set",
    ),
    Mutant(
        "tend-waits-for-timers",
        "nothing waits: what comes due is passed by while others hold it",
        "_tend",
        "ORDER BY x.timer_at LIMIT p_budget\n                  FOR NO KEY UPDATE SKIP LOCKED))",
        "ORDER BY x.timer_at LIMIT p_budget\n                  FOR NO KEY UPDATE))",
        "test_promises.py",
    ),
    Mutant(
        "tend-without-wake",
        "nothing is lost: an expired message of a limited channel has a wake",
        "_tend",
        "FROM moved m WHERE m.status = 'WAITING';",
        "FROM moved m WHERE false;",
        "channel_policy_set",
    ),
    Mutant(
        "tend-lowest-lane-first",
        "rotation is fair: wakes are tended in rotation too",
        "_tend",
        "v_lane     bigint := v_served;",
        "v_lane     bigint := -9223372036854775808;",
        "test_promises.py",
    ),
    Mutant(
        "lane-tend-waits",
        "nothing waits: the mutex of a channel is only tried",
        "_lane_tend",
        "  IF NOT pg_try_advisory_xact_lock($regclass${{ schema }}.wake$regclass$::regclass::oid::integer,"
        " hashint8(p_lane)) THEN\n    RETURN;\n  END IF;\n",
        "  PERFORM pg_advisory_xact_lock($regclass${{ schema }}.wake$regclass$::regclass::oid::integer,"
        " hashint8(p_lane));\n",
        "test_promises.py",
    ),
    Mutant(
        "clock-of-the-transaction",
        "one clock: it goes on within a transaction",
        "_clock",
        "pg_catalog.clock_timestamp()",
        "pg_catalog.now()",
        "test_peer_defects.py",
    ),
    # message_delete, message_delete_many
    Mutant(
        "delete-unfenced",
        "a delete with another number changes nothing",
        "message_delete",
        " AND m.num_attempts = message_delete.num_attempts",
        "",
    ),
    Mutant(
        "delete-only-locked",
        "after its lock expired a worker may still delete until the message is dequeued again",
        "message_delete",
        " AND m.unlock_at IS NOT NULL",
        " AND m.status = 'LOCKED'",
        "test_message_finish.py",
    ),
    Mutant(
        "delete-frees-no-place",
        "nothing is lost: the end of a message wakes its channel",
        "message_delete",
        "PERFORM {{ schema }}._place_freed(v_message.lane, v_message.channel);",
        "NULL;",
        "channel_policy_set",
    ),
    Mutant(
        "delete-beside-new-snapshots",
        "nothing is lost: a transaction of one snapshot does not see what waits for the place it frees",
        "_place_freed",
        "current_setting('transaction_isolation') IN ('repeatable read', 'serializable')",
        "false",
        "proof/test_isolation_levels.py",
    ),
    Mutant(
        "delete-locks-policy",
        "nothing waits: a delete touches its own message only",
        "message_delete",
        "  DELETE FROM {{ schema }}.message m\n",
        "  PERFORM FROM {{ schema }}.channel_policy p FOR UPDATE;\n  DELETE FROM {{ schema }}.message m\n",
        "test_promises.py",
    ),
    Mutant(
        "delete-event-without-channel",
        "an event names the channel",
        "message_delete",
        "{{ schema }}._channel_name(v_message.channel, message_delete.id, v_message.created_at)",
        "NULL",
        "test_events.py",
    ),
    Mutant(
        "delete-many-unfenced",
        "a delete with another number changes nothing",
        "message_delete_many",
        "((m.id, m.num_attempts) IN (SELECT u.id, u.num_attempts FROM unnest",
        "(m.id IN (SELECT u.id FROM unnest",
    ),
    Mutant(
        "delete-many-crosswise",
        "each number belongs to its id",
        "message_delete_many",
        "((m.id, m.num_attempts) IN (SELECT u.id, u.num_attempts FROM unnest",
        "(m.num_attempts IN (SELECT u.num_attempts FROM unnest",
    ),
    Mutant(
        "delete-many-never-dequeued",
        "what was never dequeued cannot be deleted",
        "message_delete_many",
        " AND m.unlock_at IS NOT NULL",
        "",
    ),
    Mutant(
        "delete-many-only-locked",
        "after its lock expired a worker may still delete until the message is dequeued again",
        "message_delete_many",
        " AND m.unlock_at IS NOT NULL",
        " AND m.status = 'LOCKED'",
        "test_message_finish.py",
    ),
    Mutant(
        "delete-many-null-ids",
        "NULL where a value is needed is refused",
        "message_delete_many",
        "IF message_delete_many.ids IS NULL THEN",
        "IF false THEN",
    ),
    Mutant(
        "delete-many-null-numbers",
        "NULL where a value is needed is refused",
        "message_delete_many",
        "IF message_delete_many.num_attempts IS NULL THEN",
        "IF false THEN",
    ),
    Mutant(
        "delete-many-names-last",
        "an error names the argument and the value",
        "message_delete_many",
        "ORDER BY u.n LIMIT 1;",
        "ORDER BY u.n DESC LIMIT 1;",
    ),
    Mutant(
        "delete-many-without-events",
        "every delete has its event",
        "message_delete_many",
        "PERFORM {{ schema }}._event_notify(",
        "PERFORM (",
        "test_events.py",
    ),
    Mutant(
        "delete-many-frees-no-place",
        "nothing is lost: the end of a message wakes its channel",
        "message_delete_many",
        "PERFORM {{ schema }}._places_freed(v_gone.lanes, v_gone.named_channels);",
        "NULL;",
    ),
    Mutant(
        "delete-many-frees-one-channel",
        "nothing is lost: the end of a message wakes its channel, each its own",
        "message_delete_many",
        "PERFORM {{ schema }}._places_freed(v_gone.lanes, v_gone.named_channels);",
        "PERFORM {{ schema }}._places_freed(v_gone.lanes[1:1], v_gone.named_channels[1:1]);",
    ),
    Mutant(
        "delete-many-deadlocks",
        "nothing waits for good: two batches hold their messages in the same order",
        "message_delete_many",
        "  WITH gone AS (\n    DELETE FROM",
        "  PERFORM FROM unnest(message_delete_many.ids) WITH ORDINALITY AS u (id, n), LATERAL (\n"
        "            SELECT FROM {{ schema }}.message x WHERE x.id = u.id FOR UPDATE) h;\n"
        "  WITH gone AS (\n    DELETE FROM",
        "test_attacks.py::test_two_batches_of_deletes_of_the_same_messages_in_opposite_order_do_not_deadlock",
    ),
    Mutant(
        "delete-many-passes-by",
        "of a message that another is finishing the answer is what the other did",
        "message_delete_many",
        "WHERE m.id = ANY (message_delete_many.ids) AND",
        "WHERE m.id = ANY (ARRAY (SELECT x.id FROM {{ schema }}.message x"
        " WHERE x.id = ANY (message_delete_many.ids) FOR UPDATE SKIP LOCKED)) AND",
        "test_attacks.py::test_two_batches_of_deletes_of_the_same_messages_in_opposite_order_do_not_deadlock",
    ),
    # message_defer
    Mutant(
        "defer-only-locked",
        "after its lock expired a worker may still defer until the message is dequeued again",
        "message_defer",
        " AND m.unlock_at IS NOT NULL",
        " AND m.status = 'LOCKED'",
        "test_message_finish.py",
    ),
    Mutant(
        "defer-erases-state",
        "a state of NULL keeps the state that the message has",
        "message_defer",
        "COALESCE(message_defer.state, m.state)",
        "message_defer.state",
    ),
    Mutant(
        "defer-keeps-timer",
        "retry_ms tells of what can become available, not of a lock that is no more",
        "message_defer",
        "timer_at = CASE WHEN message_defer.delay_ms > 0 THEN v_at END",
        "timer_at = CASE WHEN message_defer.delay_ms > 0 THEN v_at ELSE m.timer_at END",
    ),
    Mutant(
        "defer-ignores-policy",
        "a deferred message waits where its channel is limited",
        "message_defer",
        "m.lane <> 0 AND COALESCE((SELECT true FROM {{ schema }}._policy_in_force p"
        " WHERE p.channel = m.channel LIMIT 1), false)",
        "false",
    ),
    # message_heartbeat
    Mutant(
        "heartbeat-shortens",
        "a heartbeat never shortens a lock",
        "message_heartbeat",
        "GREATEST(m.unlock_at, {{ schema }}._clock() + COALESCE(message_heartbeat.lock_ms, m.lock_ms)"
        " * interval '1 ms')",
        "{{ schema }}._clock() + COALESCE(message_heartbeat.lock_ms, m.lock_ms) * interval '1 ms'",
    ),
    Mutant(
        "heartbeat-waits",
        "a heartbeat never waits",
        "message_heartbeat",
        "FOR NO KEY UPDATE SKIP LOCKED",
        "FOR NO KEY UPDATE",
        "test_message_heartbeat.py",
    ),
    Mutant(
        "heartbeat-for-update",
        "a reference to a message hides it from no operation",
        "message_heartbeat",
        "FOR NO KEY UPDATE SKIP LOCKED",
        "FOR UPDATE SKIP LOCKED",
        "test_attacks.py::test_a_reference_to_a_message_that_is_being_inserted_does_not_hide_it",
    ),
    Mutant(
        "heartbeat-never-busy",
        "MESSAGE_BUSY if another transaction is finishing that message",
        "message_heartbeat",
        "'MESSAGE_BUSY'::{{ schema }}.heartbeat_result ELSE",
        "'MESSAGE_STATE_INVALID'::{{ schema }}.heartbeat_result ELSE",
        "test_message_heartbeat.py",
    ),
    # message_cancel
    Mutant(
        "cancel-takes-locked",
        "what is locked is not cancelled",
        "message_cancel",
        " AND (m.status <> 'LOCKED' OR m.unlock_at <= {{ schema }}._clock())",
        "",
    ),
    Mutant(
        "cancel-locked-to-the-last",
        "a lock is over at unlock_at",
        "message_cancel",
        "m.unlock_at <= {{ schema }}._clock()",
        "m.unlock_at < {{ schema }}._clock()",
        "test_message_heartbeat.py",
    ),
    Mutant(
        "cancel-frees-no-place",
        "nothing is lost: the end of a message wakes its channel",
        "message_cancel",
        "PERFORM {{ schema }}._place_freed(v_message.lane, v_message.channel);",
        "NULL;",
        "test_promises.py::TestPromise2NothingIsLost",
    ),
    Mutant(
        "cancel-frees-place-of-ready-only",
        "nothing is lost: a lock that is over held a place",
        "message_cancel",
        " AND v_message.status <> 'WAITING' THEN",
        " AND v_message.status = 'READY' THEN",
        "test_promises.py::TestPromise2NothingIsLost",
    ),
    Mutant(
        "cancel-frees-place-of-locked-only",
        "nothing is lost: what was ready held a place",
        "message_cancel",
        " AND v_message.status <> 'WAITING' THEN",
        " AND v_message.status = 'LOCKED' THEN",
        "test_promises.py::TestPromise2NothingIsLost",
    ),
    # message_status
    Mutant(
        "status-by-id",
        "rows are in input order",
        "message_status",
        "   ORDER BY u.n;",
        "   ORDER BY u.id;",
    ),
    Mutant(
        "status-null-element",
        "NULL where a value is needed is refused",
        "message_status",
        "IF v_missing IS NOT NULL THEN",
        "IF false THEN",
    ),
    Mutant(
        "status-given-twice",
        "there is a row for every id that is given",
        "message_status",
        "FROM unnest(message_status.ids) WITH ORDINALITY AS u (id, n),",
        "FROM (SELECT x.id, min(x.n) AS n FROM unnest(message_status.ids) WITH ORDINALITY AS x (id, n)"
        " GROUP BY x.id) AS u,",
    ),
    # channel_policy_set, channel_policy_clear
    Mutant(
        "policy-set-513-bytes",
        "a channel name of more than 512 bytes is refused",
        "channel_policy_set",
        "NOT BETWEEN 1 AND 512",
        "NOT BETWEEN 1 AND 513",
    ),
    Mutant(
        "policy-set-refuses-pause",
        "a max_concurrency of 0 pauses the channel",
        "channel_policy_set",
        "IF channel_policy_set.max_concurrency < 0 THEN",
        "IF channel_policy_set.max_concurrency <= 0 THEN",
    ),
    Mutant(
        "policy-without-wake",
        "a policy binds messages that are there already",
        "_policy_add",
        "INSERT INTO {{ schema }}.wake (lane, channel) VALUES ({{ schema }}._lane(p_channel), p_channel);",
        "",
        "channel_policy_set",
    ),
    Mutant(
        "policy-clear-keeps-interval",
        "clearing removes all limits",
        "channel_policy_clear",
        "_policy_add(channel_policy_clear.channel, NULL, NULL)",
        "_policy_add(channel_policy_clear.channel, NULL, (SELECT p.release_interval_ms FROM"
        " {{ schema }}.channel_policy p WHERE p.channel = channel_policy_clear.channel"
        " ORDER BY p.id DESC LIMIT 1))",
    ),
    Mutant(
        "policy-clear-deletes",
        "nothing waits: a policy is a new version, and touches none that is there",
        "channel_policy_clear",
        "  PERFORM {{ schema }}._policy_add(channel_policy_clear.channel, NULL, NULL);\n",
        "  DELETE FROM {{ schema }}.channel_policy p WHERE p.channel = channel_policy_clear.channel;\n"
        "  PERFORM {{ schema }}._policy_add(channel_policy_clear.channel, NULL, NULL);\n",
        "test_promises.py::TestPromise1NothingWaits",
    ),
    # check, repair, message_explain, channel_explain
    Mutant(
        "check-overlooks-forgotten",
        "check() returns a row for a due message that nothing will release",
        "check",
        "AND NOT EXISTS (SELECT FROM {{ schema }}.wake w WHERE w.channel = c.channel)",
        "AND NOT EXISTS (SELECT FROM {{ schema }}.wake w)",
    ),
    Mutant(
        "check-one-too-many-is-well",
        "check: more are out than the policy allows",
        "check",
        "c.num_ready + c.num_locked > c.max_concurrency OR",
        "c.num_ready + c.num_locked > c.max_concurrency + 1 OR",
        "test_check.py",
    ),
    Mutant(
        "repair-without-wake",
        "repair() mends what check() found",
        "repair",
        "        INSERT INTO {{ schema }}.wake (lane, channel) VALUES (v_lane, v_fault.channel);\n"
        "        v_count := 1;\n",
        "        v_count := 1;\n",
    ),
    Mutant(
        "message-explain-one-more",
        "what is explained is what a dequeue would do",
        "message_explain",
        "v_answer.num_ahead < v_outlook.num_allowed",
        "v_answer.num_ahead <= v_outlook.num_allowed",
    ),
    Mutant(
        "channel-explain-knows-no-locks",
        "a channel without due messages has its next one when a lock ends",
        "channel_explain",
        "v_at := LEAST(v_next_at, v_outlook.unlock_at);",
        "v_at := v_next_at;",
    ),
    Mutant(
        "repair-leaves-the-lane",
        "repair: a message goes to the lane of its channel",
        "repair",
        "SET lane = CASE WHEN m.channel IS NULL THEN 0 ELSE {{ schema }}._lane(m.channel) END",
        "SET lane = m.lane",
        "test_check.py",
    ),
    Mutant(
        "explain-full-is-not-full",
        "message_explain: a channel is at its limit when as many are locked as may be",
        "message_explain",
        "v_outlook.num_locked >= v_outlook.max_concurrency",
        "v_outlook.num_locked > v_outlook.max_concurrency",
    ),
    Mutant(
        "explain-channel-is-never-paused",
        "channel_explain: a paused channel is told",
        "channel_explain",
        "v_answer.reason := 'PAUSED';",
        "v_answer.reason := 'AT_LIMIT';",
    ),
    # Roles
    Mutant(
        "role-grant-frees-nobody",
        "role_grant: the last grant says whether a producer is bound",
        "role_grant",
        "  PERFORM {{ schema }}.role_revoke(role_grant.role, role_grant.kind);",
        "",
    ),
    Mutant(
        "role-revoke-takes-all",
        "role_revoke: the functions that a role needs as something else stay",
        "role_revoke",
        "other.kind <> role_revoke.kind AND",
        "other.kind <> r.kind AND r.kind IS NULL AND",
    ),
    Mutant(
        "prefix-is-a-pattern",
        "role_grant: a producer that is bound creates only in channels that begin with its prefix",
        "_channels_check",
        "starts_with(u.channel, p.channel_prefix)",
        "u.channel LIKE p.channel_prefix || '%'",
        "role_grant",
    ),
    Mutant(
        "create-many-unbound",
        "role_grant: a producer that is bound creates only in its channels, many messages too",
        "message_create_many",
        "COALESCE(message_create_many.channels, ARRAY[NULL])",
        "message_create_many.channels",
        "role_grant",
    ),
    Mutant(
        "roles-renew-nothing",
        "role_grant: an install grants what is missing",
        "_roles_renew",
        "    EXECUTE format('GRANT",
        "    CONTINUE; EXECUTE format('GRANT",
        "role_grant",
    ),
    Mutant(
        "version-of-the-first",
        "version_status: the package that applied the last migration",
        "version_status",
        "ORDER BY l.version DESC LIMIT 1",
        "ORDER BY l.version LIMIT 1",
    ),
]
