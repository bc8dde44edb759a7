"""One suite for every client that there is an adapter for, sync and async: see tests/support/clients.py."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from pylonny import (
    CancelResult,
    Content,
    DeferResult,
    DeleteResult,
    HeartbeatResult,
    InvalidArgumentError,
    MessageStatus,
    NotAvailable,
    NotInstalledError,
    TransactionError,
)
from pylonny.migrate import install
from tests.support.clients import CLIENTS, POOLS, Client, connected

if TYPE_CHECKING:
    from pylonny.server import PrivateServer
    from tests.support.sessions import Connection

HOSTILE = r'100% :p1 %s $1 "q" \:x {}'


@pytest.fixture(scope="module")
def admin(server: PrivateServer, template: str) -> Iterator[Connection]:
    """A connection to the one database of these tests: they are many, and each empties the queue."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE clients TEMPLATE {}").format(sql.Identifier(template)))
    with psycopg.connect(server.dsn("clients"), autocommit=True) as conn:
        install(conn, HOSTILE)
        yield conn


@pytest.fixture(scope="module", params=CLIENTS | POOLS)
def connected_client(
    request: pytest.FixtureRequest, server: PrivateServer, admin: Connection
) -> Iterator[Client]:
    assert admin.info.dbname == "clients"
    with connected(request.param, server.dsn("clients")) as client:
        yield client


@pytest.fixture
def client(connected_client: Client, admin: Connection) -> Iterator[Client]:
    admin.execute("TRUNCATE lonny.message, lonny.wake, lonny.channel_policy")
    yield connected_client
    if connected_client.rollback is not None:
        connected_client(connected_client.rollback())


transactional_only = pytest.mark.parametrize("connected_client", CLIENTS, indirect=True, scope="module")


@pytest.fixture
def queue(client: Client) -> Any:
    return client.make_queue("lonny")


def test_the_life_of_a_message(client: Client, queue: Any) -> None:
    conn, channel = client.conn, queue.channel(HOSTILE)
    content = bytes(range(256))
    id_ = client(channel.message.create(conn, content=content, lock_ms=60_000))
    before = datetime.now(UTC)
    first = client(queue.dequeue(conn))
    assert (first.id, first.channel, first.content, first.state) == (id_, HOSTILE, content, None)
    assert (first.num_attempts, first.is_unlocked) == (1, False)
    assert before < first.unlock_at < before + timedelta(seconds=70)
    assert client(queue.dequeue(conn)).retry_ms > 50_000
    assert client(first.heartbeat(conn)) is HeartbeatResult.MESSAGE_HEARTBEATED
    assert client(first.heartbeat(conn, lock_ms=timedelta(hours=1))) is HeartbeatResult.MESSAGE_HEARTBEATED
    assert client(first.defer(conn, state=b"\0\xff")) is DeferResult.MESSAGE_DEFERRED
    assert client(first.delete(conn)) is DeleteResult.MESSAGE_STATE_INVALID

    second = client(queue.dequeue(conn, lock_ms=0))
    assert (second.content, second.state, second.num_attempts) == (content, b"\0\xff", 2)
    third = client(queue.dequeue(conn, lock_ms=timedelta(hours=1)))
    assert (third.state, third.num_attempts, third.is_unlocked) == (b"\0\xff", 3, True)
    assert client(second.heartbeat(conn)) is HeartbeatResult.MESSAGE_STATE_INVALID
    assert client(third.delete(conn)) is DeleteResult.MESSAGE_DELETED
    assert client(queue.dequeue(conn)) == NotAvailable(retry_ms=None)


def test_content_is_bytes_text_or_json(client: Client, queue: Any) -> None:
    conn = client.conn
    value = {"ünï": [1, None, 2.5, "\0"], "x": {"%s": ":p1 $1"}}
    for content in ["", "ünï %s :p1 $1", b"", bytearray(b"a"), memoryview(b"b"), Content.from_json(value)]:
        client(queue.message.create(conn, content=content, lock_ms=60_000))
    taken = client(queue.dequeue_many(conn, 10))
    assert [message.content for message in taken[2:5]] == [b"", b"a", b"b"]
    assert [message.content.text() for message in taken[:2]] == ["", "ünï %s :p1 $1"]
    assert taken[5].content.json() == value
    assert client(taken[5].defer(conn, state=Content.from_json(None))) is DeferResult.MESSAGE_DEFERRED
    assert client(taken[4].defer(conn, -1, "ünï")) is DeferResult.MESSAGE_DEFERRED
    again = client(queue.dequeue_many(conn, 10))
    assert {message.state.text() for message in again} == {"null", "ünï"}
    assert [message.state.json() for message in again if message.state.text() == "null"] == [None]


