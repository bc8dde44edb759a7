"""message_dequeue with commits and between sessions; the rest is in pgtap/message_dequeue.sql."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.support.queue import move_clock, stop_clock
from tests.support.sessions import background, wait_until

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection


def create(conn: Connection, channel: str | None = "a", lock_ms: int = 60_000) -> int:
    row = conn.execute("SELECT lonny.message_create(%s, 'x', %s)", [channel, lock_ms]).fetchone()
    assert row is not None
    return int(row[0])


def dequeue(conn: Connection) -> tuple[Any, ...]:
    """The id, the number of attempts and retry_ms of one dequeue."""
    row = conn.execute("SELECT id, num_attempts, retry_ms FROM lonny.message_dequeue()").fetchone()
    assert row is not None
    return row


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_dequeue_refuses_other_isolation_levels_than_read_committed(
    connect: Connect, level: IsolationLevel
) -> None:
    conn = connect()
    id_ = create(conn)
    conn.set_isolation_level(level)
    with pytest.raises(psycopg.Error) as raised, conn.transaction():
        conn.execute("SELECT lonny.message_dequeue()")
    assert raised.value.sqlstate == "25001"
    assert "READ COMMITTED" in f"{raised.value.diag.message_primary} {raised.value.diag.message_hint}"
    assert raised.value.diag.message_hint
    conn.set_isolation_level(IsolationLevel.READ_COMMITTED)
    assert dequeue(conn) == (id_, 1, None), "the refused dequeue took nothing"


def test_dequeue_accepts_read_uncommitted_which_is_another_name_for_it(connect: Connect) -> None:
    conn = connect()
    id_ = create(conn)
    conn.set_isolation_level(IsolationLevel.READ_UNCOMMITTED)
    with conn.transaction():
        assert dequeue(conn) == (id_, 1, None)


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_everything_else_works_in_every_isolation_level(connect: Connect, level: IsolationLevel) -> None:
    conn = connect()
    first, second = create(conn), create(conn)
    assert dequeue(conn)[0] == first
    conn.set_isolation_level(level)
    with conn.transaction():
        conn.execute("SELECT lonny.channel_policy_set('a', 1)")
        steps: list[tuple[LiteralString, int, str]] = [
            ("SELECT lonny.message_heartbeat(%s, 1)", first, "MESSAGE_HEARTBEATED"),
            ("SELECT lonny.message_defer(%s, 1)", first, "MESSAGE_DEFERRED"),
            ("SELECT lonny.message_cancel(%s)", second, "MESSAGE_CANCELLED"),
            ("SELECT lonny.message_delete(%s, 1)", second, "MESSAGE_NOT_FOUND"),
        ]
        for query, id_, result in steps:
            assert conn.execute(query, [id_]).fetchone() == (result,)
    conn.set_isolation_level(IsolationLevel.READ_COMMITTED)
    assert dequeue(conn)[:2] == (first, 2)


def test_the_lock_is_in_the_row_not_in_the_transaction(connect: Connect) -> None:
    worker, other = connect(), connect()
    id_ = create(worker)
    assert dequeue(worker)[0] == id_
    worker.close()
    _, _, retry_ms = dequeue(other)
    assert 50_000 < retry_ms <= 60_000


def test_a_rolled_back_dequeue_has_not_happened(connect: Connect) -> None:
    conn = connect()
    id_ = create(conn)
    with conn.transaction(force_rollback=True):
        assert dequeue(conn) == (id_, 1, None)
    assert dequeue(conn) == (id_, 1, None)


def test_a_lock_expires_by_the_real_clock(connect: Connect) -> None:
    conn = connect()
    id_ = create(conn, lock_ms=20)
    assert dequeue(conn)[0] == id_
    wait_until(lambda: dequeue(conn)[:2] == (id_, 2), "the message comes back")


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("max_messages", [1, 3])
def test_what_a_dequeue_returns_and_leaves_in_the_row_is_the_same_in_every_way(
    connect: Connect, max_messages: int, inside: bool
) -> None:
    admin, worker = connect(), connect(autocommit=not inside)
    stop_clock(admin)
    expired, deferred = create(admin, lock_ms=100), create(admin)
    admin.execute("SELECT FROM lonny.message_dequeue(2)")
    admin.execute("SELECT lonny.message_defer(%s, 1, 50, 's')", [deferred])
    move_clock(admin, 100)
    new = create(admin)
    query: LiteralString = (
        "SELECT id, content, state, num_attempts, is_unlocked, unlock_at - at, retry_ms FROM"
    )
    one: LiteralString = query + " lonny.message_dequeue(1, 500), public.clock"
    many: LiteralString = query + " lonny.message_dequeue(3, 500), public.clock"
    rows = [
        row
        for _ in range(3 // max_messages)
        for row in worker.execute(one if max_messages == 1 else many, prepare=False).fetchall()
    ]
    worker.commit()
    lock = timedelta(milliseconds=500)
    assert rows == [
        (expired, b"x", None, 2, True, lock, None),
        (deferred, b"x", b"s", 2, False, lock, None),
        (new, b"x", None, 1, False, lock, None),
    ]
    locked = "SELECT DISTINCT locked_at = at, unlock_at - at FROM lonny.message_status(%s), public.clock"
    ids = [expired, deferred, new]
    assert admin.execute(locked, [ids]).fetchall() == [(True, lock)]
    assert dequeue(worker) == (None, None, 500)
    worker.commit()
    # From now on the message's own.
    move_clock(admin, 100)
    admin.execute("SELECT lonny.message_heartbeat(id, num_attempts) FROM lonny.message")
    assert admin.execute(locked, [ids]).fetchall() == [(False, lock)]


@pytest.mark.parametrize("limit", [None, 1])
def test_retry_ms_is_at_most_50_while_another_transaction_has_the_message(
    connect: Connect, limit: int | None
) -> None:
    taker, other = connect(), connect()
    if limit:
        other.execute("SELECT lonny.channel_policy_set('a', %s)", [limit])
    id_ = create(other)
    with taker.transaction(force_rollback=True):
        assert dequeue(taker)[0] == id_
        with background(other, "SELECT id, retry_ms FROM lonny.message_dequeue()") as step:
            assert step.blocked_by() == [], "a dequeue waits for nobody"
            ((none, retry_ms),) = step.result()
        assert none is None
        assert 1 <= retry_ms <= 50
    assert dequeue(other)[0] == id_


def test_retry_ms_is_at_most_50_while_another_transaction_handles_an_expired_lock(connect: Connect) -> None:
    taker, other = connect(), connect()
    id_ = create(other, lock_ms=0)
    assert dequeue(other)[0] == id_
    with taker.transaction():
        assert dequeue(taker)[:2] == (id_, 2)
        none, _, retry_ms = dequeue(other)
        assert none is None
        assert 1 <= retry_ms <= 50


@pytest.mark.parametrize(
    ("params", "prepare"), [(None, False), ([1], False), ([1], True)], ids=["simple", "bound", "prepared"]
)
def test_a_dequeue_finds_what_is_due_however_the_driver_sends_it(
    connect: Connect, params: list[int] | None, prepare: bool
) -> None:
    # A driver that binds parameters sends several commands, each with a time of its own, for one transaction.
    conn = connect()
    stop_clock(conn)
    conn.execute("SELECT lonny.channel_policy_set('paused', 0)")
    many = "SELECT count(*) FROM lonny.message_create_many(%s::text[], %s::bytea[], '{60000}', '{1}')"
    contents = [b"%02d" % i for i in range(20)]
    conn.execute(many, [["paused"] * 300, [b"x"] * 300])
    conn.execute(many, [["open"] * 20, contents])
    move_clock(conn, 2000)
    query: LiteralString = "SELECT content, retry_ms FROM lonny.message_dequeue(1)"
    if params:
        query = "SELECT content, retry_ms FROM lonny.message_dequeue(%s)"
    rows = [conn.execute(query, params, prepare=prepare).fetchall() for _ in range(21)]
    assert rows == [*([(content, None)] for content in contents), [(None, 60_000)]]


def test_two_open_dequeues_take_two_messages(connect: Connect) -> None:
    one, two = connect(autocommit=False), connect(autocommit=False)
    first, second = create(connect()), create(connect())
    assert dequeue(one)[0] == first
    assert dequeue(two)[0] == second
    one.commit()
    two.commit()
    assert dequeue(one)[0] is None


def test_an_uncommitted_create_is_not_delivered(connect: Connect) -> None:
    producer, worker = connect(), connect()
    with producer.transaction():
        id_ = create(producer)
        assert dequeue(worker) == (None, None, None)
    assert dequeue(worker)[0] == id_


def test_a_policy_binds_every_dequeue_that_begins_after_it_is_committed(connect: Connect) -> None:
    admin, worker = connect(), connect()
    first = create(worker)
    create(worker)
    with admin.transaction():
        admin.execute("SELECT lonny.channel_policy_set('a', 1)")
        assert dequeue(worker)[0] == first, "not before"
    assert dequeue(worker)[0] is None


def test_a_rolled_back_policy_binds_nobody(connect: Connect) -> None:
    admin, worker = connect(), connect()
    id_ = create(worker)
    with admin.transaction(force_rollback=True):
        admin.execute("SELECT lonny.channel_policy_set('a', 0)")
    assert dequeue(worker)[0] == id_
