"""Promise 5: what becomes visible late goes to its place in the channel at the latest one second later.

However a dequeue is sent: alone in its transaction it does what is due for all, in a longer one only what its
own turn needs, and the order is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from tests.support.queue import move_clock, stop_clock

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection

QUERY = "SELECT content FROM lonny.message_dequeue({}, {})"
WAYS = ["simple", "bound", "prepared", "simple in a transaction", "bound in a transaction"]


def create(conn: Connection, channel: str | None, name: str, delay_ms: int = 0) -> None:
    conn.execute("SELECT lonny.message_create(%s, %s::bytea, 3600000, %s)", [channel, name, delay_ms])


def dequeue(conn: Connection, way: str, max_messages: int = 1, lock_ms: int | None = None) -> list[str]:
    """What one dequeue takes; in a transaction: after BEGIN, and committed."""
    if way.endswith(" in a transaction"):
        with conn.transaction():
            return dequeue(conn, way.removesuffix(" in a transaction"), max_messages, lock_ms)
    if way == "simple":
        cursor = conn.execute(sql.SQL(QUERY).format(max_messages, lock_ms), prepare=False)
    else:
        placeholders = sql.SQL(QUERY).format(sql.Placeholder(), sql.Placeholder())
        cursor = conn.execute(placeholders, [max_messages, lock_ms], prepare=way == "prepared")
    return [content.decode() for (content,) in cursor.fetchall() if content is not None]


def taken(conn: Connection, way: str, calls: int, max_messages: int = 1) -> list[str]:
    return [name for _ in range(calls) for name in dequeue(conn, way, max_messages)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("max_messages", [1, 3])
@pytest.mark.parametrize(
    ("channel", "limit"), [("a", None), ("a", 100), (None, None)], ids=["channel", "limited", "none"]
)
def test_what_a_long_transaction_created_goes_to_its_place(
    connect: Connect, channel: str | None, limit: int | None, max_messages: int, way: str
) -> None:
    worker, producer, late = connect(), connect(), connect(autocommit=False)
    stop_clock(worker)
    if limit:
        worker.execute("SELECT lonny.channel_policy_set('a', %s)", [limit])
    create(late, channel, "late")
    for i in range(12):
        move_clock(worker, 1)
        create(producer, channel, f"{i:02}")
    before = taken(worker, way, 3 // max_messages, max_messages)
    assert before == ["00", "01", "02"]
    late.commit()
    move_clock(worker, 1000)
    after = taken(worker, way, 10, max_messages)
    assert after == ["late", *(f"{i:02}" for i in range(3, 12))]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("limit", [None, 4])
def test_what_a_rolled_back_dequeue_gives_back_goes_to_its_place(
    connect: Connect, limit: int | None, way: str
) -> None:
    worker, other = connect(), connect(autocommit=False)
    stop_clock(worker)
    for i in range(6):
        create(worker, "a", f"{i:02}")
    if limit:
        worker.execute("SELECT lonny.channel_policy_set('a', %s)", [limit])
        # So that some are ready: else the channel stands still until the other dequeue is over.
        assert dequeue(worker, "simple") == ["00"]
        worker.execute("SELECT lonny.message_defer(id, 1, -1) FROM lonny.message WHERE status = 'LOCKED'")
    other.execute("SET LOCAL search_path = pg_catalog")
    assert dequeue(other, way.removesuffix(" in a transaction"), 2) == ["00", "01"]
    assert dequeue(worker, way) == ["02"]
    other.rollback()
    move_clock(worker, 1000)
    if limit:
        worker.execute("SELECT lonny.channel_policy_set('a', 6)")
    assert taken(worker, way, 5) == ["00", "01", "03", "04", "05"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("limit", [None, 3])
def test_a_redelivery_goes_to_its_place(connect: Connect, limit: int | None, way: str) -> None:
    worker = connect()
    stop_clock(worker)
    for channel in "abcdefgh":
        if limit:
            worker.execute("SELECT lonny.channel_policy_set(%s, %s)", [channel, limit])
        for i in range(6):
            move_clock(worker, 1)
            create(worker, channel, f"{channel}{i}")
        assert dequeue(worker, way, lock_ms=10) == [f"{channel}0"]
        assert dequeue(worker, way) == [f"{channel}1"]
        move_clock(worker, 1010)
        assert taken(worker, way, 2) == [f"{channel}0", f"{channel}2"]
        worker.execute("SELECT lonny.channel_policy_set(%s, 0)", [channel])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("limit", [None, 1, 3])
def test_a_delay_that_ends_goes_to_its_place(connect: Connect, limit: int | None, way: str) -> None:
    worker = connect()
    stop_clock(worker)
    if limit:
        worker.execute("SELECT lonny.channel_policy_set('a', %s)", [limit])
    create(worker, "a", "delayed", 10)
    move_clock(worker, 5)
    create(worker, "a", "first")
    move_clock(worker, 10)
    create(worker, "a", "last")
    move_clock(worker, 1000)
    done: list[str] = []
    for _ in range(3):
        done += dequeue(worker, way)
        if limit == 1:
            worker.execute("SELECT lonny.message_delete(id, 1) FROM lonny.message WHERE status = 'LOCKED'")
    assert done == ["first", "delayed", "last"]