def test_a_batch_creates_and_limits_in_one_go(client: Client, queue: Any) -> None:
    conn, batch = client.conn, queue.batch()
    assert client(batch.execute(conn)) == []
    batch.message.create("none", lock_ms=60_000)
    batch.channel("a").message.create(content=b"1", lock_ms=60_000)
    batch.channel("paused").message.create(b"2", timedelta(minutes=1), delay_ms=-1)
    batch.channel("a").message.create(b"3", 60_000, timedelta(hours=1))
    batch.channel("paused").policy.clear()
    batch.channel("paused").policy.set(max_concurrency=0)
    batch.channel("free").policy.set(max_concurrency=1, release_interval_ms=timedelta(seconds=1))
    batch.channel("free").policy.clear()
    batch.channel("b").policy.set(release_interval_ms=5000)
    batch.channel("c").policy.set()
    ids = client(batch.execute(conn))
    assert ids == sorted(ids)
    assert len(set(ids)) == 4
    taken = client(queue.dequeue_many(conn, 10))
    assert {message.id: message.content for message in taken} == {ids[0]: b"none", ids[1]: b"1"}
    assert list(client(queue.status(conn, ids))) == ids
    assert len(client(batch.execute(conn))) == 4


def test_a_batch_of_policies_alone(client: Client, queue: Any) -> None:
    batch = queue.batch()
    batch.channel("a").policy.set(max_concurrency=0)
    assert client(batch.execute(client.conn)) == []
    client(queue.channel("a").message.create(client.conn, content=b"", lock_ms=1))
    assert isinstance(client(queue.dequeue(client.conn)), NotAvailable)
    assert batch.channel("a").name == "a"


def test_policies_limit_and_are_cleared(client: Client, queue: Any) -> None:
    conn, channel = client.conn, queue.channel("a")
    client(channel.policy.set(conn, max_concurrency=0))
    client(channel.message.create(conn, content=b"", lock_ms=60_000))
    assert client(queue.dequeue(conn)) == NotAvailable(retry_ms=None)
    client(channel.policy.set(conn, release_interval_ms=timedelta(hours=1)))
    assert client(queue.dequeue(conn)).channel == "a"
    client(channel.message.create(conn, content=b"", lock_ms=60_000))
    assert client(queue.dequeue(conn)).retry_ms > 50_000
    client(channel.policy.clear(conn))
    assert client(queue.dequeue(conn)).channel == "a"


def test_many_are_taken_and_deleted_together(client: Client, queue: Any) -> None:
    conn = client.conn
    ids = [client(queue.channel("a").message.create(conn, b"", 60_000)) for _ in range(3)]
    taken = client(queue.dequeue_many(conn, 2))
    assert [message.id for message in taken] == ids[:2]
    expected = [DeleteResult.MESSAGE_DELETED, DeleteResult.MESSAGE_DELETED, DeleteResult.MESSAGE_NOT_FOUND]
    assert client(queue.delete_many(conn, [*taken, taken[0]])) == expected
    assert client(queue.delete_many(conn, [])) == []
    assert list(client(queue.status(conn, ids))) == ids[2:]


def test_a_message_is_moved_to_another_channel_once(client: Client, queue: Any) -> None:
    conn = client.conn
    id_ = client(queue.channel("a").message.create(conn, content=b"\0x", lock_ms=1))
    stale = client(queue.dequeue(conn, lock_ms=0))
    message = client(queue.dequeue(conn, lock_ms=60_000))
    assert client(stale.dead_letter(conn, "failed", 60_000)) is DeleteResult.MESSAGE_STATE_INVALID
    minute = timedelta(minutes=1)
    assert client(message.dead_letter(conn, "failed", lock_ms=minute)) is DeleteResult.MESSAGE_DELETED
    assert client(message.dead_letter(conn, "failed", lock_ms=minute)) is DeleteResult.MESSAGE_NOT_FOUND
    moved = client(queue.dequeue(conn))
    assert (moved.channel, moved.content, moved.state, moved.num_attempts) == ("failed", b"\0x", None, 1)
    assert moved.id != id_
    states = client(queue.status(conn, [id_, moved.id]))
    assert list(states) == [moved.id]
    assert moved.unlock_at - states[moved.id].locked_at == minute
    assert isinstance(client(queue.dequeue(conn)), NotAvailable)


