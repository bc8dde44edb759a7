"""Dequeues in transactions that stay open must not cost a message, a limit or another channel's turn.

Each of these was wrong once. Most go through the look at a channel before anything of it is touched: what it
saw may change before it acts, and what it did stays invisible to others until its transaction ends.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.support.queue import (
    LOCK_MS,
    Taken,
    channels,
    create,
    delete,
    dequeue,
    empty,
    limit,
    move_clock,
    scalar,
    serve,
    stop_clock,
)
from tests.support.sessions import IMPATIENT, background

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.conftest import Connect
    from tests.support.sessions import Connection, Step

BOTH = pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])

TAKE: LiteralString = "SELECT id, retry_ms FROM lonny.message_dequeue()"

# The stopped clock, and a session stops too: after it has read it for the n-th time.
GATED_CLOCK: LiteralString = """
CREATE OR REPLACE FUNCTION lonny._clock() RETURNS timestamptz LANGUAGE plpgsql AS
  $$DECLARE
    v_readings integer := COALESCE(NULLIF(current_setting('test.readings', true), ''), '0');
    v_at       timestamptz := (SELECT at FROM public.clock);
  BEGIN
    IF v_readings > 0 THEN
      PERFORM set_config('test.readings', (v_readings - 1)::text, false);
      IF v_readings = 1 THEN
        PERFORM pg_advisory_xact_lock_shared(42);
      END IF;
    END IF;
    RETURN v_at;
  END$$;
