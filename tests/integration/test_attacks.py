"""Races, each with the sessions that it takes, in the order in which it goes wrong if it can.

First those that break simpler designs: an open dequeue among due channels, floods of wakes, policies in
opposite order, a pause behind older wakes, a policy beside uncommitted dequeues. Then what can be named from
reading the SQL. Dequeues come both ways: alone in their transactions, and in longer ones that stay open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.support.queue import (
    LOCK_MS,
    Taken,
    answer,
    channels,
    create,
    delete,
    dequeue,
    limit,
    move_clock,
    out,
    scalar,
    serve,
    stop_clock,
    work,
)
from tests.support.sessions import IMPATIENT, background, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Connect
    from tests.support.sessions import Connection

FIFTY = [f"tenant-{i}" for i in range(50)]


def by_wakes(conn: Connection) -> None:
    create_in_all(conn)


def by_delays(conn: Connection) -> None:
    create_in_all(conn, delay_ms=100)
    move_clock(conn, 100)


def by_locks(conn: Connection) -> None:
    create_in_all(conn, lock_ms=100)
    assert len(serve(conn, within_ms=0)) == len(FIFTY)
    conn.execute("UPDATE lonny.message SET lock_ms = %s", [LOCK_MS])
    move_clock(conn, 100)


def by_intervals(conn: Connection) -> None:
    limit(conn, FIFTY, 1, 100)
    create_in_all(conn)
    create_in_all(conn)
    assert set(delete(conn, *serve(conn, within_ms=0))) == {"MESSAGE_DELETED"}
    move_clock(conn, 100)


def by_policies(conn: Connection) -> None:
    """Ready without a policy, then limited."""
    for channel in FIFTY:
        conn.execute("SELECT lonny.channel_policy_clear(%s)", [channel])
    assert dequeue(conn) == []
    create_in_all(conn)
    create_in_all(conn)
    limit(conn, FIFTY, 1)


def by_lifted_pauses(conn: Connection) -> None:
    limit(conn, FIFTY, 0)
    create_in_all(conn)
    assert dequeue(conn) == []
    limit(conn, FIFTY, 1)


def create_in_all(conn: Connection, *, lock_ms: int = LOCK_MS, delay_ms: int = 0) -> None:
    for channel in FIFTY:
        create(conn, channel, lock_ms=lock_ms, delay_ms=delay_ms)


KINDS = [by_wakes, by_delays, by_locks, by_intervals, by_policies, by_lifted_pauses]


def fifty_due(conn: Connection, kind: Callable[[Connection], None]) -> None:
    """Fifty channels with a limit of one, whose next message is due; the rotation stands amid them."""
    stop_clock(conn)
    limit(conn, FIFTY, 1)
    kind(conn)
    # Where the rotations of messages and of wakes stand relative to each other must not matter.
    conn.execute("SELECT setval('lonny.rotation', 0), setval('lonny.wake_rotation', 4611686018427387904)")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("max_messages", "hot"),
    [(1, False), (5, True)],
    ids=["one", "five, beside a channel that is always ready"],
)
def test_an_open_dequeue_among_50_due_limited_channels_leaves_the_others_served(
    connect: Connect, kind: Callable[[Connection], None], max_messages: int, hot: bool
) -> None:
    worker, holder = connect(options=IMPATIENT), connect(autocommit=False, options=IMPATIENT)
    fifty_due(worker, kind)
    if hot:
        create(worker, "hot", 20)
    taken = dequeue(holder, max_messages)
    assert taken
    served = serve(worker, within_ms=0)
    assert channels(served) >= set(FIFTY) - channels(taken)
    holder.rollback()
    assert channels(served + serve(worker)) >= set(FIFTY)


@pytest.mark.parametrize("kind", KINDS)
def test_ten_open_dequeues_hold_up_no_other_channel(
    connect: Connect, kind: Callable[[Connection], None]
) -> None:
    worker = connect(options=IMPATIENT)
    fifty_due(worker, kind)
    holders = [connect(autocommit=False, options=IMPATIENT) for _ in range(10)]
    taken = [message for holder in holders for message in dequeue(holder)]
    assert len({message.id for message in taken}) == len(holders)
    served = serve(worker, within_ms=0)
    assert channels(served) == set(FIFTY) - channels(taken)
    for holder in holders:
        holder.rollback()
    assert channels(served + serve(worker)) == set(FIFTY)


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_dequeues_in_one_open_transaction_hold_up_no_other_channel(
    connect: Connect, kind: Callable[[Connection], None]
) -> None:
    worker, holder = connect(options=IMPATIENT), connect(autocommit=False, options=IMPATIENT)
    fifty_due(worker, kind)
    create(worker, "hot", 30)
    create(worker, None, 30)
    taken = [message for _ in range(20) for message in dequeue(holder)]
    assert len(taken) == 20
    served = serve(worker, within_ms=0)
    assert channels(served) >= {"hot", *FIFTY} - channels(taken)
    holder.rollback()
    assert channels(served + serve(worker)) >= {"hot", *FIFTY}


def test_a_begin_and_a_dequeue_in_one_message_hold_up_no_other_channel(connect: Connect) -> None:
    worker, holder = connect(options=IMPATIENT), connect(options=IMPATIENT)
    fifty_due(worker, by_wakes)
    holder.execute("BEGIN; SELECT id FROM lonny.message_dequeue()")
    served = serve(worker, within_ms=0)
    assert len(channels(served)) == len(served) == len(FIFTY) - 1
    holder.execute("ROLLBACK")
    assert channels(served + serve(worker)) == set(FIFTY)


@pytest.mark.parametrize("dequeues", [1, 20])
def test_an_open_dequeue_that_found_nothing_holds_up_no_channel(connect: Connect, dequeues: int) -> None:
    worker, holder = connect(options=IMPATIENT), connect(autocommit=False, options=IMPATIENT)
    stop_clock(worker)
    limit(worker, FIFTY, 0)
    create_in_all(worker)
    create_in_all(worker, delay_ms=100)
    move_clock(worker, 100)
    for _ in range(dequeues):
        assert dequeue(holder) == []
    limit(worker, FIFTY, 1)
    assert channels(serve(worker, within_ms=0)) == set(FIFTY)
    holder.rollback()
    assert serve(worker) == []


def test_open_dequeues_beside_open_deletes_of_expired_locks_hold_up_no_channel(connect: Connect) -> None:
    # Each channel looks as if it could go on, since its lock is over, but that row is in another's hands.
    worker, deleter = connect(options=IMPATIENT), connect(autocommit=False, options=IMPATIENT)
    holder = connect(autocommit=False, options=IMPATIENT)
    stop_clock(worker)
    limit(worker, FIFTY, 1)
    create_in_all(worker, lock_ms=100)
    create_in_all(worker)
    taken = serve(worker, within_ms=0)
    move_clock(worker, 100)
    assert delete(deleter, *taken) == ["MESSAGE_DELETED"] * len(FIFTY)
    for _ in range(20):
        assert dequeue(holder) == []
    deleter.commit()
    assert channels(serve(worker)) == set(FIFTY)
    holder.rollback()
    assert serve(worker) == []


def test_open_dequeues_beside_open_cancels_hold_up_no_channel(connect: Connect) -> None:
    worker, canceller = connect(options=IMPATIENT), connect(autocommit=False, options=IMPATIENT)
    holder = connect(autocommit=False, options=IMPATIENT)
    stop_clock(worker)
    limit(worker, FIFTY, 1)
    create_in_all(worker)
    canceller.execute("SELECT lonny.message_cancel(id) FROM lonny.message")
    for _ in range(20):
        assert dequeue(holder) == []
    canceller.rollback()
    assert channels(serve(worker)) == set(FIFTY)
    holder.rollback()
    assert serve(worker) == []


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("count", [100, 20_000])
def test_many_wakes_of_one_channel_delay_another_by_nothing(
    connect: Connect, count: int, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside, options=IMPATIENT)
    limit(admin, ["flood", "before", "after"], 100)
    admin.execute("SELECT lonny.message_create('flood', 'x', 1000) FROM generate_series(1, %s)", [count])
    assert scalar(admin, "SELECT count(*) FROM lonny.wake WHERE channel = 'flood'") > count
    create(admin, "before")
    create(admin, "after")
    first = [message.channel for _ in range(3) for message in dequeue(worker)]
    assert sorted(first) == ["after", "before", "flood"]


def test_two_sessions_setting_two_policies_in_opposite_order_neither_wait_nor_deadlock(
    connect: Connect,
) -> None:
    one, two = (connect(autocommit=False, options=IMPATIENT) for _ in range(2))
    taker, beater, deleter = (connect(autocommit=False, options=IMPATIENT) for _ in range(3))
    worker = connect(options=IMPATIENT)
    limit(worker, "ab", 3)
    create(worker, "a", 5)
    create(worker, "b", 5)
    beaten, deleted, *_ = serve_now(worker, 4)
    dequeue(taker, 2)
    beater.execute("SELECT lonny.message_heartbeat(%s, %s)", [beaten.id, beaten.num_attempts])
    delete(deleter, deleted)
    limit(one, "a", 1)
    limit(two, "b", 1)
    limit(one, "b", 2)
    limit(two, "a", 2)
    dequeue(worker, 10)
    create(worker, "a")
    create(worker, "b")
    for conn in (two, taker, one, deleter, beater):
        conn.commit()
        dequeue(worker, 10)
    # The later call of each channel is in force, whichever was committed last.
    assert [scalar(worker, IN_FORCE, [channel]) for channel in "ab"] == [2, 2]


IN_FORCE = "SELECT max_concurrency FROM lonny._policy_in_force WHERE channel = %s"


def serve_now(conn: Connection, count: int) -> list[Taken]:
    taken = [message for _ in range(count) for message in dequeue(conn)]
    assert len(taken) == count
    return taken


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
def test_a_pause_with_150_older_wakes_binds_at_the_next_dequeue(connect: Connect, inside: bool) -> None:
    admin, worker = connect(), connect(autocommit=not inside, options=IMPATIENT)
    limit(admin, "a", 200)
    for _ in range(150):
        create(admin, "a")
    limit(admin, [f"other-{i}" for i in range(150)], 1)
    for i in range(150):
        create(admin, f"other-{i}")
    limit(admin, "a", 0)
    taken = [message.channel for _ in range(160) for message in dequeue(worker)]
    assert sorted(taken) == sorted(f"other-{i}" for i in range(150))


@pytest.mark.parametrize("commits", [True, False], ids=["commit", "rollback"])
@pytest.mark.parametrize("max_concurrency", [0, 1, 2, 3])
def test_a_policy_set_beside_uncommitted_dequeues_does_not_overshoot(
    connect: Connect, max_concurrency: int, commits: bool
) -> None:
    worker = connect(options=IMPATIENT)
    stop_clock(worker)
    create(worker, "a", 6)
    holders = [connect(autocommit=False, options=IMPATIENT) for _ in range(2)]
    held = [message for holder in holders for message in dequeue(holder)]
    limit(worker, "a", max_concurrency)
    served = serve(worker)
    assert len(served) == max(max_concurrency - len(held), 0)
    for holder in holders:
        holder.commit() if commits else holder.rollback()
    if commits:
        served += held
    served += serve(worker)
    served += serve(worker)  # the first has seen what came back without having been released
    assert len(served) == out(worker, "a") == max(max_concurrency, len(held) if commits else 0)
    if max_concurrency:
        delete(worker, *served)
        assert len(served) + len(work(worker)) == 6


@pytest.mark.parametrize("max_messages", [1, 5])
def test_what_a_rolled_back_dequeue_gives_back_to_a_paused_channel_waits(
    connect: Connect, max_messages: int
) -> None:
    worker, holder = connect(), connect(autocommit=False)
    stop_clock(worker)
    create(worker, "a", 2)
    dequeue(holder, 2)
    limit(worker, "a", 0)
    assert dequeue(worker, max_messages) == []
    holder.rollback()
    # The first has seen that they are ready, the second puts them back.
    assert [dequeue(worker, max_messages) for _ in range(2)] == [[], []]
    assert out(worker, "a") == 0


@pytest.mark.parametrize("level", [IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ])
@pytest.mark.parametrize("delay_ms", [0, -1000, 300])
def test_a_create_that_began_before_the_policy_and_commits_after_it_keeps_the_limit(
    connect: Connect, level: IsolationLevel, delay_ms: int
) -> None:
    worker, producer = connect(), connect(autocommit=False)
    stop_clock(worker)
    producer.isolation_level = level
    ids = {channel: create(producer, channel, 4, delay_ms=delay_ms) for channel in "012"}
    for channel in ids:
        limit(worker, channel, int(channel))
    assert serve(worker) == []
    producer.commit()
    served = serve(worker)
    assert sorted(message.channel for message in served) == ["1", "2", "2"]
    delete(worker, *served)
    served += work(worker)
    for channel in "12":
        assert [message.id for message in served if message.channel == channel] == ids[channel]


# Stops a dequeue in the middle: when it makes a message of the channel `gated` ready.
GATE = """
CREATE FUNCTION public.gate() RETURNS trigger LANGUAGE plpgsql AS
  $$BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(42); RETURN NULL; END$$;
