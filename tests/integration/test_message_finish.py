"""delete, defer and cancel of one message by two sessions: the second is told what the first one did."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.support.queue import move_clock, stop_clock
from tests.support.sessions import background

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection

CREATE = "SELECT lonny.message_create('a', 'x', %s)"
DEQUEUE = "SELECT id FROM lonny.message_dequeue()"
DELETE = "SELECT lonny.message_delete(%s, 1)"
DELETE_MANY = "SELECT result FROM lonny.message_delete_many(ARRAY[%s::bigint], '{1}')"
DEFER = "SELECT lonny.message_defer(%s, 1)"
HEARTBEAT = "SELECT lonny.message_heartbeat(%s, 1)"
CANCEL = "SELECT lonny.message_cancel(%s)"


def create(conn: Connection, lock_ms: int = 60_000) -> int:
    row = conn.execute(CREATE, [lock_ms]).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("commits", [True, False], ids=["commit", "rollback"])
@pytest.mark.parametrize(
    ("first", "second", "answer", "alone"),
    [
        (DELETE, DELETE, "MESSAGE_NOT_FOUND", "MESSAGE_DELETED"),
        (DELETE, DEFER, "MESSAGE_NOT_FOUND", "MESSAGE_DEFERRED"),
        (DELETE, CANCEL, "MESSAGE_NOT_FOUND", "MESSAGE_STATE_INVALID"),
        (DEFER, DELETE, "MESSAGE_STATE_INVALID", "MESSAGE_DELETED"),
        (DEFER, DEFER, "MESSAGE_STATE_INVALID", "MESSAGE_DEFERRED"),
        (DEFER, CANCEL, "MESSAGE_CANCELLED", "MESSAGE_STATE_INVALID"),
    ],
    ids=["delete-delete", "delete-defer", "delete-cancel", "defer-delete", "defer-defer", "defer-cancel"],
)
def test_of_a_locked_message_the_second_is_told_what_the_first_did(
    connect: Connect, first: LiteralString, second: LiteralString, answer: str, alone: str, commits: bool
) -> None:
    one, two = connect(autocommit=False), connect()
    id_ = create(two)
    two.execute(DEQUEUE)
    one.execute(first, [id_])
    with background(two, second, [id_]) as step:
        assert step.blocked_by() in ([one.info.backend_pid], [])
        if step.done:
            # A cancel may answer at once: until the other commits the message is locked.
            assert step.result() == [(alone,)]
            assert second == CANCEL
            return
        if commits:
            one.commit()
        else:
            one.rollback()
        assert step.result() == [(answer if commits else alone,)]


@pytest.mark.parametrize("commits", [True, False], ids=["commit", "rollback"])
def test_a_message_is_cancelled_once(connect: Connect, commits: bool) -> None:
    one, two = connect(autocommit=False), connect()
    id_ = create(two)
    assert one.execute(CANCEL, [id_]).fetchone() == ("MESSAGE_CANCELLED",)
    with background(two, CANCEL, [id_]) as step:
        assert step.blocked_by() == [one.info.backend_pid]
        if commits:
            one.commit()
        else:
            one.rollback()
        assert step.result() == [("MESSAGE_NOT_FOUND" if commits else "MESSAGE_CANCELLED",)]


@pytest.mark.parametrize("commits", [True, False], ids=["commit", "rollback"])
def test_what_a_dequeue_has_taken_is_not_cancelled(connect: Connect, commits: bool) -> None:
    worker, other = connect(autocommit=False), connect()
    id_ = create(other)
    assert worker.execute(DEQUEUE).fetchone() == (id_,)
    with background(other, CANCEL, [id_]) as step:
        step.blocked_by()
        if commits:
            worker.commit()
        else:
            worker.rollback()
        assert step.result() == [("MESSAGE_STATE_INVALID" if commits else "MESSAGE_CANCELLED",)]


@pytest.mark.parametrize("finish", [DELETE, DEFER], ids=["delete", "defer"])
@pytest.mark.parametrize("commits", [True, False], ids=["commit", "rollback"])
def test_a_late_worker_does_not_finish_what_is_being_redelivered(
    connect: Connect, finish: LiteralString, commits: bool
) -> None:
    taker, late = connect(autocommit=False), connect()
    id_ = create(late, lock_ms=0)
    assert late.execute(DEQUEUE).fetchone() == (id_,)
    assert taker.execute(DEQUEUE).fetchone() == (id_,)
    with background(late, finish, [id_]) as step:
        step.blocked_by()
        if commits:
            taker.commit()
        else:
            taker.rollback()
        ((answer,),) = step.result()
    assert (answer == "MESSAGE_STATE_INVALID") is commits


@pytest.mark.parametrize("finish", [DELETE, DELETE_MANY, DEFER], ids=["delete", "delete_many", "defer"])
@pytest.mark.parametrize("noticed", ["READY", "WAITING"])
def test_a_late_worker_may_finish_what_a_dequeue_has_seen_expire_and_has_not_taken(
    connect: Connect, finish: LiteralString, noticed: str
) -> None:
    worker = connect()
    stop_clock(worker)
    id_ = create(worker, lock_ms=100)
    assert worker.execute(DEQUEUE).fetchone() == (id_,)
    # The dequeue that notices has another channel's message to take, for it is that one's turn.
    worker.execute("SELECT lonny.message_create('b', 'x', 60000)")
    if noticed == "WAITING":
        worker.execute("SELECT lonny.channel_policy_set('a', 0)")
    move_clock(worker, 100)
    assert worker.execute(DEQUEUE).fetchone() != (id_,)
    assert worker.execute("SELECT status FROM lonny.message WHERE id = %s", [id_]).fetchone() == (noticed,)
    assert worker.execute(HEARTBEAT, [id_]).fetchone() == ("MESSAGE_STATE_INVALID",)
    ((answer,),) = worker.execute(finish, [id_]).fetchall()
    assert answer in ("MESSAGE_DELETED", "MESSAGE_DEFERRED")


def test_a_dequeue_passes_by_what_is_being_cancelled(connect: Connect) -> None:
    canceller, worker = connect(autocommit=False), connect()
    first, second = create(worker), create(worker)
    canceller.execute(CANCEL, [first])
    with background(worker, DEQUEUE) as step:
        assert step.blocked_by() == []
        assert step.result() == [(second,)]
    canceller.rollback()
    assert worker.execute(DEQUEUE).fetchone() == (first,)