"""
READINGS = range(1, 11)  # more than any dequeue below needs


@contextmanager
def stopped(worker: Connection, gate: Connection, reading: int) -> Generator[Step]:
    """A dequeue that stops after its n-th look at the clock, goes on after the block, and is committed.

    If it does not look that often, all of it comes before the block.
    """
    gate.execute("SELECT pg_advisory_lock(42)")
    worker.execute("SELECT set_config('test.readings', %s, false)", [str(reading)])
    worker.commit()
    with background(worker, TAKE) as step:
        blocked_by = step.blocked_by()
        assert blocked_by == [gate.info.backend_pid] or (reading > 3 and not blocked_by)
        yield step
        gate.execute("SELECT pg_advisory_unlock(42)")
    worker.execute("SELECT set_config('test.readings', '0', false)")
    worker.commit()


def tend(conn: Connection) -> None:
    """Do what is due for all, and take nothing."""
    conn.execute("SELECT lonny._tend(1000, true, true, '-infinity', NULL)")


def last_is(conn: Connection, channel: str) -> None:
    """Let a channel be the one that was served last, so that all others have their turns before it."""
    conn.execute("SELECT setval('lonny.rotation', lonny._lane(%s))", [channel])


def once(conn: Connection, max_messages: int = 1) -> list[Taken]:
    """One dequeue, committed."""
    taken = dequeue(conn, max_messages)
    conn.commit()
    return taken


def rest(
    admin: Connection, worker: Connection, max_messages: int = 1000, within_ms: int = 1000
) -> list[Taken]:
    """All that can be had within that time, each dequeue committed; the clock moves as the answers say."""
    return serve(worker, max_messages, within_ms, admin=admin)


def locked(conn: Connection, channel: str) -> int:
    return int(
        scalar(conn, "SELECT count(*) FROM lonny.message WHERE channel = %s AND status = 'LOCKED'", [channel])
    )


def not_locked(conn: Connection, channel: str) -> int:
    return int(
        scalar(
            conn, "SELECT count(*) FROM lonny.message WHERE channel = %s AND status <> 'LOCKED'", [channel]
        )
    )


def lock_all(conn: Connection) -> None:
    """Dequeue all there is, without a move of the clock."""
    while once(conn, 1000):
        pass


@BOTH
def test_a_message_that_is_created_while_a_dequeue_looks_at_its_channel_is_not_lost(
    connect: Connect, inside: bool
) -> None:
    # A wake that was chosen after the clock was read announces what is not due by that time.
    admin, gate, worker = connect(), connect(), connect(autocommit=not inside)
    stop_clock(admin)
    admin.execute(GATED_CLOCK)
    for reading in READINGS:
        empty(admin)
        limit(admin, "a", 5)
        with stopped(worker, gate, reading):
            move_clock(admin, 1)
            create(admin, "a")
        rest(admin, worker)
        assert not_locked(admin, "a") == 0, reading


@BOTH
@pytest.mark.parametrize("max_concurrency", [None, 1000])
def test_what_becomes_ready_while_a_dequeue_looks_for_it_is_found(
    connect: Connect, max_concurrency: int | None, inside: bool
) -> None:
    admin, gate, worker = connect(), connect(), connect(autocommit=not inside)
    stop_clock(admin)
    admin.execute(GATED_CLOCK)
    limit(admin, "paused", 0)
    create(admin, "paused")
    limit(admin, "a", max_concurrency)
    assert once(worker) == []
    worker.execute("SELECT set_config('test.readings', '1000', false)")
    worker.commit()
    assert once(worker) == []
    readings = 1000 - int(scalar(worker, "SELECT current_setting('test.readings')"))
    assert readings > 3
    # The last one is for retry_ms, when it has looked.
    for reading in range(1, readings):
        with stopped(worker, gate, reading):
            create(admin, "a")
        assert locked(admin, "a") == reading


@BOTH
def test_a_message_that_is_due_no_more_since_the_clock_was_set_back_is_not_lost(
    connect: Connect, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside)
    stop_clock(admin)
    limit(admin, "a", 5)
    assert once(worker) == []
    (id_,) = create(admin, "a")
    move_clock(admin, -50)
    assert once(worker) == []
    move_clock(admin, 50)
    assert [message.id for message in rest(admin, worker)] == [id_]


@BOTH
def test_what_waits_for_a_second_round_of_an_advance_that_another_dequeue_makes_meanwhile_is_not_lost(
    connect: Connect, inside: bool
) -> None:
    # An advance releases 200 and leaves a wake for the rest. The other has planned before, and finds nothing.
    admin, gate, worker = connect(), connect(), connect(autocommit=not inside)
    stop_clock(admin)
    admin.execute(GATED_CLOCK)
    for reading in READINGS:
        empty(admin)
        limit(admin, "a", 1000)
        tend(admin)
        create(admin, "a", 210)
        create(admin, "b")
        last_is(admin, "b")
        with stopped(worker, gate, reading):
            assert len(once(admin)) == 1
        rest(admin, worker)
        assert not_locked(admin, "a") == 0, reading


@BOTH
def test_a_place_that_is_freed_while_two_dequeues_release_messages_is_filled(
    connect: Connect, inside: bool
) -> None:
    admin, gate, worker = connect(), connect(), connect(autocommit=not inside)
    stop_clock(admin)
    admin.execute(GATED_CLOCK)
    for reading in READINGS:
        empty(admin)
        limit(admin, "a", 3)
        create(admin, "a")
        (first,) = once(admin)
        create(admin, "a", 5)
        with stopped(worker, gate, reading):
            once(admin)
            assert delete(admin, first) == ["MESSAGE_DELETED"]
        rest(admin, worker)
        assert locked(admin, "a") == 3, reading


@BOTH
def test_a_message_that_a_cancel_held_is_not_lost_if_an_open_dequeue_deleted_the_timer_that_would_look_again(
    connect: Connect, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside)
    holder, canceller = (connect(autocommit=False, options=IMPATIENT) for _ in range(2))
    stop_clock(admin)
    limit(admin, "a", 1)
    (overtaken,) = create(admin, "a")
    tend(admin)
    create(admin, "a", delay_ms=-1000)
    first = once(admin)
    move_clock(admin, 300)
    assert dequeue(holder) == []
    delete(admin, *first)
    canceller.execute("SELECT lonny.message_cancel(%s)", [overtaken])
    assert once(worker) == []
    holder.commit()
    canceller.rollback()
    assert [message.id for message in rest(admin, worker)] == [overtaken]


@BOTH
def test_an_interval_that_is_made_longer_while_nothing_waits_counts_from_the_last_dequeue(
    connect: Connect, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside)
    stop_clock(admin)
    limit(admin, "a", None, 1000)
    create(admin, "a")
    assert len(once(worker)) == 1
    move_clock(admin, 500)
    limit(admin, "a", None, 5000)
    move_clock(admin, 1000)
    assert once(worker) == []
    create(admin, "a")
    assert once(worker) == []
    move_clock(admin, 3499)
    assert once(worker) == []
    move_clock(admin, 1)
    assert len(once(worker)) == 1


@BOTH
@pytest.mark.parametrize("how", ["delayed", "limited before"])
def test_a_limit_counts_what_an_open_dequeue_took_of_a_channel_that_had_none(
    connect: Connect, how: str, inside: bool
) -> None:
    # It was not ready before, and others see it waiting still.
    admin, worker = connect(), connect(autocommit=not inside, options=IMPATIENT)
    holder = connect(autocommit=False)
    stop_clock(admin)
    if how == "delayed":
        create(admin, "a", delay_ms=10)
        move_clock(admin, 10)
    else:
        limit(admin, "a", 0)
        create(admin, "a")
        tend(admin)
        admin.execute("SELECT lonny.channel_policy_clear('a')")
    taken = dequeue(holder)
    assert len(taken) == 1
    limit(admin, "a", 1)
    create(admin, "a", 2)
    assert once(worker) == []
    holder.commit()
    assert rest(admin, worker) == []
    delete(admin, *taken)
    assert len(rest(admin, worker)) == 1


@BOTH
def test_a_limit_counts_what_an_open_dequeue_took_beyond_the_first_thousand_ready_messages(
    connect: Connect, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside, options=IMPATIENT)
    failing, holder = (connect(autocommit=False) for _ in range(2))
    stop_clock(admin)
    create(admin, "a", 1100)
    assert len(dequeue(failing, 1050)) == 1050
    taken = dequeue(holder, 5)
    failing.rollback()
    limit(admin, "a", 2)
    for _ in range(3):
        assert once(worker, 10) == []
    holder.commit()
    delete(admin, *taken[:4])
    assert len(rest(admin, worker)) == 1


@BOTH
def test_a_channel_of_which_more_than_a_thousand_were_given_back_goes_on_when_it_gets_a_limit(
    connect: Connect, inside: bool
) -> None:
    # A rollback leaves its mark on the rows: they look as if in another's hands.
    admin, worker = connect(), connect(autocommit=not inside, options=IMPATIENT)
    failing = connect(autocommit=False)
    stop_clock(admin)
    create(admin, "a", 1100)
    assert len(dequeue(failing, 1050)) == 1050
    failing.rollback()
    limit(admin, "a", 2)
    assert len(rest(admin, worker)) == 2


@BOTH
@pytest.mark.parametrize("channel", [None, "a", "limited"])
def test_a_batch_takes_a_message_once_even_if_its_lock_is_over_at_once(
    connect: Connect, channel: str | None, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside)
    stop_clock(admin)
    limit(admin, "limited", 1)
    create(admin, channel, lock_ms=0, delay_ms=5)
    move_clock(admin, 5)
    assert [message.num_attempts for message in once(worker, 10)] == [1]
    assert [message.num_attempts for message in once(worker, 10)] == [2]


@BOTH
def test_what_waits_behind_an_open_batch_of_a_channel_without_a_policy_is_delivered(
    connect: Connect, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside, options=IMPATIENT)
    holder = connect(autocommit=False)
    stop_clock(admin)
    limit(admin, "a", 0)
    ids = create(admin, "a", 150)
    tend(admin)
    admin.execute("SELECT lonny.channel_policy_clear('a')")
    assert [message.id for message in dequeue(holder, 100)] == ids[:100]
    assert [message.id for message in once(worker)] == ids[100:101]


@BOTH
def test_what_waits_behind_a_ready_message_that_an_open_dequeue_took_is_delivered(
    connect: Connect, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside, options=IMPATIENT)
    holder = connect(autocommit=False)
    stop_clock(admin)
    limit(admin, "a", 3)
    (ready,) = create(admin, "a")
    tend(admin)
    ids = create(admin, "a", 5)
    assert [message.id for message in dequeue(holder)] == [ready]
    assert [message.id for _ in range(3) for message in once(worker)] == ids[:2]


@BOTH
def test_what_a_late_producer_made_ready_behind_a_message_that_an_open_dequeue_took_is_delivered(
    connect: Connect, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside, options=IMPATIENT)
    producer, holder = (connect(autocommit=False) for _ in range(2))
    stop_clock(admin)
    (late,) = create(producer, "a")
    limit(admin, "a", 2)
    (ready,) = create(admin, "a", delay_ms=-1000)
    tend(admin)
    producer.commit()
    assert [message.id for message in dequeue(holder)] == [ready]
    assert [message.id for message in rest(admin, worker)] == [late]


@BOTH
def test_of_600_locked_messages_the_one_whose_lock_is_over_is_delivered(
    connect: Connect, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside)
    stop_clock(admin)
    limit(admin, "a", 2000)
    create(admin, "a", 600)
    lock_all(admin)
    (id_,) = create(admin, "a", lock_ms=100)
    lock_all(admin)
    assert locked(admin, "a") == 601
    limit(admin, "a", None, 1)
    move_clock(admin, 100)
    assert once(worker) == [(id_, "a", 2)]


@BOTH
def test_of_450_messages_whose_locks_are_over_one_is_delivered_if_the_limit_is_one_by_now(
    connect: Connect, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside)
    stop_clock(admin)
    limit(admin, "a", 1000)
    create(admin, "a", 450, lock_ms=100)
    lock_all(admin)
    assert locked(admin, "a") == 450
    limit(admin, "a", 1)
    tend(admin)
    move_clock(admin, 100)
    assert len(once(worker)) == 1


@BOTH
@pytest.mark.parametrize(
    ("count", "busy", "calls"),
    [(70, True, 50), (10_500, False, 10)],
    ids=["70, beside a channel that is always ready", "10,500"],
)
def test_a_message_that_is_due_at_the_same_time_as_all_those_of_a_paused_channel_is_delivered(
    connect: Connect, count: int, busy: bool, calls: int, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside)
    stop_clock(admin)
    limit(admin, "paused", 0)
    create(admin, "paused", count, delay_ms=1000)
    create(admin, "a", delay_ms=1000)
    if busy:
        create(admin, "b", calls)
    move_clock(admin, 1000)
    assert "a" in channels([message for _ in range(calls) for message in once(worker)])


@BOTH
@pytest.mark.parametrize("max_messages", [1, 10])
def test_delayed_messages_without_a_channel_are_delivered_in_the_order_of_their_delays(
    connect: Connect, max_messages: int, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside)
    stop_clock(admin)
    ids = [*(create(admin, None, delay_ms=delay_ms)[0] for delay_ms in range(20, 10, -1))][::-1]
    move_clock(admin, 20)
    served = [message.id for _ in range(10 // max_messages) for message in once(worker, max_messages)]
    assert served == ids


@BOTH
@pytest.mark.parametrize("max_messages", [1, 12])
def test_delayed_messages_without_a_channel_share_one_turn(
    connect: Connect, max_messages: int, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside)
    stop_clock(admin)
    create(admin, None, 30, delay_ms=10)
    move_clock(admin, 10)
    for channel in "abc":
        create(admin, channel, 3)
    served = [message for _ in range(12 // max_messages) for message in once(worker, max_messages)]
    turns = [message.channel if message.channel in "abc" else "none" for message in served]
    assert set(turns[:4]) == {"a", "b", "c", "none"}
    assert turns == turns[:4] * 3


FIVE = [f"tenant-{i}" for i in range(5)]


@pytest.mark.parametrize("by", ["dequeues", "deletes"])
def test_an_open_dequeue_holds_up_no_channel_in_which_what_has_to_make_room_was_in_anothers_hands(
    connect: Connect, by: str
) -> None:
    admin, worker = connect(), connect(options=IMPATIENT)
    other, holder = (connect(autocommit=False, options=IMPATIENT) for _ in range(2))
    stop_clock(admin)
    limit(admin, FIVE, 1)
    for channel in FIVE:
        create(admin, channel, lock_ms=LOCK_MS if by == "dequeues" else 100)
    if by == "dequeues":
        tend(admin)
        taken = dequeue(other, 5)
    else:
        taken = once(admin, 5)
        move_clock(admin, 100)
        delete(other, *taken)
    assert channels(taken) == set(FIVE)
    for channel in FIVE:
        create(admin, channel, delay_ms=-1000)
    create(admin, "a")
    last_is(admin, "a")
    assert channels(dequeue(holder)) == {"a"}
    other.commit()
    if by == "dequeues":
        delete(admin, *taken)
    assert channels(rest(admin, worker)) == set(FIVE)


def test_an_open_batch_holds_up_no_channel_where_a_late_producer_made_ready_what_no_policy_released(
    connect: Connect,
) -> None:
    admin, worker = connect(), connect(options=IMPATIENT)
    producer, holder = (connect(autocommit=False, options=IMPATIENT) for _ in range(2))
    stop_clock(admin)
    for channel in FIVE:
        create(producer, channel, 2)
    limit(admin, FIVE, 1)
    tend(admin)
    producer.commit()
    create(admin, "a", 3)
    assert channels(dequeue(holder, 100)) == {"a"}
    assert channels(rest(admin, worker)) == set(FIVE)


def test_an_open_dequeue_holds_up_no_channel_in_which_a_late_producer_comes_after_what_others_hold(
    connect: Connect,
) -> None:
    admin, worker = connect(), connect(options=IMPATIENT)
    producer, other, holder = (connect(autocommit=False, options=IMPATIENT) for _ in range(3))
    stop_clock(admin)
    for channel in FIVE:
        create(producer, channel)
    limit(admin, FIVE, 2)
    for channel in FIVE:
        create(admin, channel, delay_ms=-1000)
    tend(admin)
    producer.commit()
    assert channels(dequeue(other, 5)) == set(FIVE)
    taken = dequeue(holder)
    assert channels(rest(admin, worker)) >= set(FIVE) - channels(taken)


@pytest.mark.parametrize("max_messages", [1, 10])
def test_an_open_dequeue_that_took_nothing_holds_one_late_producers_message_at_most(
    connect: Connect, max_messages: int
) -> None:
    admin, worker = connect(), connect(options=IMPATIENT)
    producer, other, holder = (connect(autocommit=False, options=IMPATIENT) for _ in range(3))
    stop_clock(admin)
    for channel in FIVE:
        create(producer, channel)
    limit(admin, FIVE, 1)
    for channel in FIVE:
        create(admin, channel, delay_ms=-1000)
    tend(admin)
    producer.commit()
    taken = dequeue(other, 5)
    assert channels(taken) == set(FIVE)
    assert dequeue(holder, max_messages) == []
    other.commit()
    delete(admin, *taken)
    # The first that a single dequeue comes upon, it holds before it looks.
    assert len(channels(rest(admin, worker))) >= (4 if max_messages == 1 else 5)


@BOTH
@pytest.mark.parametrize(
    ("before", "after", "at"), [(60_000, 1000, 0), (1000, 5000, 1000)], ids=["shorter", "longer"]
)
def test_an_interval_that_has_changed_ends_in_time_though_an_open_dequeue_was_the_first_to_notice(
    connect: Connect, before: int, after: int, at: int, inside: bool
) -> None:
    # Others do not see the timer that it has set.
    admin, worker = connect(), connect(autocommit=not inside, options=IMPATIENT)
    holder = connect(autocommit=False)
    stop_clock(admin)
    limit(admin, "a", None, before)
    tend(admin)
    create(admin, "a", 2)
    assert len(once(admin)) == 1
    limit(admin, "a", None, after)
    move_clock(admin, at)
    create(admin, "b")
    last_is(admin, "b")
    assert channels(dequeue(holder)) == {"b"}
    create(admin, "c", 20)
    move_clock(admin, after - at)
    assert "a" in channels([message for _ in range(20) for message in once(worker)])


def test_what_no_policy_released_and_batches_pass_by_has_its_turn_in_the_next(connect: Connect) -> None:
    admin = connect()
    producer, worker = (connect(autocommit=False, options=IMPATIENT) for _ in range(2))
    stop_clock(admin)
    create(producer, "late")
    limit(admin, ["late"], 1)
    tend(admin)
    producer.commit()
    create(admin, "a", 10)
    assert channels(dequeue(worker, 5)) == {"a"}
    worker.commit()
    assert channels(dequeue(worker, 5)) == {"a", "late"}


def test_a_lane_of_which_a_batch_could_take_nothing_has_not_had_its_turn(connect: Connect) -> None:
    # The one between two others. It was offered the greater share, but what no policy released is no turn.
    admin, producer = connect(), connect(autocommit=False)
    stop_clock(admin)
    order = "SELECT name FROM unnest('{a,b,c}'::text[]) AS name ORDER BY lonny._lane(name)"
    first, late, last = (name for (name,) in admin.execute(order).fetchall())
    create(producer, late, 5)
    limit(admin, late, 0)
    tend(admin)
    producer.commit()
    create(admin, first)
    create(admin, last, 2)
    admin.execute("SELECT setval('lonny.rotation', -9223372036854775808)")
    assert [message.channel for message in dequeue(admin, 5)] == [first, last]
    create(admin, first)
    assert [message.channel for message in dequeue(admin)] == [first]


@BOTH
@pytest.mark.parametrize("what", ["delay", "lock", "interval"])
def test_what_ends_while_a_dequeue_looks_is_taken_or_foretold(
    connect: Connect, what: str, inside: bool
) -> None:
    admin, gate, worker = connect(), connect(), connect(autocommit=not inside)
    stop_clock(admin)
    admin.execute(GATED_CLOCK)
    for reading in READINGS:
        empty(admin)
        if what == "interval":
            limit(admin, "a", None, 10)
            tend(admin)
        create(
            admin,
            "a",
            2 if what == "interval" else 1,
            lock_ms=10 if what == "lock" else LOCK_MS,
            delay_ms=10 if what == "delay" else 0,
        )
        if what != "delay":
            assert len(dequeue(admin)) == 1
        with stopped(worker, gate, reading) as step:
            move_clock(admin, 15)
        ((id_, retry_ms),) = step.result()
        if id_ is None:
            # 10 if it had given its answer before.
            assert retry_ms in (0, 10)
            assert len(once(worker)) == 1


def test_one_that_an_open_dequeue_puts_back_is_not_forgotten_when_a_place_is_freed_meanwhile(
    connect: Connect,
) -> None:
    conn, other = connect(), connect(autocommit=False)
    stop_clock(conn)
    limit(conn, "a", 2)
    create(conn, "a", 1)
    create(conn, "a", 1, lock_ms=100)
    first, second = (dequeue(conn)[0] for _ in range(2))
    limit(conn, "a", 1)
    dequeue(conn)
    assert scalar(conn, "SELECT count(*) FROM lonny.wake WHERE at IS NULL") == 0
    move_clock(conn, 100)
    assert dequeue(other) == []  # the limit leaves no room for the second, whose lock is over
    conn.execute("SELECT lonny.message_delete(%s, 1)", [first.id])
    other.commit()
    assert conn.execute("SELECT kind FROM lonny.check()").fetchall() == []
    assert {message.id for message in serve(conn)} == {second.id}
