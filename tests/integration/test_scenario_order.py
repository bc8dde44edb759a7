"""Promise 5: what becomes visible late goes to its place in the channel at the latest one second later."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.support.queue import move_clock, stop_clock

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection


def create(conn: Connection, channel: str | None, name: str, delay_ms: int = 0) -> None:
    conn.execute("SELECT lonny.message_create(%s, %s::bytea, 3600000, %s)", [channel, name, delay_ms])


def dequeue(conn: Connection, max_messages: int = 1) -> list[str]:
    rows = conn.execute("SELECT id, content FROM lonny.message_dequeue(%s)", [max_messages]).fetchall()
    return [content.decode() for id_, content in rows if id_ is not None]


def taken(conn: Connection, calls: int, max_messages: int) -> list[str]:
    return [name for _ in range(calls) for name in dequeue(conn, max_messages)]


@pytest.mark.parametrize("max_messages", [1, 3])
@pytest.mark.parametrize(
    ("channel", "limit"), [("a", None), ("a", 100), (None, None)], ids=["channel", "limited", "none"]
)
def test_what_a_long_transaction_created_goes_to_its_place(
    connect: Connect, channel: str | None, limit: int | None, max_messages: int
) -> None:
    worker, producer, late = connect(), connect(), connect(autocommit=False)
    stop_clock(worker)
    if limit:
        worker.execute("SELECT lonny.channel_policy_set('a', %s)", [limit])
    create(late, channel, "late")
    for i in range(12):
        move_clock(worker, 1)
        create(producer, channel, f"{i:02}")
    before = taken(worker, 3 // max_messages, max_messages)
    assert before == ["00", "01", "02"]
    late.commit()
    move_clock(worker, 1000)
    after = taken(worker, 10, max_messages)
    assert after == ["late", *(f"{i:02}" for i in range(3, 12))]


def test_what_a_rolled_back_dequeue_gives_back_goes_to_its_place(connect: Connect) -> None:
    worker, other = connect(), connect(autocommit=False)
    stop_clock(worker)
    for i in range(6):
        create(worker, "a", f"{i:02}")
    other.execute("SET LOCAL search_path = pg_catalog")
    assert dequeue(other, 2) == ["00", "01"]
    assert dequeue(worker) == ["02"]
    other.rollback()
    move_clock(worker, 1000)
    assert taken(worker, 5, 1) == ["00", "01", "03", "04", "05"]


@pytest.mark.parametrize("limit", [None, 3])
def test_a_redelivery_goes_to_its_place(connect: Connect, limit: int | None) -> None:
    worker = connect()
    stop_clock(worker)
    for channel in "abcdefgh":
        if limit:
            worker.execute("SELECT lonny.channel_policy_set(%s, %s)", [channel, limit])
        for i in range(6):
            move_clock(worker, 1)
            create(worker, channel, f"{channel}{i}")
        assert worker.execute("SELECT count(id) FROM lonny.message_dequeue(1, 10)").fetchone() == (1,)
        assert dequeue(worker) == [f"{channel}1"]
        move_clock(worker, 1010)
        # Neither bound nor prepared, so that each dequeue is alone in its transaction: in a longer one it
        # notices one expired lock, timer or wake of the whole queue at a time. (psycopg prepares a query that
        # it sends for the sixth time, and from then on sends several commands for it.)
        query: LiteralString = "SELECT content FROM lonny.message_dequeue()"
        dequeued = [worker.execute(query, prepare=False).fetchone() for _ in range(2)]
        assert dequeued == [(f"{channel}0".encode(),), (f"{channel}2".encode(),)]
        worker.execute("SELECT lonny.channel_policy_set(%s, 0)", [channel])


def test_a_delay_that_ends_goes_to_its_place(connect: Connect) -> None:
    worker = connect()
    stop_clock(worker)
    create(worker, "a", "delayed", 10)
    move_clock(worker, 5)
    create(worker, "a", "first")
    move_clock(worker, 10)
    create(worker, "a", "last")
    move_clock(worker, 1000)
    assert taken(worker, 3, 1) == ["first", "delayed", "last"]
