"""message_heartbeat beside other transactions, and when a lock is over; the rest is in pgtap/.

Only a dequeue that is alone in its transaction notices a lock's end for others; in a longer one, as pgTAP's,
it does so where it takes the message or its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.support.queue import Taken, answer, create, dequeue, limit, move_clock, scalar, stop_clock
from tests.support.sessions import IMPATIENT, background

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection

HEARTBEAT = "SELECT lonny.message_heartbeat(%s, 1)"
CANCEL = "SELECT lonny.message_cancel(%s)"
STATUS = "SELECT status FROM lonny.message_status(ARRAY[%s::bigint])"


def create_and_dequeue(conn: Connection, lock_ms: int = 60_000) -> int:
    conn.execute("SELECT lonny.message_create('a', 'x', %s)", [lock_ms])
    row = conn.execute("SELECT id FROM lonny.message_dequeue()").fetchone()
    assert row is not None
    return int(row[0])


def heartbeat(conn: Connection, id_: int) -> str:
    """The answer of a heartbeat, which must not wait for it."""
    with background(conn, HEARTBEAT, [id_]) as step:
        assert step.blocked_by() == [], "a heartbeat never waits"
        ((answer,),) = step.result()
    return str(answer)


@pytest.mark.parametrize(
    ("finish", "result", "then"),
    [
        ("SELECT lonny.message_delete(%s, 1)", "MESSAGE_DELETED", "MESSAGE_NOT_FOUND"),
        ("SELECT lonny.message_defer(%s, 1)", "MESSAGE_DEFERRED", "MESSAGE_STATE_INVALID"),
        (
            "SELECT (d).result FROM (SELECT lonny.message_delete_many(ARRAY[%s::bigint], '{1}') AS d) AS s",
            "MESSAGE_DELETED",
            "MESSAGE_NOT_FOUND",
        ),
    ],
    ids=["delete", "defer", "delete_many"],
)
def test_a_heartbeat_is_busy_while_another_transaction_is_finishing_the_message(
    connect: Connect, finish: LiteralString, result: str, then: str
) -> None:
    worker, beater = connect(), connect()
    id_ = create_and_dequeue(worker)
    with worker.transaction(force_rollback=True):
        assert worker.execute(finish, [id_]).fetchone() == (result,)
        assert heartbeat(beater, id_) == "MESSAGE_BUSY"
    assert heartbeat(beater, id_) == "MESSAGE_HEARTBEATED", "rolled back: the message is still the worker's"
    with worker.transaction():
        assert worker.execute(finish, [id_]).fetchone() == (result,)
        assert heartbeat(beater, id_) == "MESSAGE_BUSY"
    assert heartbeat(beater, id_) == then


def test_a_heartbeat_that_is_busy_changes_nothing(connect: Connect) -> None:
    worker, beater = connect(), connect()
    id_ = create_and_dequeue(worker)
    look = "SELECT unlock_at FROM lonny.message_status(ARRAY[%s::bigint])"
    before = worker.execute(look, [id_]).fetchall()
    with worker.transaction(force_rollback=True):
        worker.execute("SELECT lonny.message_delete(%s, 1)", [id_])
        assert heartbeat(beater, id_) == "MESSAGE_BUSY"
    assert worker.execute(look, [id_]).fetchall() == before


def test_within_one_transaction_a_heartbeat_is_not_busy(connect: Connect) -> None:
    worker = connect()
    id_ = create_and_dequeue(worker)
    with worker.transaction():
        for _ in range(3):
            assert heartbeat(worker, id_) == "MESSAGE_HEARTBEATED"
        assert worker.execute("SELECT lonny.message_delete(%s, 1)", [id_]).fetchone() == ("MESSAGE_DELETED",)
        assert heartbeat(worker, id_) == "MESSAGE_NOT_FOUND"


def test_two_heartbeats_of_one_message_never_wait_for_each_other(connect: Connect) -> None:
    worker, beater = connect(), connect()
    id_ = create_and_dequeue(worker)
    with worker.transaction():
        assert heartbeat(worker, id_) == "MESSAGE_HEARTBEATED"
        assert heartbeat(beater, id_) == "MESSAGE_BUSY"
    assert heartbeat(beater, id_) == "MESSAGE_HEARTBEATED"


def test_a_heartbeat_with_another_number_is_refused_while_the_message_is_finished(connect: Connect) -> None:
    worker, beater = connect(), connect()
    id_ = create_and_dequeue(worker)
    with worker.transaction():
        worker.execute("SELECT lonny.message_delete(%s, 1)", [id_])
        with background(beater, "SELECT lonny.message_heartbeat(%s, 2)", [id_]) as step:
            assert step.blocked_by() == []
            assert step.result() == [("MESSAGE_STATE_INVALID",)]


def test_a_heartbeat_never_waits_for_a_redelivery_and_is_refused_after_it(connect: Connect) -> None:
    worker, taker = connect(), connect()
    id_ = create_and_dequeue(worker, lock_ms=0)
    with taker.transaction():
        assert taker.execute("SELECT id, num_attempts FROM lonny.message_dequeue()").fetchone() == (id_, 2)
        assert heartbeat(worker, id_) == "MESSAGE_BUSY"
    assert heartbeat(worker, id_) == "MESSAGE_STATE_INVALID"


def lock_is_over(conn: Connection, max_concurrency: int | None = None) -> tuple[int, int]:
    """A message whose lock is over, and one of its channel that waits for nothing else."""
    stop_clock(conn)
    if max_concurrency:
        limit(conn, "a", max_concurrency)
    (id_,) = create(conn, "a", lock_ms=100)
    assert dequeue(conn) == [(id_, "a", 1)]
    (next_,) = create(conn, "a")
    move_clock(conn, 100)
    return id_, next_


def notice(conn: Connection, id_: int) -> None:
    """Let a dequeue that is alone notice that the message's lock is over; its channel is paused meanwhile."""
    limit(conn, "a", 0)
    assert dequeue(conn) == []
    assert scalar(conn, STATUS, [id_]) == "WAITING"


