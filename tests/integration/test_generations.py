"""Generations beside others: walks that take long or are cancelled, and transactions that hold rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg.errors import QueryCanceled

from tests.support.queue import (
    WALK_GATE,
    create,
    delete,
    dequeue,
    generation,
    limit,
    live,
    move_clock,
    scalar,
    stop_clock,
)
from tests.support.sessions import background

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection

_TIMERS_READ = "SELECT pg_stat_get_xact_tuples_returned('lonny.message_timer_idx'::regclass)"


def _begin(conn: Connection, holder: Connection, count: int = 600) -> None:
    """Hold an old snapshot, until the holder's transaction ends, and have so many dead rows beside it."""
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT")
    create(conn, None, count)
    messages = dequeue(conn, count)
    conn.execute(
        "SELECT lonny.message_delete_many(%s, %s)",
        [[m.id for m in messages], [m.num_attempts for m in messages]],
    )
    live(conn, 2)
    assert generation(conn) > 0


def test_a_generation_is_not_searched_before_its_first_walk_is_over(connect: Connect) -> None:
    """What is ready already is not in it: the newest message would overtake ten thousand."""
    conn, walker = connect(), connect(options="-ctest.waits=on")
    holder, gate = connect(autocommit=False), connect(autocommit=False)
    stop_clock(conn)
    conn.execute(WALK_GATE)
    _begin(conn, holder)
    oldest, second, *_ = create(conn, None, 10_002)
    move_clock(conn, 1000)
    assert [message.id for message in dequeue(conn)] == [oldest]
    assert generation(conn) < 0  # too many are ready; the next walk, half a second later, tries again
    move_clock(conn, 600)
    gate.execute("SELECT pg_advisory_xact_lock(7, 7)")
    with background(walker, "SELECT id FROM lonny.message_dequeue()") as step:
        assert step.blocked_by() == [gate.info.backend_pid]
        create(conn, None)
        assert [message.id for message in dequeue(conn)] == [second]
        gate.rollback()
    holder.rollback()