CREATE TRIGGER gate AFTER UPDATE ON lonny.message FOR EACH ROW
  WHEN (NEW.channel = 'gated' AND OLD.status = 'WAITING' AND NEW.status = 'READY')
  EXECUTE FUNCTION public.gate();
"""
# Or when it has taken the first of all messages.
TAKE_GATE = """
CREATE OR REPLACE TRIGGER gate AFTER UPDATE ON lonny.message FOR EACH ROW
  WHEN (NEW.id = 1 AND OLD.status = 'READY' AND NEW.status = 'LOCKED')
  EXECUTE FUNCTION public.gate();
"""
TAKE: LiteralString = "SELECT id FROM lonny.message_dequeue()"


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("max_concurrency", [0, 1])
def test_a_policy_committed_between_the_advance_and_the_take_binds(
    connect: Connect, max_concurrency: int, inside: bool
) -> None:
    admin, worker, gate = connect(), connect(autocommit=not inside), connect()
    stop_clock(admin)
    admin.execute(GATE)
    gate.execute("SELECT pg_advisory_lock(42)")
    limit(admin, "gated", 2)
    create(admin, "gated", 2)
    with background(worker, TAKE) as step:
        assert step.blocked_by() == [gate.info.backend_pid]
        limit(admin, "gated", max_concurrency)
        gate.execute("SELECT pg_advisory_unlock(42)")
        taken = [id_ for (id_,) in step.result() if id_ is not None]
    worker.commit()
    assert len(taken) + len(serve(admin)) == max_concurrency


@pytest.mark.parametrize("state", ["delayed", "expired"])
def test_a_limit_counts_what_a_dequeue_that_began_before_it_is_taking(connect: Connect, state: str) -> None:
    # The dequeue is alone. To others the message still waits, or its lock is over.
    admin, worker, gate, other = connect(), connect(), connect(), connect(options=IMPATIENT)
    stop_clock(admin)
    create(admin, "gated", lock_ms=100, delay_ms=100 if state == "delayed" else 0)
    if state == "expired":
        assert len(dequeue(admin)) == 1
    move_clock(admin, 100)
    admin.execute(GATE)
    admin.execute(TAKE_GATE)
    gate.execute("SELECT pg_advisory_lock(42)")
    with background(worker, "SELECT id FROM lonny.message_dequeue(1, 3600000)") as step:
        assert step.blocked_by() == [gate.info.backend_pid]
        limit(admin, "gated", 1)
        create(admin, "gated", delay_ms=-1000)
        assert serve(other) == []
        gate.execute("SELECT pg_advisory_unlock(42)")
        assert len(step.result()) == 1
    assert serve(other) == []
    assert out(admin, "gated") == 1


def test_what_comes_due_beside_a_dequeue_that_is_taking_another_of_its_channel_is_delivered(
    connect: Connect,
) -> None:
    admin, worker, gate, other = connect(), connect(), connect(), connect(options=IMPATIENT)
    stop_clock(admin)
    create(admin, "gated", delay_ms=100)
    (second,) = create(admin, "gated", delay_ms=200)
    move_clock(admin, 100)
    admin.execute(GATE)
    admin.execute(TAKE_GATE)
    gate.execute("SELECT pg_advisory_lock(42)")
    with background(worker, TAKE) as step:
        assert step.blocked_by() == [gate.info.backend_pid]
        move_clock(admin, 100)
        assert [message.id for message in dequeue(other)] == [second]
        gate.execute("SELECT pg_advisory_unlock(42)")


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
def test_beside_a_session_that_stops_in_the_middle_of_an_advance_all_others_go_on(
    connect: Connect, inside: bool
) -> None:
    admin, worker, gate = connect(), connect(autocommit=not inside), connect()
    other = connect(options=IMPATIENT)
    stop_clock(admin)
    admin.execute(GATE)
    gate.execute("SELECT pg_advisory_lock(42)")
    limit(admin, "gated", 2)
    create(admin, "gated", 3)
    with background(worker, TAKE) as step:
        assert step.blocked_by() == [gate.info.backend_pid]
        limit(other, FIFTY, 1)
        create_in_all(other)
        create(other, "gated")
        assert channels(serve(other)) == set(FIFTY)
        limit(other, "gated", 3)
        gate.execute("SELECT pg_advisory_unlock(42)")
    worker.commit()
    serve(other)
    assert out(other, "gated") == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_dequeue_whose_session_is_killed_has_consumed_nothing(
    connect: Connect, kind: Callable[[Connection], None]
) -> None:
    worker, holder = connect(), connect(autocommit=False)
    fifty_due(worker, kind)
    count = scalar(worker, "SELECT count(*) FROM lonny.message")
    taken = dequeue(holder, 5)
    assert taken
    served = serve(worker)
    end_without_commit(worker, holder, "kill")
    served += serve(worker)
    assert channels(served) == set(FIFTY)
    assert max(out(worker, channel) for channel in FIFTY) == 1
    delete(worker, *served)
    assert len(served) + len(work(worker)) == count


def end_without_commit(observer: Connection, conn: Connection, end: str) -> None:
    if end == "rollback":
        conn.rollback()
        return
    pid = conn.info.backend_pid
    assert scalar(observer, "SELECT pg_terminate_backend(%s)", [pid])
    gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
    wait_until(lambda: bool(scalar(observer, gone, [pid])), "the session is gone")
    conn.close()


# One channel each, and what ends its message.
ENDS: dict[str, LiteralString] = {
    "delete": "SELECT lonny.message_delete(%s, 1)",
    "delete_many": "SELECT result FROM lonny.message_delete_many(ARRAY[%s::bigint], '{1}')",
    "defer": "SELECT lonny.message_defer(%s, 1, 5000)",
}
ENDED = ("MESSAGE_DELETED", "MESSAGE_DEFERRED")


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_after_an_end_whose_snapshot_does_not_see_the_policy_the_channel_goes_on(
    connect: Connect, level: IsolationLevel
) -> None:
    worker, old = connect(options=IMPATIENT), connect(autocommit=False)
    stop_clock(worker)
    first = {channel: create(worker, channel)[0] for channel in ENDS}
    assert len(dequeue(worker, 3)) == 3
    old.isolation_level = level
    assert scalar(old, "SELECT count(*) FROM lonny.channel_policy") == 0
    limit(worker, ENDS, 1)
    second = [create(worker, channel)[0] for channel in ENDS]
    assert serve(worker) == []
    assert all(scalar(old, end, [first[channel]]) in ENDED for channel, end in ENDS.items())
    assert serve(worker) == []
    old.commit()
    assert sorted(message.id for message in serve(worker, within_ms=250)) == second


@pytest.mark.parametrize("late", ["create", "delay", "policy"])
@pytest.mark.parametrize("nested", [False, True], ids=["", "in a savepoint"])
def test_what_begins_to_wait_beside_an_open_end_is_released_when_that_commits(
    connect: Connect, late: str, nested: bool
) -> None:
    # Whoever ends a message wakes its channel if another waits. Here none does yet.
    worker, ender = connect(options=IMPATIENT), connect(autocommit=False)
    stop_clock(worker)
    if late != "policy":
        limit(worker, ENDS, 1)
    first = {channel: create(worker, channel)[0] for channel in ENDS}
    assert channels(serve(worker, within_ms=0)) == set(ENDS)
    for channel, end in ENDS.items():
        if nested:
            ender.execute("SELECT 1")
            with ender.transaction():
                ender.execute(end, [first[channel]])
        else:
            ender.execute(end, [first[channel]])
    second = [create(worker, channel, delay_ms=100 if late == "delay" else 0)[0] for channel in ENDS]
    if late == "policy":
        limit(worker, ENDS, 1)
    assert serve(worker) == []
    ender.commit()
    assert sorted(message.id for message in serve(worker, within_ms=250)) == second


def test_what_begins_to_wait_beside_an_open_cancel_is_released_when_that_commits(connect: Connect) -> None:
    worker, canceller = connect(options=IMPATIENT), connect(autocommit=False)
    stop_clock(worker)
    limit(worker, "a", 1)
    limit(worker, "b", 1)
    (first,) = create(worker, "a")
    create(worker, "b")
    # Both channels are advanced, one message is taken.
    (taken,) = dequeue(worker)
    if taken.id == first:
        delete(worker, taken)
        (first,) = create(worker, "a")
        (other,) = dequeue(worker)
        assert other.channel == "b"
    assert scalar(worker, "SELECT status FROM lonny.message_status(ARRAY[%s::bigint])", [first]) == "READY"
    canceller.execute("SELECT lonny.message_cancel(%s)", [first])
    (second,) = create(worker, "a")
    assert serve(worker) == []
    canceller.commit()
    assert [message.id for message in serve(worker, within_ms=250)] == [second]


@pytest.mark.parametrize("max_concurrency", [None, 1, 3])
def test_after_a_cancel_that_is_rolled_back_the_message_that_an_advance_passed_by_is_delivered(
    connect: Connect, max_concurrency: int | None
) -> None:
    worker, canceller = connect(options=IMPATIENT), connect(autocommit=False)
    stop_clock(worker)
    if max_concurrency:
        limit(worker, "a", max_concurrency)
        (id_,) = create(worker, "a")
    else:
        (id_,) = create(worker, "a", delay_ms=100)
        move_clock(worker, 100)
    assert scalar(canceller, "SELECT lonny.message_cancel(%s)", [id_]) == "MESSAGE_CANCELLED"
    assert serve(worker) == []
    canceller.rollback()
    assert [message.id for message in serve(worker, within_ms=250)] == [id_]


def test_a_message_that_an_advance_passed_by_among_others_is_looked_at_again(connect: Connect) -> None:
    worker, canceller = connect(options=IMPATIENT), connect(autocommit=False)
    stop_clock(worker)
    limit(worker, "a", 10)
    ids = create(worker, "a", 5)
    assert scalar(canceller, "SELECT lonny.message_cancel(%s)", [ids[2]]) == "MESSAGE_CANCELLED"
    # Nothing of these ends, so nothing else tells of the one that was passed by.
    assert [message.id for message in dequeue(worker, 10)] == [*ids[:2], *ids[3:]]
    canceller.rollback()
    move_clock(worker, 250)
    assert [message.id for message in dequeue(worker, 10)] == [ids[2]]


@pytest.mark.parametrize("limited", [False, True])
def test_beside_a_long_producer_transaction_all_else_of_its_channel_is_delivered(
    connect: Connect, limited: bool
) -> None:
    worker, producer = connect(options=IMPATIENT), connect(autocommit=False)
    stop_clock(worker)
    if limited:
        limit(worker, "a", 2)
    hidden = create(producer, "a", 3)
    seen = create(worker, "a", 5)
    assert [message.id for message in work(worker)] == seen
    producer.commit()
    assert [message.id for message in work(worker)] == hidden


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize(
    ("before", "after", "at"),
    [(1000, 3000, 0), (1000, 3000, 999), (3000, 1000, 500), (3000, 1, 500), (1000, 1000, 999)],
)
def test_an_interval_that_changes_while_its_timer_runs_counts_from_the_same_dequeue(
    connect: Connect, before: int, after: int, at: int, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside)
    stop_clock(admin)
    limit(admin, "a", None, before)
    create(admin, "a", 3)
    assert len(dequeue(worker)) == 1
    worker.commit()
    move_clock(admin, at)
    assert dequeue(worker) == []
    worker.commit()
    limit(admin, "a", None, after)
    if after > at:
        assert dequeue(worker) == []
        worker.commit()
        move_clock(admin, after - at - 1)
        assert dequeue(worker) == []
        worker.commit()
        move_clock(admin, 1)
    for _ in range(2):
        assert len(dequeue(worker)) == 1
        worker.commit()
        assert dequeue(worker) == []
        worker.commit()
        move_clock(admin, after)


def test_an_interval_and_a_limit_hold_together(connect: Connect) -> None:
    worker = connect()
    stop_clock(worker)
    limit(worker, "a", 2, 100)
    create(worker, "a", 4)
    (first,) = serve(worker, within_ms=99)
    move_clock(worker, 99)
    assert dequeue(worker) == []
    move_clock(worker, 1)
    (second,) = dequeue(worker)
    move_clock(worker, 100)
    assert dequeue(worker) == [], "two are out"
    delete(worker, first, second)
    assert len(dequeue(worker)) == 1
    move_clock(worker, 99)
    assert dequeue(worker) == [], "one is out, the interval is not over"
    move_clock(worker, 1)
    assert len(dequeue(worker)) == 1


def test_ends_of_different_messages_in_opposite_order_neither_wait_nor_deadlock(connect: Connect) -> None:
    worker = connect()
    one, two = (connect(autocommit=False, options=IMPATIENT) for _ in range(2))
    limit(worker, "ab", 4)
    messages = create(worker, "a", 5) + create(worker, "b", 5)
    taken = {message.id for _ in range(8) for message in dequeue(worker)}
    waiting = [id_ for id_ in messages if id_ not in taken]
    a, b = sorted(taken)[:4], sorted(taken)[4:]
    for mine, conn in (((a[0], b[1], a[2], b[3]), one), ((b[0], a[1], b[2], a[3]), two)):
        delete_, many, defer, beat = mine
        assert scalar(conn, "SELECT lonny.message_delete(%s, 1)", [delete_]) == "MESSAGE_DELETED"
        assert scalar(conn, ENDS["delete_many"], [many]) == "MESSAGE_DELETED"
        assert scalar(conn, "SELECT lonny.message_defer(%s, 1)", [defer]) == "MESSAGE_DEFERRED"
        assert scalar(conn, "SELECT lonny.message_heartbeat(%s, 1)", [beat]) == "MESSAGE_HEARTBEATED"
        assert scalar(conn, "SELECT lonny.message_cancel(%s)", [waiting.pop()]) == "MESSAGE_CANCELLED"
    one.commit()
    two.commit()


def test_two_batches_of_deletes_of_the_same_messages_in_opposite_order_do_not_deadlock(
    connect: Connect,
) -> None:
    worker, one, two = connect(), connect(autocommit=False), connect(autocommit=False)
    many = "SELECT array_agg(result::text) FROM lonny.message_delete_many(%s, %s)"
    ids = create(worker, "a", 3)
    dequeue(worker, 3)
    one.execute("SELECT lonny.message_delete(%s, 1)", [ids[1]])
    with background(two, many, [ids[::-1], [1, 1, 1]]) as step:
        assert step.blocked_by() == [one.info.backend_pid]
        # The other has only what comes before the one that it waits for.
        assert scalar(one, "SELECT lonny.message_delete(%s, 1)", [ids[2]]) == "MESSAGE_DELETED"
        one.commit()
        assert step.result() == [(["MESSAGE_NOT_FOUND", "MESSAGE_NOT_FOUND", "MESSAGE_DELETED"],)]


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("end", ["commit", "rollback", "kill"])
def test_an_expired_message_that_an_open_dequeue_noticed_is_passed_by_and_comes_back(
    connect: Connect, limited: bool, end: str
) -> None:
    worker, holder = connect(options=IMPATIENT), connect(autocommit=False)
    stop_clock(worker)
    if limited:
        limit(worker, "a", 1)
    (id_,) = create(worker, "a", lock_ms=100)
    assert dequeue(worker) == [(id_, "a", 1)]
    move_clock(worker, 100)
    assert dequeue(holder) == [(id_, "a", 2)]
    taken, retry_ms = answer(worker)
    assert taken == []
    assert retry_ms is not None
    assert 1 <= retry_ms <= 50
    assert scalar(worker, "SELECT lonny.message_heartbeat(%s, 1)", [id_]) == "MESSAGE_BUSY"
    if end == "commit":
        holder.commit()
        assert scalar(worker, "SELECT lonny.message_heartbeat(%s, 1)", [id_]) == "MESSAGE_STATE_INVALID"
        assert delete(worker, Taken(id_, "a", 1)) == ["MESSAGE_STATE_INVALID"]
        move_clock(worker, 100)
        assert dequeue(worker) == [(id_, "a", 3)]
    else:
        end_without_commit(worker, holder, end)
        assert dequeue(worker) == [(id_, "a", 2)]


@pytest.mark.parametrize(
    ("finish", "result"),
    [
        ("SELECT lonny.message_delete(%s, 1)", "MESSAGE_DELETED"),
        ("SELECT lonny.message_defer(%s, 1)", "MESSAGE_DEFERRED"),
    ],
    ids=["delete", "defer"],
)
@pytest.mark.parametrize("limited", [False, True])
def test_a_late_worker_does_not_wait_for_an_open_dequeue_that_took_another_message(
    connect: Connect, limited: bool, finish: LiteralString, result: str
) -> None:
    worker, holder = connect(options=IMPATIENT), connect(autocommit=False)
    stop_clock(worker)
    if limited:
        limit(worker, "a", 3)
    late = create(worker, "a", 3, lock_ms=100)
    assert len(serve(worker, within_ms=0)) == 3
    move_clock(worker, 100)
    (other,) = create(worker, "b")
    scalar(worker, "SELECT setval('lonny.rotation', lonny._lane('b') - 1)")
    assert [message.id for message in dequeue(holder)] == [other]
    assert [scalar(worker, finish, [id_]) for id_ in late] == [result] * 3


def test_a_cancel_does_not_wait_for_an_open_dequeue_that_took_another_message(connect: Connect) -> None:
    worker, holder = connect(options=IMPATIENT), connect(autocommit=False)
    limit(worker, "a", 3)
    ids = create(worker, "a", 3)
    (other,) = create(worker, "b")
    scalar(worker, "SELECT setval('lonny.rotation', lonny._lane('b') - 1)")
    assert [message.id for message in dequeue(holder)] == [other]
    cancelled = [scalar(worker, "SELECT lonny.message_cancel(%s)", [id_]) for id_ in ids]
    assert cancelled == ["MESSAGE_CANCELLED"] * 3


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("state", ["ready", "delayed", "expired"])
def test_a_reference_to_a_message_that_is_being_inserted_does_not_hide_it(
    connect: Connect, state: str, limited: bool
) -> None:
    worker, user = connect(options=IMPATIENT), connect(autocommit=False)
    stop_clock(worker)
    worker.execute("CREATE TABLE public.job (message bigint REFERENCES lonny.message (id) ON DELETE CASCADE)")
    if limited:
        limit(worker, "a", 1)
    for max_messages in (1, 2):
        (id_,) = create(worker, "a", lock_ms=100, delay_ms=100 if state == "delayed" else 0)
        if state == "expired":
            assert len(dequeue(worker)) == 1
        move_clock(worker, 100)
        user.execute("INSERT INTO public.job VALUES (%s)", [id_])
        (taken,) = dequeue(worker, max_messages)
        assert taken.id == id_
        answers = [
            scalar(worker, "SELECT lonny.message_heartbeat(%s, %s)", taken[::2]),
            scalar(worker, "SELECT lonny.message_defer(%s, %s)", taken[::2]),
        ]
        assert answers == ["MESSAGE_HEARTBEATED", "MESSAGE_DEFERRED"]
        assert dequeue(worker, max_messages) == [(id_, "a", taken.num_attempts + 1)]
        user.commit()
        assert delete(worker, Taken(id_, "a", taken.num_attempts + 1)) == ["MESSAGE_DELETED"]


@pytest.mark.parametrize("max_concurrency", [1, 2, 5])
def test_in_a_limited_channel_a_negative_delay_goes_before_what_is_ready_already(
    connect: Connect, max_concurrency: int
) -> None:
    worker = connect()
    stop_clock(worker)
    limit(worker, ["a", "z"], max_concurrency)
    later = create(worker, "a", 5)
    create(worker, "z")
    (first,) = dequeue(worker)
    if first.channel == "a":
        scalar(worker, "SELECT lonny.message_defer(%s, 1, -1)", [first.id])
        later = [first.id, *later[1:]]
        assert [message.channel for message in dequeue(worker)] == ["z"]
    assert scalar(worker, "SELECT count(*) FROM lonny.message WHERE channel = 'a' AND status = 'READY'") > 0
    early = create(worker, "a", 2, delay_ms=-1000)
    assert [message.id for message in work(worker)] == early + later


@pytest.mark.parametrize("max_concurrency", [1, 3])
def test_deferred_and_expired_messages_keep_the_limit(connect: Connect, max_concurrency: int) -> None:
    worker = connect()
    stop_clock(worker)
    limit(worker, "a", max_concurrency)
    create(worker, "a", 8, lock_ms=100)
    for _ in range(10):
        taken = serve(worker, within_ms=0)
        assert len(taken) == max_concurrency
        assert out(worker, "a") == max_concurrency
        deferred = scalar(worker, "SELECT lonny.message_defer(%s, %s)", taken[0][::2])
        assert deferred == "MESSAGE_DEFERRED"
        assert len(serve(worker, within_ms=99)) == 1
        move_clock(worker, 100)
    assert scalar(worker, "SELECT count(*) FROM lonny.message") == 8


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("max_messages", [1, 10])
def test_two_channels_with_one_lane_share_turns_and_nothing_else(
    connect: Connect, inside: bool, max_messages: int
) -> None:
    admin, worker = connect(), connect(autocommit=not inside, options=IMPATIENT)
    stop_clock(admin)
    admin.execute(
        "CREATE OR REPLACE FUNCTION lonny._lane(p_channel text) RETURNS bigint"
        " LANGUAGE sql IMMUTABLE AS 'SELECT 7'"
    )
    limit(admin, "paused", 0)
    limit(admin, "two", 2)
    limit(admin, "slow", None, 100)
    ids = {name: create(admin, name, 6) for name in ("paused", "two", "slow", "free")}
    create(admin, "free", delay_ms=50)

    def take() -> list[Taken]:
        taken: list[Taken] = []
        while more := dequeue(worker, max_messages):
            taken += more
            worker.commit()
        worker.commit()
        return taken

    taken = take()
    by_channel = {name: [m.id for m in taken if m.channel == name] for name in ids}
    assert by_channel == {
        "paused": [],
        "two": ids["two"][:2],
        "slow": ids["slow"][:1],
        "free": ids["free"],
    }
    move_clock(admin, 50)
    assert [message.channel for message in take()] == ["free"]
    move_clock(admin, 50)
    assert [message.channel for message in take()] == ["slow"]
    assert delete(admin, *[m for m in taken if m.channel == "two"]) == ["MESSAGE_DELETED"] * 2
    assert [message.channel for message in take()] == ["two", "two"]
    limit(admin, "two", 3)
    limit(admin, "paused", 1)
    assert sorted(message.channel for message in take()) == ["paused", "two"]


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
def test_a_limit_that_changes_counts_what_is_out_already(connect: Connect, inside: bool) -> None:
    admin, worker = connect(options=IMPATIENT), connect(autocommit=not inside, options=IMPATIENT)
    stop_clock(admin)
    ids = create(admin, "a", 20)
    taken: list[Taken] = []

    def expect(count: int) -> None:
        """Of the messages that are out, beside those that are taken already."""
        for _ in range(8):
            taken.extend(dequeue(worker, 2))
            worker.commit()
        assert len(taken) == count

    taken += dequeue(worker)
    worker.commit()
    limit(admin, "a", 3)
    expect(3)
    limit(admin, "a", 5)
    expect(5)
    limit(admin, "a", 2)
    expect(5)
    delete(admin, *taken[:3])
    del taken[:3]
    expect(2)
    delete(admin, taken.pop(0))
    expect(2)
    limit(admin, "a", 0)
    delete(admin, taken.pop(0))
    expect(1)
    limit(admin, "a", 4)
    expect(4)
    admin.execute("SELECT lonny.channel_policy_clear('a')")
    expect(len(ids) - 5)
    limit(admin, "a", 1)
    create(admin, "a")
    expect(15)
    delete(admin, *taken[1:])
    del taken[1:]
    expect(1)
    delete(admin, taken.pop())
    expect(1)


# What a worker does with a message that it has.
FINISH: dict[str, LiteralString] = {**ENDS, "heartbeat": "SELECT lonny.message_heartbeat(%s, 1)"}


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
@pytest.mark.parametrize("first", FINISH)
def test_with_an_old_snapshot_a_message_that_was_changed_since_is_an_error_and_another_is_not(
    connect: Connect, first: str, level: IsolationLevel
) -> None:
    worker, old = connect(), connect(autocommit=False)
    limit(worker, "a", 20)
    for second in FINISH.values():
        changed, other = create(worker, "a", 2)
        assert len(dequeue(worker, 2)) == 2
        old.isolation_level = level
        old.execute("SELECT FROM lonny.message")
        worker.execute(FINISH[first], [changed])
        with pytest.raises(psycopg.errors.SerializationFailure):
            old.execute(second, [changed])
        old.rollback()
        old.execute("SELECT FROM lonny.message")
        (waiting,) = create(worker, "a", delay_ms=LOCK_MS)
        assert scalar(old, second, [other]) in (*ENDED, "MESSAGE_HEARTBEATED")
        assert scalar(old, "SELECT lonny.message_cancel(%s)", [waiting]) == "MESSAGE_NOT_FOUND"
        old.commit()


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_with_an_old_snapshot_a_cancel_of_a_message_that_was_changed_since_is_an_error(
    connect: Connect, level: IsolationLevel
) -> None:
    worker, old = connect(), connect(autocommit=False)
    taken, cancelled, other = create(worker, "a", 3)
    old.isolation_level = level
    for changed in (taken, cancelled):
        old.execute("SELECT FROM lonny.message")
        if changed == taken:
            assert [message.id for message in dequeue(worker)] == [taken]
        else:
            assert scalar(worker, "SELECT lonny.message_cancel(%s)", [cancelled]) == "MESSAGE_CANCELLED"
        with pytest.raises(psycopg.errors.SerializationFailure):
            old.execute("SELECT lonny.message_cancel(%s)", [changed])
        old.rollback()
    assert scalar(old, "SELECT lonny.message_cancel(%s)", [other]) == "MESSAGE_CANCELLED"
    old.commit()


def test_versions_of_a_policy_are_removed_beside_an_open_one_and_nobody_waits(connect: Connect) -> None:
    worker, admin = connect(options=IMPATIENT), connect(autocommit=False, options=IMPATIENT)
    stop_clock(worker)
    for max_concurrency in range(5):
        limit(worker, "a", max_concurrency)
    limit(admin, "a", 1)
    create(worker, "a", 6)
    assert len(serve(worker)) == 4
    assert scalar(worker, "SELECT count(*) FROM lonny.channel_policy") == 1
    limit(worker, "a", 5)
    assert len(serve(worker)) == 1
    admin.commit()
    # It was called before the last one, so it changes nothing.
    assert len(serve(worker)) == 0
    assert scalar(worker, IN_FORCE, ["a"]) == 5
    assert scalar(worker, "SELECT count(*) FROM lonny.channel_policy") == 1


# Stops a session of a role in the middle of a statement, when it reads a message of a status.
READ_GATE: LiteralString = """
DO $$
DECLARE
  v_function regprocedure;