def test_status_and_cancel(client: Client, queue: Any) -> None:
    conn, message = client.conn, queue.channel("a").message
    before = datetime.now(UTC)
    late = client(message.create(conn, b"", lock_ms=1, delay_ms=timedelta(hours=1)))
    taken = client(message.create(conn, b"", lock_ms=60_000))
    ready = client(message.create(conn, b"", lock_ms=1))
    assert client(queue.dequeue(conn)).id == taken
    after = datetime.now(UTC)
    states = client(queue.status(conn, [late, ready, 10**12, taken]))
    assert list(states) == [late, ready, taken]
    assert [states[id_].status for id_ in states] == [
        MessageStatus.WAITING,
        MessageStatus.READY,
        MessageStatus.LOCKED,
    ]
    assert before < states[late].created_at < after
    assert before + timedelta(hours=1) < states[late].dequeue_at < after + timedelta(hours=1)
    assert (states[late].locked_at, states[late].unlock_at, states[late].num_attempts) == (None, None, 0)
    assert before < states[taken].locked_at < after < states[taken].unlock_at
    assert (states[taken].channel, states[taken].num_attempts) == ("a", 1)
    assert client(queue.cancel(conn, late)) is CancelResult.MESSAGE_CANCELLED
    assert client(queue.cancel(conn, late)) is CancelResult.MESSAGE_NOT_FOUND
    assert client(queue.cancel(conn, taken)) is CancelResult.MESSAGE_STATE_INVALID
    assert client(queue.status(conn, [])) == {}


@transactional_only
def test_calls_are_part_of_the_callers_transaction(client: Client, queue: Any) -> None:
    conn, batch = client.conn, queue.batch()
    batch.message.create(b"", 60_000)
    with pytest.raises(ZeroDivisionError), client.within(client.transaction()):
        client(batch.execute(conn))
        assert client(queue.dequeue(conn)).num_attempts == 1
        raise ZeroDivisionError
    assert isinstance(client(queue.dequeue(conn)), NotAvailable)
    with client.within(client.transaction()):
        ids = client(batch.execute(conn))
    assert client(queue.dequeue(conn)).id == ids[0]


@transactional_only
def test_an_aborted_transaction_says_so(client: Client, queue: Any) -> None:
    with pytest.raises(TransactionError), client.within(client.transaction()):
        with pytest.raises(InvalidArgumentError):
            client(queue.dequeue_many(client.conn, 0))
        client(queue.dequeue(client.conn))
    assert isinstance(client(queue.dequeue(client.conn)), NotAvailable)


def test_errors_say_what_the_server_says(client: Client, queue: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="lock_ms: -1") as caught:
        client(queue.message.create(client.conn, content=b"", lock_ms=-1))
    assert caught.value.message == "invalid lock_ms: -1"
    assert caught.value.hint.startswith("Give milliseconds from 0")
    assert caught.value.sqlstate == "22023"
    assert isinstance(caught.value.__cause__, Exception)


def test_a_queue_that_is_not_there_says_what_to_run(client: Client) -> None:
    with pytest.raises(NotInstalledError, match="no queue of pylonny in schema") as caught:
        client(client.make_queue("no where").dequeue(client.conn))
    assert caught.value.hint == "run  python -m pylonny install --schema 'no where'"


def test_a_schema_may_have_any_name(client: Client) -> None:
    queue = client.make_queue(HOSTILE)
    client(queue.check_version(client.conn))
    id_ = client(queue.channel("a").message.create(client.conn, b"x", 1000))
    taken = client(queue.dequeue(client.conn))
    assert taken.id == id_
    assert client(taken.delete(client.conn)) is DeleteResult.MESSAGE_DELETED