def test_a_heartbeat_is_good_until_a_dequeue_has_noticed_that_the_lock_is_over(connect: Connect) -> None:
    worker, other = connect(), connect()
    id_, next_ = lock_is_over(other)
    assert heartbeat(worker, id_) == "MESSAGE_HEARTBEATED"
    assert dequeue(other) == [(next_, "a", 1)]
    assert answer(other) == ([], 100)
    move_clock(other, 100)
    # A dequeue in a longer transaction notices what it takes, and no more.
    limit(other, "a", 0)
    with other.transaction():
        assert dequeue(other) == []
    assert scalar(other, STATUS, [id_]) == "LOCKED"
    assert heartbeat(worker, id_) == "MESSAGE_HEARTBEATED"
    move_clock(other, 100)
    notice(other, id_)
    assert heartbeat(worker, id_) == "MESSAGE_STATE_INVALID"
    other.execute("SELECT lonny.channel_policy_clear('a')")
    assert dequeue(other) == [(id_, "a", 2)]
    assert heartbeat(worker, id_) == "MESSAGE_STATE_INVALID"


def test_a_heartbeat_that_is_refused_because_the_lock_is_over_changes_nothing(connect: Connect) -> None:
    worker, other = connect(), connect()
    id_, _ = lock_is_over(other)
    notice(other, id_)
    look = "SELECT m::text, m.xmin::text, m.xmax::text, m.ctid::text FROM lonny.message m ORDER BY m.id"
    before = other.execute(look).fetchall()
    assert heartbeat(worker, id_) == "MESSAGE_STATE_INVALID"
    assert other.execute(look).fetchall() == before


@pytest.mark.parametrize("noticed", [False, True], ids=["not noticed", "noticed"])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
def test_what_waits_behind_a_message_that_is_cancelled_when_its_lock_is_over_is_released(
    connect: Connect, noticed: bool, inside: bool
) -> None:
    conn, worker = connect(), connect(autocommit=not inside)
    id_, next_ = lock_is_over(conn, 1)
    if noticed:
        notice(conn, id_)
        limit(conn, "a", 1)
    assert scalar(conn, CANCEL, [id_]) == "MESSAGE_CANCELLED"
    assert heartbeat(conn, id_) == "MESSAGE_NOT_FOUND"
    assert scalar(conn, CANCEL, [id_]) == "MESSAGE_NOT_FOUND"
    assert dequeue(worker) == [(next_, "a", 1)]
    worker.commit()
    assert dequeue(worker) == []
    worker.commit()
    assert scalar(conn, CANCEL, [next_]) == "MESSAGE_STATE_INVALID", "its lock is not over"


@pytest.mark.parametrize("rolled_back", [False, True], ids=["commit", "rollback"])
def test_beside_an_open_cancel_of_a_message_whose_lock_is_over_it_is_not_redelivered(
    connect: Connect, rolled_back: bool
) -> None:
    worker, canceller = connect(options=IMPATIENT), connect(autocommit=False)
    id_, next_ = lock_is_over(worker, 1)
    assert scalar(canceller, CANCEL, [id_]) == "MESSAGE_CANCELLED"
    assert heartbeat(worker, id_) == "MESSAGE_BUSY"
    assert dequeue(worker) == []
    canceller.rollback() if rolled_back else canceller.commit()
    move_clock(worker, 250)
    expected = [Taken(id_, "a", 2)] if rolled_back else [Taken(next_, "a", 1)]
    assert dequeue(worker) == expected
    assert dequeue(worker) == []