BEGIN
  -- With the rights of their caller the functions see the policy below, which their owner would not.
  FOR v_function IN
    SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'lonny'::regnamespace AND p.prosecdef LOOP
    EXECUTE format('ALTER FUNCTION %s SECURITY INVOKER', v_function);
  END LOOP;
END
$$;
CREATE FUNCTION public.gate(p_status text) RETURNS boolean LANGUAGE plpgsql AS
  $$BEGIN
    IF p_status = current_setting('test.gate') THEN
      PERFORM pg_catalog.pg_advisory_xact_lock_shared(42);
    END IF;
    RETURN true;
  END$$;
ALTER TABLE lonny.message ENABLE ROW LEVEL SECURITY;
CREATE POLICY gate ON lonny.message USING (public.gate(status::text));
GRANT USAGE ON SCHEMA lonny, public TO pg_monitor;
GRANT ALL ON ALL TABLES IN SCHEMA lonny, public TO pg_monitor;
GRANT ALL ON ALL SEQUENCES IN SCHEMA lonny TO pg_monitor;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lonny TO pg_monitor;
"""


def stopped_at(connect: Connect, status: str) -> Connection:
    conn = connect(options=f"-ctest.gate={status}")
    conn.execute("SET ROLE pg_monitor")
    return conn


def test_a_message_that_is_dequeued_while_an_advance_counts_what_is_out_is_counted(connect: Connect) -> None:
    # Were the locked counted in one statement and the ready in the next, it would be neither.
    admin, gate = connect(), connect()
    stop_clock(admin)
    admin.execute(READ_GATE)
    worker = stopped_at(connect, "LOCKED")
    limit(admin, "a", 2)
    first, second, *_ = create(admin, "a", 5)
    assert [message.id for message in dequeue(admin)] == [first]
    create(admin, "a")
    assert out(admin, "a") == 2
    gate.execute("SELECT pg_advisory_lock(42)")
    with background(worker, TAKE) as step:
        assert step.blocked_by() == [gate.info.backend_pid]
        assert [message.id for message in dequeue(admin)] == [second]
        gate.execute("SELECT pg_advisory_unlock(42)")
        assert step.result() == [(None,)]
    assert out(admin, "a") == 2
    assert serve(admin) == []


@pytest.mark.parametrize("max_messages", [1, 2])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
def test_a_policy_committed_after_a_dequeue_has_begun_and_before_it_holds_a_message_binds(
    connect: Connect, max_messages: int, inside: bool
) -> None:
    # Were the policy looked up by the statement that locks the message, its snapshot would be too old.
    admin, gate = connect(), connect()
    stop_clock(admin)
    admin.execute(READ_GATE)
    worker = stopped_at(connect, "READY")
    create(admin, "a", 3)
    gate.execute("SELECT pg_advisory_lock(42)")
    if inside:
        worker.execute("BEGIN")
    query: LiteralString = TAKE if max_messages == 1 else "SELECT id FROM lonny.message_dequeue(2)"
    with background(worker, query) as step:
        assert step.blocked_by() == [gate.info.backend_pid]
        limit(admin, "a", 0)
        gate.execute("SELECT pg_advisory_unlock(42)")
        assert step.result() == [(None,)]
    if inside:
        worker.execute("COMMIT")
    assert serve(admin) == []
    assert scalar(admin, "SELECT count(*) FROM lonny.message WHERE status = 'LOCKED'") == 0
