"""The promises that it takes several sessions to break.

More of promise 5 is in test_scenario_order.py, and promise 8, the cost, in test_plans.py.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.support.queue import (
    LOCK_MS,
    Taken,
    answer,
    create,
    delete,
    dequeue,
    empty,
    limit,
    move_clock,
    out,
    scalar,
    serve,
    stop_clock,
    work,
)
from tests.support.sessions import IMPATIENT

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.conftest import Connect
    from tests.support.sessions import Connection

# Everything that a session can do with the messages %(mine)s, which are locked, and %(waiting)s, which wait.
OPERATIONS: dict[str, LiteralString] = {
    "create": "SELECT lonny.message_create('a', 'x', 3600000)",
    "create ahead": "SELECT lonny.message_create('a', 'x', 3600000, -1000)",
    "create_many": "SELECT lonny.message_create_many('{a,b}', '{x,x}', '{3600000}', '{0,10}')",
    "dequeue": "SELECT id FROM lonny.message_dequeue()",
    "dequeue a batch": "SELECT id FROM lonny.message_dequeue(3)",
    "delete": "SELECT lonny.message_delete((%(mine)s)[1], 1)",
    "delete_many": "SELECT lonny.message_delete_many(%(mine)s, '{1,1}')",
    "defer": "SELECT lonny.message_defer((%(mine)s)[1], 1)",
    "defer with a delay": "SELECT lonny.message_defer((%(mine)s)[1], 1, 10)",
    "heartbeat": "SELECT lonny.message_heartbeat((%(mine)s)[1], 1)",
    "cancel": "SELECT lonny.message_cancel((%(waiting)s)[1])",
    "set a limit": "SELECT lonny.channel_policy_set('a', 8)",
    "set an interval": "SELECT lonny.channel_policy_set('a', 8, 10)",
    "pause": "SELECT lonny.channel_policy_set('a', 0)",
    "clear": "SELECT lonny.channel_policy_clear('a')",
    "status": "SELECT lonny.message_status(%(mine)s || %(waiting)s)",
}
LIMITS = pytest.mark.parametrize(
    ("max_concurrency", "interval"),
    [(None, None), (7, None), (7, 10)],
    ids=["no policy", "limit", "limit and interval"],
)


def prepare(
    conn: Connection, max_concurrency: int | None, interval: int | None
) -> list[dict[str, list[int]]]:
    """A channel with work of all kinds; for each of two sessions two locked messages and a waiting one."""
    empty(conn)
    create(conn, "a", 4)
    taken = dequeue(conn, 4)
    if max_concurrency:
        limit(conn, "a", max_concurrency, interval)
    waiting = create(conn, "a", 2, delay_ms=LOCK_MS)
    create(conn, "a", 4)
    create(conn, "a", 2, delay_ms=10)
    create(conn, "a", lock_ms=300)
    create(conn, "b", 2)
    ids = [message.id for message in taken]
    return [{"mine": ids[:2], "waiting": waiting[:1]}, {"mine": ids[2:], "waiting": waiting[1:]}]


def do(conn: Connection, name: str, messages: dict[str, list[int]]) -> None:
    """One of OPERATIONS."""
    query = OPERATIONS[name]
    conn.execute(query, messages if "%" in query else None)


@contextmanager
def beside(held: str) -> Generator[None]:
    """If the block fails, say beside which open operation."""
    try:
        yield
    except Exception as error:
        error.add_note(f"beside an open {held}")
        raise


class TestPromise1NothingWaits:
    @LIMITS
    def test_beside_any_open_operation_every_other_one_is_done_at_once(
        self, connect: Connect, max_concurrency: int | None, interval: int | None
    ) -> None:
        admin = connect()
        holder, other = (connect(autocommit=False, options=IMPATIENT) for _ in range(2))
        stop_clock(admin)
        for held in OPERATIONS:
            with beside(held):
                ours, theirs = prepare(admin, max_concurrency, interval)
                do(holder, held, ours)
                for name in OPERATIONS:
                    do(other, name, theirs)
                    other.rollback()
                # And one after the other in one open transaction, as in no order that was agreed on.
                for name in (*OPERATIONS, *reversed(OPERATIONS)):
                    do(other, name, theirs)
                    do(holder, name, ours)
                holder.commit()
                other.commit()

    @LIMITS
    def test_any_open_operation_but_a_dequeue_holds_up_nobody(
        self, connect: Connect, max_concurrency: int | None, interval: int | None
    ) -> None:
        worker, holder = connect(options=IMPATIENT), connect(autocommit=False)
        stop_clock(worker)
        for held in OPERATIONS:
            if held.startswith("dequeue"):
                continue
            with beside(held):
                ours, _ = prepare(worker, max_concurrency, interval)
                do(holder, held, ours)
                served = [message.channel for message in serve(worker, within_ms=0)]
                assert served.count("b") == 2
                # Four are out; without an interval there is room for three more, with it one comes at a time.
                assert served.count("a") == (5 if max_concurrency is None else 1 if interval else 3)
                holder.rollback()

    def test_a_policy_is_cleared_and_set_beside_open_ones_of_its_channel(self, connect: Connect) -> None:
        admin = connect(options=IMPATIENT)
        limit(admin, "a", 1)
        for change in ("SELECT lonny.channel_policy_clear('a')", "SELECT lonny.channel_policy_set('a', 2)"):
            connect(autocommit=False).execute(change)
        admin.execute("SELECT lonny.channel_policy_clear('a')")
        limit(admin, "a", 3)

    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_a_dequeue_left_open_holds_up_only_its_own_limited_channel(
        self, connect: Connect, end: str
    ) -> None:
        holder, worker = connect(autocommit=False), connect(options=IMPATIENT)
        stop_clock(worker)
        limit(worker, "abc", 1)
        for channel in "abcd":
            create(worker, channel, 2)
        (taken,) = dequeue(holder)
        create(worker, taken.channel)
        done = work(worker)
        assert {message.channel for message in done} >= set("abcd") - {taken.channel}
        holder.commit() if end == "commit" else holder.rollback()
        if end == "commit":
            delete(worker, taken)
            done.append(taken)
        assert len(done + work(worker)) == 9


class TestPromise2NothingIsLost:
    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_whatever_is_passed_by_beside_an_open_operation_is_delivered_after_its_end(
        self, connect: Connect, end: str
    ) -> None:
        worker, holder = connect(options=IMPATIENT), connect(autocommit=False)
        stop_clock(worker)
        finish = "SELECT lonny.message_delete(id, num_attempts) FROM lonny.message WHERE status = 'LOCKED'"
        for held in OPERATIONS:
            with beside(held):
                ours, _ = prepare(worker, 7, 10)
                do(holder, held, ours)
                serve(worker, 2)
                holder.commit() if end == "commit" else holder.rollback()
                worker.execute(
                    "SELECT lonny.message_cancel(id) FROM lonny.message WHERE dequeue_at > %s", [FAR]
                )
                if held == "pause" and end == "commit":
                    assert {message.channel for message in serve(worker, 2)} <= {"b"}
                    worker.execute("SELECT lonny.channel_policy_clear('a')")
                while worker.execute(finish).fetchall():
                    serve(worker, 2)
                assert scalar(worker, "SELECT count(*) FROM lonny.message") == 0

    def test_the_cancel_of_a_ready_message_frees_its_place(self, connect: Connect) -> None:
        worker = connect()
        stop_clock(worker)
        limit(worker, ["a", "b"], 1)
        ids = {channel: create(worker, channel, 2) for channel in ("a", "b")}
        (taken,) = dequeue(worker)
        # It did what was due for both channels.
        first, second = ids[{"a": "b", "b": "a"}[taken.channel]]
        assert scalar(worker, "SELECT status FROM lonny.message_status(ARRAY[%s])", [first]) == "READY"
        assert scalar(worker, "SELECT lonny.message_cancel(%s)", [first]) == "MESSAGE_CANCELLED"
        assert [message.id for message in dequeue(worker)] == [second]

    def test_the_cancel_of_a_message_whose_lock_is_over_frees_its_place(self, connect: Connect) -> None:
        worker = connect()
        stop_clock(worker)
        limit(worker, "a", 1)
        first, second = create(worker, "a", 2, lock_ms=100)
        assert [message.id for message in dequeue(worker)] == [first]
        assert dequeue(worker) == []
        move_clock(worker, 100)
        assert scalar(worker, "SELECT lonny.message_cancel(%s)", [first]) == "MESSAGE_CANCELLED"
        assert [message.id for message in dequeue(worker)] == [second]


FAR = "2030-01-01 00:30:00+00"  # what is created to be due after the test


class TestPromise3LimitsAreExact:
    @pytest.mark.parametrize("max_messages", [1, 4])
    def test_sessions_that_leave_their_dequeues_open_never_exceed_a_limit(
        self, connect: Connect, max_messages: int
    ) -> None:
        admin = connect()
        stop_clock(admin)
        limits = {"a": 1, "b": 2, "c": 5}
        for channel, max_concurrency in limits.items():
            limit(admin, channel, max_concurrency)
            create(admin, channel, 12)
        sessions = [connect(autocommit=False, options=IMPATIENT) for _ in range(6)]
        holding: dict[int, list[Taken]] = {}
        done: list[Taken] = []
        for turn in range(150):
            session = sessions[turn * 5 % 6 if turn % 2 else turn % 6]
            if held := holding.pop(id(session), []):
                # What it took counts until its delete is committed.
                if turn % 3:
                    session.rollback()
                else:
                    session.commit()
                    delete(admin, *held)
                    done += held
            else:
                holding[id(session)] = dequeue(session, max_messages)
            out_now = [message.channel for held in holding.values() for message in held]
            assert all(out_now.count(channel) <= most for channel, most in limits.items())
            move_clock(admin, 50)
        assert len(done) > 12

    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_an_interval_counts_from_a_dequeue_that_is_not_committed_yet(
        self, connect: Connect, end: str
    ) -> None:
        worker, holder = connect(), connect(autocommit=False)
        stop_clock(worker)
        limit(worker, "a", None, 1000)
        create(worker, "a", 3)
        (first,) = dequeue(holder)
        move_clock(worker, 5000)
        assert dequeue(worker) == []
        if end == "rollback":
            holder.rollback()
            assert dequeue(worker) == [first]
            move_clock(worker, 1000)
        else:
            holder.commit()
        assert len(serve(worker, within_ms=999)) == 1

    def test_what_is_ready_and_not_taken_yet_has_a_place_too(self, connect: Connect) -> None:
        worker = connect()
        stop_clock(worker)
        for channel in ("a", "b"):
            limit(worker, channel, 1)
            create(worker, channel, 2)
        (first,) = dequeue(worker)
        # It did what was due for both channels.
        other = {"a": "b", "b": "a"}[first.channel]
        assert (out(worker, first.channel), out(worker, other)) == (1, 1)
        create(worker, other)
        (second,) = dequeue(worker)
        assert (second.channel, out(worker, other)) == (other, 1)
        assert dequeue(worker) == []

    @pytest.mark.parametrize("max_messages", [1, 10])
    def test_an_interval_is_kept_though_more_comes_in(self, connect: Connect, max_messages: int) -> None:
        worker = connect()
        stop_clock(worker)
        limit(worker, "a", None, 1000)
        for _ in range(3):
            create(worker, "a", 2)
            assert len(dequeue(worker, max_messages)) == 1
            for _ in range(2):
                create(worker, "a")
                assert answer(worker, max_messages) == ([], 1000)
            move_clock(worker, 1000)

    def test_a_redelivery_keeps_the_interval(self, connect: Connect) -> None:
        worker = connect()
        stop_clock(worker)
        limit(worker, "a", None, 1000)
        create(worker, "a", 3, lock_ms=10)
        for _ in range(6):
            assert len(dequeue(worker)) == 1
            move_clock(worker, 999)
            assert dequeue(worker) == []
            move_clock(worker, 1)

    @pytest.mark.parametrize("back_ms", [1000, 3_000_000])
    def test_a_clock_that_is_set_back_makes_intervals_and_locks_longer_never_shorter(
        self, connect: Connect, back_ms: int
    ) -> None:
        worker = connect()
        stop_clock(worker)
        limit(worker, "a", None, 1000)
        create(worker, "a", 2)
        create(worker, "b", lock_ms=1000)
        assert {message.channel for message in serve(worker, within_ms=0)} == {"a", "b"}
        move_clock(worker, -back_ms)
        assert serve(worker, within_ms=back_ms) == []
        move_clock(worker, back_ms - 1)
        # `serve` has not moved the clock: nothing becomes available that soon.
        assert dequeue(worker, 2) == []
        move_clock(worker, 1001)
        assert {message.channel for message in serve(worker, within_ms=0)} == {"a", "b"}


class TestPromise4RotationIsFair:
    @pytest.mark.parametrize("limited", [False, True])
    def test_sessions_that_leave_their_dequeues_open_take_turns(
        self, connect: Connect, limited: bool
    ) -> None:
        admin = connect()
        backlogs = {"a": 40, "b": 7, "c": 7, "d": 30, None: 7}
        for channel, count in backlogs.items():
            if limited and channel:
                limit(admin, channel, 50)
            create(admin, channel, count)
        if limited:
            # So that all channels are advanced: a turn begins when something is ready.
            (first,) = dequeue(admin)
            scalar(admin, "SELECT lonny.message_defer(%s, 1, -1)", [first.id])
        sessions = [connect(autocommit=False, options=IMPATIENT) for _ in range(5)]
        turns = [turn(dequeue(session)) for _ in range(7) for session in sessions]
        for start in range(0, 35, 5):
            assert len(set(turns[start : start + 5])) == 5, turns

    def test_a_dequeue_that_is_rolled_back_has_spent_its_channels_turn(self, connect: Connect) -> None:
        worker, other = connect(), connect(autocommit=False)
        for channel in "abc":
            create(worker, channel, 10)
        spent = [turn(dequeue(worker)) for _ in range(3)]
        assert sorted(spent) == list("abc")
        for i in range(6):
            assert turn(dequeue(other)) == spent[i % 3]
            other.rollback()
        assert turn(dequeue(worker)) == spent[0]

    def test_a_batch_takes_the_turns_that_single_calls_would(self, connect: Connect) -> None:
        worker, other = connect(), connect(autocommit=False)
        backlogs = {"a": 30, "b": 3, "c": 30, "d": 1, "e": 11}
        for channel, count in backlogs.items():
            create(worker, channel, count)
        position = scalar(worker, "SELECT last_value FROM lonny.rotation")
        single = [message.id for _ in range(70) for message in dequeue(other)]
        other.rollback()
        worker.execute("SELECT setval('lonny.rotation', %s)", [position])
        batches = [message.id for size in (7, 1, 10, 2, 30, 20) for message in dequeue(worker, size)]
        assert batches == single

    def test_wakes_are_tended_in_rotation_too(self, connect: Connect) -> None:
        worker = connect()
        holder = connect(autocommit=False)
        names = [f"tenant-{i}" for i in range(100)]
        limit(worker, [*names, "busy"], 1000)
        dequeue(worker, 1000)
        for name in names:
            create(worker, name)
        seen: set[str] = set()
        for _ in range(101):
            create(worker, "busy", 2)
            seen |= {message.channel for message in dequeue(holder)}
            holder.commit()
        assert seen == {*names, "busy"}

    def test_a_channel_is_advanced_though_a_hundred_others_are_woken_before_every_dequeue(
        self, connect: Connect
    ) -> None:
        worker = connect()
        names = [f"tenant-{i}" for i in range(100)]
        limit(worker, [*names, "quiet"], 1000)
        assert [dequeue(worker) for _ in range(4)] == [[]] * 4
        (quiet,) = create(worker, "quiet")
        # The last one in the rotation.
        scalar(worker, "SELECT setval('lonny.wake_rotation', lonny._lane('quiet'))")
        for _ in range(4):
            worker.execute(
                "SELECT lonny.message_create_many(%s, array_fill('x'::bytea, '{100}'), '{3600000}')", [names]
            )
            assert len(dequeue(worker)) == 1
        status = "SELECT status::text FROM lonny.message_status(ARRAY[%s::bigint])"
        assert scalar(worker, status, [quiet]) != "WAITING"


def turn(taken: list[Taken]) -> str:
    """Whose turn it was; all messages without a channel share one."""
    ((_, channel, _),) = taken
    return channel if len(channel) == 1 else "none"


class TestPromise5OrderInAChannel:
    @pytest.mark.parametrize("max_concurrency", [None, 1, 2])
    @pytest.mark.parametrize("max_messages", [1, 4])
    def test_what_several_sessions_commit_late_goes_to_its_place(
        self, connect: Connect, max_concurrency: int | None, max_messages: int
    ) -> None:
        worker = connect()
        stop_clock(worker)
        if max_concurrency:
            limit(worker, "a", max_concurrency)
        producers = [connect(autocommit=False) for _ in range(3)]
        for _ in range(3):
            for producer in producers:
                move_clock(worker, 1)
                create(producer, "a")
        producers[1].commit()
        assert [message.id for message in dequeue(worker)] == [2]
        delete(worker, Taken(2, "a", 1))
        producers[2].commit()
        producers[0].commit()
        assert [message.id for message in work(worker, max_messages)] == [1, 3, 4, 5, 6, 7, 8, 9]

    @pytest.mark.parametrize("limited", [False, True])
    def test_what_is_given_back_while_others_are_taken_goes_to_its_place(
        self, connect: Connect, limited: bool
    ) -> None:
        worker, holder = connect(), connect(autocommit=False)
        stop_clock(worker)
        if limited:
            limit(worker, "a", 2)
        ids: list[int] = []
        for _ in range(6):
            ids += create(worker, "a")
            move_clock(worker, 1)
        dequeue(worker)
        delete(worker, Taken(ids.pop(0), "a", 1))
        assert [message.id for message in dequeue(holder)] == ids[:1]
        assert [message.id for message in dequeue(worker)] == ids[1:2]
        holder.rollback()
        locked = "SELECT id, channel, num_attempts FROM lonny.message WHERE status = 'LOCKED'"
        taken = [Taken(*row) for row in worker.execute(locked).fetchall()]
        delete(worker, *taken)
        left = [id_ for id_ in ids if id_ not in {message.id for message in taken}]
        assert left[0] == ids[0]
        assert [message.id for message in work(worker)] == left


class TestPromise6EmptyMeansEmpty:
    @pytest.mark.parametrize("last", ["ready", "delay", "lock", "wake", "interval"])
    @pytest.mark.parametrize(
        ("inside", "count", "max_messages"),
        [(False, 300, 1), (True, 300, 1), (True, 3, 10)],
        ids=["alone", "in a transaction", "a batch in a transaction"],
    )
    def test_the_last_one_is_found_behind_all_that_others_hold_or_policies_keep(
        self, connect: Connect, last: str, count: int, max_messages: int, inside: bool
    ) -> None:
        admin, worker = connect(), connect(autocommit=not inside, options=IMPATIENT)
        holder, deleter = (connect(autocommit=False, options=IMPATIENT) for _ in range(2))
        stop_clock(admin)
        # Older than the last one: expired locks of a paused channel, half of them being ended by an open
        # transaction; due delays of it; ready ones that another session has taken; wakes of paused channels.
        create(admin, "paused", count, lock_ms=1)
        expired = dequeue(admin, count)
        limit(admin, "paused", 0)
        paused = [f"paused-{i}" for i in range(count)]
        limit(admin, paused, 0)
        create(admin, "paused", count, delay_ms=1)
        create(admin, "held", count)
        move_clock(admin, 1)
        delete(deleter, *expired[: count // 2])
        assert {message.channel for message in dequeue(holder, count)} == {"held"}
        for name in paused:
            create(admin, name)
        if last == "interval":
            limit(admin, "last", None, 5)
            create(admin, "last", 2)
            while [message.channel for message in dequeue(admin)] != ["last"]:
                pass
            move_clock(admin, 5)
        elif last == "wake":
            limit(admin, "last", 1)
            create(admin, "last")
        else:
            create(
                admin, "last", delay_ms=1 if last == "delay" else 0, lock_ms=1 if last == "lock" else LOCK_MS
            )
            if last == "lock":
                assert [message.channel for message in dequeue(admin)] == ["last"]
            move_clock(admin, 1 if last != "ready" else 0)
        taken, retry_ms = answer(worker, max_messages)
        assert [message.channel for message in taken] == ["last"]
        assert retry_ms is None

    @pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
    @pytest.mark.parametrize(
        ("what", "microseconds"),
        [("delay", 0), ("delay", 1), ("lock", 1), ("lock", 999), ("interval", 0), ("interval", 999)],
    )
    def test_retry_ms_is_not_early_and_not_more_than_a_millisecond_late(
        self, connect: Connect, what: str, microseconds: int, inside: bool
    ) -> None:
        admin, worker = connect(), connect(autocommit=not inside)
        stop_clock(admin)
        if what == "interval":
            limit(admin, "a", None, 1000)
        create(
            admin,
            "a",
            2 if what == "interval" else 1,
            lock_ms=1000 if what == "lock" else LOCK_MS,
            delay_ms=1000 if what == "delay" else 0,
        )
        if what != "delay":
            assert len(dequeue(admin)) == 1
        move_clock(admin, 200 + microseconds / 1000)
        taken, retry_ms = answer(worker)
        worker.commit()
        assert taken == []
        assert retry_ms == 800
        move_clock(admin, retry_ms - microseconds / 1000 - 0.001)
        assert answer(worker) == ([], 1)
        worker.commit()
        move_clock(admin, 0.001)
        assert len(dequeue(worker)) == 1

    def test_retry_ms_is_the_end_of_a_longer_interval_that_a_late_producers_message_waits_for(
        self, connect: Connect
    ) -> None:
        # Where the dequeue is alone it is less: it puts the message back, and has it looked at once more.
        admin, (producer, worker) = connect(), (connect(autocommit=False) for _ in range(2))
        stop_clock(admin)
        create(producer, "a")
        limit(admin, "a", None, 1000)
        create(admin, "a")
        assert len(dequeue(admin)) == 1
        limit(admin, "a", None, 5000)
        move_clock(admin, 1500)
        producer.commit()
        assert answer(worker) == ([], 3500)

    @pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
    def test_retry_ms_is_null_if_nothing_is_known(self, connect: Connect, inside: bool) -> None:
        admin, worker = connect(), connect(autocommit=not inside)
        for name in ("a", "b", "c"):
            limit(admin, name, 0)
            create(admin, name)
        assert answer(worker) == ([], None)
        worker.commit()
        assert answer(worker) == ([], None)


class TestPromise7Time:
    def test_all_sessions_have_one_clock_and_a_transactions_age_does_not_matter(
        self, connect: Connect
    ) -> None:
        admin = connect(options="-ctimezone=America/St_Johns")
        old = connect(autocommit=False, options="-ctimezone=Asia/Tokyo")
        stop_clock(admin)
        old.execute("SELECT 1")
        move_clock(admin, 60_000)
        (delayed,) = create(old, "a", delay_ms=1000)
        (first,) = create(old, "a", lock_ms=1000)
        old.execute("SELECT lonny.channel_policy_set('a', 2, 500)")
        old.commit()
        old.execute("SELECT 1")
        move_clock(admin, 60_000)
        assert dequeue(old, 2) == [(first, "a", 1)]
        old.commit()
        at = "SELECT locked_at = (SELECT c.at FROM public.clock c) FROM lonny.message WHERE status = 'LOCKED'"
        assert admin.execute(at).fetchall() == [(True,)]
        move_clock(admin, 499)
        assert dequeue(admin) == []
        move_clock(admin, 1)
        assert dequeue(admin) == [(delayed, "a", 1)]
        assert out(admin, "a") == 2