def _ready_read(conn: Connection) -> int:
    """How many entries of the index of what is ready all sessions have read that were asked this."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    return int(scalar(conn, "SELECT pg_stat_get_tuples_returned('lonny.message_ready_idx'::regclass)"))


def test_while_a_walk_takes_long_generations_are_searched_all_the_same(connect: Connect) -> None:
    """Else all who dequeue would step over all dead rows, and so hold up the walk, and each other."""
    conn, walker = connect(), connect(options="-ctest.waits=on")
    holder, gate = connect(autocommit=False), connect(autocommit=False)
    stop_clock(conn)
    conn.execute(WALK_GATE)
    _begin(conn, holder)
    ids = create(conn, None, 3)
    move_clock(conn, 600)
    gate.execute("SELECT pg_advisory_xact_lock(7, 7)")
    _ready_read(walker)
    before = _ready_read(conn)
    with background(walker, "SELECT id FROM lonny.message_dequeue()") as step:
        assert step.blocked_by() == [gate.info.backend_pid]
        move_clock(conn, 5000)
        assert [message.id for message in dequeue(conn)] == ids[:1]
        assert _ready_read(conn) - before < 100
        gate.rollback()
        assert step.result() == [(ids[1],)]
    # The walk read the 602 dead rows; its dequeue went on in the generation, although time has passed.
    assert 600 < _ready_read(walker) - before < 1000
    holder.rollback()


@pytest.mark.parametrize("held", [True, False], ids=["beside an old snapshot", "of the last moments"])
def test_few_dead_rows_in_each_of_many_lanes_begin_generations_only_if_they_stay(
    connect: Connect, *, held: bool
) -> None:
    """A search marks those that nobody can see any more, and the next one passes them by."""
    conn, holder = connect(), connect(autocommit=False)
    if held:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT")
    names = [f"tenant-{n}" for n in range(20)]
    for name in names:
        create(conn, name, 40)
    delete(conn, *dequeue(conn, 800))
    for name in names:
        create(conn, name)
    conn.execute("SELECT setval('lonny.generation_walk', 1)")
    assert len(dequeue(conn)) == 1
    assert (generation(conn) > 0) == held
    holder.rollback()


@pytest.mark.parametrize("ended", [2, 3], ids=["with one", "with two"])
def test_a_generation_has_had_no_message_before(connect: Connect, ended: int) -> None:
    """Also if generations ended while two were in use: their dead rows would be stepped over."""
    conn, holder = connect(), connect(autocommit=False)
    stop_clock(conn)
    _begin(conn, holder)
    conn.execute("SELECT setval('lonny.generation', %s)", [-ended])
    move_clock(conn, 1000)
    live(conn, 1)
    assert generation(conn) // 2 > (ended + 1) // 2
    holder.rollback()


@pytest.mark.parametrize("what", ["message", "wake"])
def test_what_an_open_transaction_holds_keeps_no_generation(connect: Connect, what: str) -> None:
    """Neither a message that it took nor the wake of a channel whose mutex it has."""
    conn, holder, worker = connect(), connect(autocommit=False), connect(autocommit=False)
    stop_clock(conn)
    limit(conn, "a", None if what == "message" else 5)
    _begin(conn, holder)
    held = create(conn, "a")
    assert [message.id for message in dequeue(worker)] == held
    if what == "wake":
        create(conn, "a")
    generations: set[int] = set()
    for _ in range(20):
        live(conn, 100)
        move_clock(conn, 500)
        generations.add(generation(conn))
    assert len(generations) > 6
    worker.rollback()
    move_clock(conn, 500)
    create(conn, "b", 2)
    assert held[0] in [message.id for _ in range(2) for message in dequeue(conn)]
    holder.rollback()


def test_timers_are_not_searched_from_one_on_that_an_open_transaction_holds(connect: Connect) -> None:
    conn, holder, worker = connect(), connect(autocommit=False), connect(autocommit=False)
    stop_clock(conn)
    _begin(conn, holder)
    held = create(conn, "a", lock_ms=10)
    (message,) = dequeue(conn)
    assert delete(worker, message) == ["MESSAGE_DELETED"]
    move_clock(conn, 10)
    for _ in range(300):
        live(conn, 1, lock_ms=5)
        move_clock(conn, 10)
    create(conn, None)
    conn.execute("SELECT pg_stat_force_next_flush()")
    before = scalar(conn, _TIMERS_READ)
    dequeue(conn)
    # Of the last half second or so: the search begins where the last walk found nothing left.
    assert scalar(conn, _TIMERS_READ) - before < 150
    worker.rollback()
    move_clock(conn, 500)
    create(conn, "b", 2)
    assert held[0] in [message.id for _ in range(2) for message in dequeue(conn)]
    holder.rollback()


@pytest.mark.parametrize("first", [True, False], ids=["the first", "a later one"])
def test_a_walk_that_was_cancelled_is_not_tried_again_at_once(connect: Connect, first: bool) -> None:
    """With a statement_timeout that is shorter than a walk no dequeue would ever end."""
    conn, walker = connect(), connect(options="-ctest.waits=on")
    holder, gate = connect(autocommit=False), connect(autocommit=False)
    stop_clock(conn)
    conn.execute(WALK_GATE)
    _begin(conn, holder)
    if first:
        conn.execute("SELECT setval('lonny.generation', -2)")
    ids = create(conn, "a", 3)
    move_clock(conn, 600)
    gate.execute("SELECT pg_advisory_xact_lock(7, 7)")
    walker.execute("SET statement_timeout = 100")
    with pytest.raises(QueryCanceled):
        dequeue(walker)
    assert [message.id for message in dequeue(walker)] == ids[:1]
    move_clock(conn, 499)
    assert [message.id for message in dequeue(walker)] == ids[1:2]
    move_clock(conn, 2)
    with pytest.raises(QueryCanceled):
        dequeue(walker)
    gate.rollback()
    move_clock(conn, 501)
    assert [message.id for message in dequeue(walker)] == ids[2:]
    assert generation(conn) > 0
    holder.rollback()
