"""message_heartbeat beside other transactions; the rest is in pgtap/message_heartbeat.sql."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.support.sessions import background

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection

HEARTBEAT = "SELECT lonny.message_heartbeat(%s, 1)"


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
