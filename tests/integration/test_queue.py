"""The thin layer in Python: every method against the real functions, in the caller's transaction."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from pylonny import Channel, Message, NotAvailable, Queue
from pylonny.migrate import install
from pylonny.results import DeferResult, DeleteResult, HeartbeatResult
from tests.conftest import Connect
from tests.support.databases import SCHEMAS
from tests.support.sessions import Connection

QUEUE = Queue()


def dequeue(conn: Connection, queue: Queue = QUEUE, lock_ms: int | None = None) -> Message:
    message = queue.dequeue(conn, lock_ms)
    assert isinstance(message, Message), message
    return message


def clock(conn: Connection) -> datetime:
    [(now,)] = conn.execute("SELECT clock_timestamp()").fetchall()
    assert isinstance(now, datetime)
    return now


@pytest.mark.parametrize("schema", SCHEMAS, indirect=True)
def test_a_message_comes_back_as_it_was_put_in(connect: Connect, schema: str) -> None:
    conn, queue = connect(), Queue(schema)
    content = bytes(range(256))
    message_id = queue.channel("tenant-1").message.create(conn, content=content, lock_ms=60_000)
    before = clock(conn)
    message = dequeue(conn, queue)
    assert (message.id, message.channel, message.content, message.state) == (
        message_id,
        "tenant-1",
        content,
        None,
    )
    assert (message.num_attempts, message.is_unlocked) == (1, False)
    assert 60.0 <= (message.unlock_at - before).total_seconds() < 70.0
    assert message.delete(conn) is DeleteResult.MESSAGE_DELETED
    assert message.delete(conn) is DeleteResult.MESSAGE_NOT_FOUND
    assert queue.dequeue(conn) == NotAvailable(retry_ms=None)


@pytest.mark.parametrize("content", [b"", b"\\x41", bytearray(b"\0\1"), memoryview(b"abc")])
def test_content_is_any_bytes(connect: Connect, content: bytes | bytearray | memoryview) -> None:
    conn = connect()
    QUEUE.message.create(conn, content, 1000)
    assert dequeue(conn).content == bytes(content)


def test_a_message_without_a_channel_gets_a_channel_of_its_own(connect: Connect) -> None:
    conn = connect()
    ids = [QUEUE.message.create(conn, content=b"", lock_ms=60_000) for _ in range(2)]
    first, second = dequeue(conn), dequeue(conn)
    assert [first.id, second.id] == ids
    assert first.channel != second.channel


def test_a_delay_is_waited_for_and_not_available_says_how_long(connect: Connect) -> None:
    conn = connect()
    QUEUE.message.create(conn, content=b"", lock_ms=1000, delay_ms=60_000)
    answer = QUEUE.dequeue(conn)
    assert isinstance(answer, NotAvailable)
    assert answer.retry_ms is not None
    assert 50_000 < answer.retry_ms <= 60_000


def test_a_negative_delay_goes_ahead(connect: Connect) -> None:
    conn, message = connect(), QUEUE.channel("a").message
    first = message.create(conn, content=b"", lock_ms=60_000)
    urgent = message.create(conn, content=b"", lock_ms=60_000, delay_ms=-60_000)
    assert [dequeue(conn).id, dequeue(conn).id] == [urgent, first]


def test_lock_ms_of_a_dequeue_replaces_the_producers(connect: Connect) -> None:
    conn = connect()
    QUEUE.message.create(conn, content=b"", lock_ms=1000)
    before = clock(conn)
    message = dequeue(conn, lock_ms=3_600_000)
    assert 3600.0 <= (message.unlock_at - before).total_seconds() < 3610.0


def test_many_are_dequeued_in_the_order_of_turns(connect: Connect) -> None:
    conn = connect()
    ids = [QUEUE.channel("a").message.create(conn, content=b"", lock_ms=60_000) for _ in range(3)]
    taken = QUEUE.dequeue_many(conn, 2, lock_ms=60_000)
    assert isinstance(taken, list)
    assert [message.id for message in taken] == ids[:2]
    assert all(message.num_attempts == 1 for message in taken)
    rest = QUEUE.dequeue_many(conn, max_messages=10)
    assert isinstance(rest, list)
    assert [message.id for message in rest] == ids[2:]
    assert isinstance(QUEUE.dequeue_many(conn, 10), NotAvailable)


def test_a_deferred_message_comes_back_with_its_state(connect: Connect) -> None:
    conn = connect()
    QUEUE.message.create(conn, content=b"content", lock_ms=60_000)
    assert dequeue(conn).defer(conn, state=b"\0half") is DeferResult.MESSAGE_DEFERRED
    second = dequeue(conn)
    assert (second.content, second.state, second.num_attempts, second.is_unlocked) == (
        b"content",
        b"\0half",
        2,
        False,
    )
    assert second.defer(conn) is DeferResult.MESSAGE_DEFERRED
    third = dequeue(conn)
    assert third.state == b"\0half"
    assert third.defer(conn, 0, b"") is DeferResult.MESSAGE_DEFERRED
    fourth = dequeue(conn)
    assert fourth.state == b""
    assert fourth.defer(conn, delay_ms=60_000) is DeferResult.MESSAGE_DEFERRED
    assert isinstance(QUEUE.dequeue(conn), NotAvailable)


def test_a_heartbeat_extends_the_lock(connect: Connect) -> None:
    conn = connect()
    QUEUE.message.create(conn, content=b"", lock_ms=60_000)
    message = dequeue(conn)

    def seconds_left() -> float:
        [(at,)] = conn.execute("SELECT unlock_at FROM lonny.message_status(%s)", [[message.id]]).fetchall()
        left: float = (at - clock(conn)).total_seconds()
        return left

    assert message.heartbeat(conn, lock_ms=3_600_000) is HeartbeatResult.MESSAGE_HEARTBEATED
    assert 3590.0 < seconds_left() <= 3600.0
    assert message.heartbeat(conn) is HeartbeatResult.MESSAGE_HEARTBEATED
    assert 3590.0 < seconds_left() <= 3600.0


def test_a_message_whose_lock_expired_comes_again_and_fences_the_first_worker(connect: Connect) -> None:
    conn = connect()
    QUEUE.message.create(conn, content=b"", lock_ms=0)
    first = dequeue(conn)
    second = dequeue(conn, lock_ms=60_000)
    assert (second.id, second.num_attempts, second.is_unlocked) == (first.id, 2, True)
    assert first.delete(conn) is DeleteResult.MESSAGE_STATE_INVALID
    assert first.defer(conn) is DeferResult.MESSAGE_STATE_INVALID
    assert first.heartbeat(conn) is HeartbeatResult.MESSAGE_STATE_INVALID
    assert second.delete(conn) is DeleteResult.MESSAGE_DELETED
    assert second.defer(conn) is DeferResult.MESSAGE_NOT_FOUND
    assert second.heartbeat(conn) is HeartbeatResult.MESSAGE_NOT_FOUND


def test_a_heartbeat_does_not_wait_for_a_delete(connect: Connect) -> None:
    deleting, beating = connect(autocommit=False), connect()
    QUEUE.message.create(beating, content=b"", lock_ms=60_000)
    message = dequeue(beating)
    message.delete(deleting)
    beating.execute("SET lock_timeout = '5s'")
    assert message.heartbeat(beating) is HeartbeatResult.MESSAGE_BUSY
    deleting.commit()
    assert message.heartbeat(beating) is HeartbeatResult.MESSAGE_NOT_FOUND


def test_a_policy_is_set_replaced_and_cleared(connect: Connect) -> None:
    conn, channel = connect(), QUEUE.channel("a")
    in_force = "SELECT max_concurrency, release_interval_ms FROM lonny._policy_in_force"
    channel.policy.set(conn, max_concurrency=0)
    assert conn.execute(in_force).fetchall() == [(0, None)]
    channel.message.create(conn, content=b"", lock_ms=60_000)
    assert isinstance(QUEUE.dequeue(conn), NotAvailable)
    channel.policy.set(conn, max_concurrency=2, release_interval_ms=5_000)
    assert conn.execute(in_force).fetchall() == [(2, 5_000)]
    channel.policy.set(conn, release_interval_ms=7_000)
    assert conn.execute(in_force).fetchall() == [(None, 7_000)]
    assert dequeue(conn).channel == "a"
    channel.message.create(conn, content=b"", lock_ms=60_000)
    assert isinstance(QUEUE.dequeue(conn), NotAvailable)
    channel.policy.clear(conn)
    assert conn.execute(in_force).fetchall() == []
    assert dequeue(conn).channel == "a"


def test_everything_is_part_of_the_callers_transaction(connect: Connect) -> None:
    conn, other = connect(autocommit=False), connect()
    QUEUE.channel("a").message.create(conn, content=b"", lock_ms=60_000)
    assert isinstance(QUEUE.dequeue(other), NotAvailable)
    conn.rollback()
    assert isinstance(QUEUE.dequeue(other), NotAvailable)

    QUEUE.channel("a").message.create(conn, content=b"", lock_ms=60_000)
    conn.commit()
    message = dequeue(other)
    assert message.delete(conn) is DeleteResult.MESSAGE_DELETED
    conn.rollback()
    assert message.delete(other) is DeleteResult.MESSAGE_DELETED


def test_bad_arguments_raise_the_databases_errors(connect: Connect) -> None:
    conn = connect()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="lock_ms"):
        QUEUE.message.create(conn, content=b"", lock_ms=-1)
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        QUEUE.message.create(conn, content=b"", lock_ms=2**63)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="channel"):
        QUEUE.channel("").message.create(conn, content=b"", lock_ms=1)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="max_messages"):
        QUEUE.dequeue_many(conn, 0)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="max_concurrency"):
        QUEUE.channel("a").policy.set(conn, max_concurrency=-1)
    with pytest.raises(psycopg.errors.InvalidSchemaName):
        Queue("nowhere").dequeue(conn)
    assert isinstance(QUEUE.dequeue(conn), NotAvailable)


@pytest.mark.parametrize("cursor_factory", [psycopg.Cursor, psycopg.ClientCursor, psycopg.RawCursor])
def test_the_connections_factories_do_not_matter(connect: Connect, cursor_factory: type[Any]) -> None:
    conn: psycopg.Connection[Any] = connect()
    conn.row_factory, conn.cursor_factory = dict_row, cursor_factory
    QUEUE.channel("a").message.create(conn, content=b"\0", lock_ms=60_000)
    message = QUEUE.dequeue(conn)
    assert isinstance(message, Message)
    assert (message.content, message.delete(conn)) == (b"\0", DeleteResult.MESSAGE_DELETED)


def test_calls_go_through_a_pipeline(connect: Connect) -> None:
    conn = connect()
    with conn.pipeline():
        ids = [QUEUE.channel("a").message.create(conn, content=b"", lock_ms=60_000) for _ in range(10)]
        assert [dequeue(conn).id for _ in range(10)] == ids


def test_calls_are_prepared_and_keep_working_after_an_install(connect: Connect) -> None:
    conn, admin = connect(), connect()
    conn.prepare_threshold = 0
    for round_ in range(3):
        message_id = QUEUE.channel("a").message.create(conn, content=b"", lock_ms=60_000)
        assert dequeue(conn).id == message_id
        install(admin, "lonny", f"events_{round_}")
    prepared = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT result::%'"
    assert conn.execute(prepared).fetchone() == (1,)


def test_a_message_is_a_value(connect: Connect) -> None:
    conn = connect()
    QUEUE.channel("a").message.create(conn, content=b"x", lock_ms=60_000)
    message = dequeue(conn)
    assert message.unlock_at.tzinfo is not None
    at = datetime(2030, 1, 1, tzinfo=UTC)
    shown = Message(1, "a", b"x", None, 1, False, at, Queue("other").message)  # type: ignore[arg-type]
    assert repr(shown) == (
        "Message(id=1, channel='a', content=b'x', state=None, num_attempts=1, is_unlocked=False,"
        f" unlock_at={at!r})"
    )
    with pytest.raises(AttributeError):
        message.id = 2  # type: ignore[misc]
    assert isinstance(QUEUE.channel("a"), Channel)
    assert QUEUE.channel("a").name == "a"
