"""Listening from Python: events, and waiting for the end of messages; with both kinds of connection."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from pylonny import (
    ChannelPolicyChanged,
    ConnectionLostError,
    ListenError,
    Message,
    MessageCreated,
    MessageDeferred,
    MessageDeleted,
    Queue,
    WaitTimeoutError,
)
from pylonny.migrate import install
from tests.support.clients import Client, connected
from tests.support.sessions import DEADLINE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Connect
    from tests.support.sessions import Connection

QUEUE = Queue()


@pytest.fixture
def user(connect: Connect) -> Connection:
    """A session that uses the queue."""
    conn = connect()
    install(conn, "lonny", "lonny_events")
    return conn


@pytest.fixture(params=["psycopg", "psycopg async"])
def client(request: pytest.FixtureRequest, database: str) -> Iterator[Client]:
    """The client that listens."""
    with connected(request.param, database) as client:
        yield client


@pytest.fixture
def queue(client: Client) -> Any:
    return client.make_queue("lonny")


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
    """Runs something in a thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


def following(client: Client, events: Any) -> Any:
    """The next event."""
    return client(events.__anext__()) if hasattr(events, "__anext__") else next(events)


def listening(user: Connection, client: Client, last_query: str) -> None:
    """Wait until the client has asked its last question, and is waiting for what happens."""
    activity = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'idle' AND query LIKE %s"
    values = [client.conn.info.backend_pid, f"%{last_query}%"]
    wait_until(lambda: user.execute(activity, values).fetchone() is not None, "the client listens")


def create(user: Connection) -> int:
    return QUEUE.channel("a").message.create(user, content=b"", lock_ms=60_000)


def finish(user: Connection) -> None:
    message = QUEUE.dequeue(user)
    assert isinstance(message, Message)
    message.delete(user)


def channels(client: Client) -> int:
    cur = client(client.conn.execute("SELECT count(*) FROM pg_listening_channels()"))
    count: int = client(cur.fetchone())[0]
    return count


def test_events_are_iterated_as_they_happen(
    client: Client, queue: Any, user: Connection, start: Callable[[Callable[[], Any]], Future[Any]]
) -> None:
    events = queue.events(client.conn)
    first = start(lambda: following(client, events))
    listening(user, client, "LISTEN")
    user.execute("NOTIFY lonny_events, 'from somebody else'")
    id_ = create(user)
    assert first.result(DEADLINE) == MessageCreated(id_, "a", 0)
    message = QUEUE.dequeue(user)
    assert isinstance(message, Message)
    message.defer(user, delay_ms=-7)
    assert client(queue.status(client.conn, [id_]))[id_].num_attempts == 1  # the connection is free meanwhile
    QUEUE.channel("b").policy.set(user, max_concurrency=1)
    finish(user)
    assert [following(client, events) for _ in range(3)] == [
        MessageDeferred(id_, "a", -7),
        ChannelPolicyChanged("b"),
        MessageDeleted(id_, "a"),
    ]
    assert channels(client) == 1
    client(events.aclose()) if hasattr(events, "aclose") else events.close()
    assert channels(client) == 0


@pytest.mark.usefixtures("user")
def test_an_iteration_ends_after_its_time(client: Client, queue: Any) -> None:
    events = queue.events(client.conn, timeout=0.01, event_channel="other")
    with pytest.raises((StopIteration, StopAsyncIteration)):
        following(client, events)
    assert channels(client) == 0


def test_waiting_ends_when_the_last_message_is_gone(
    client: Client, queue: Any, user: Connection, start: Callable[[Callable[[], Any]], Future[Any]]
) -> None:
    ids = [create(user) for _ in range(3)]
    finish(user)
    waiting = start(lambda: client(queue.wait_deleted(client.conn, ids, timeout=DEADLINE)))
    listening(user, client, "message_status")
    finish(user)
    assert QUEUE.cancel(user, ids[2]) == "MESSAGE_CANCELLED"
    assert waiting.result(DEADLINE) is None
    assert channels(client) == 0
    assert client(queue.wait_deleted(client.conn, ids)) is None
    assert client(queue.wait_deleted(client.conn, [])) is None


def test_waiting_says_what_is_still_there(client: Client, queue: Any, user: Connection) -> None:
    ids = [create(user), create(user)]
    finish(user)
    with pytest.raises(WaitTimeoutError, match=rf"after 0\.01 s .* \[{ids[1]}\]") as caught:
        client(queue.wait_deleted(client.conn, ids, 0.01))
    assert isinstance(caught.value, TimeoutError)


def test_without_events_waiting_looks_again(
    client: Client,
    queue: Any,
    user: Connection,
    start: Callable[[Callable[[], Any]], Future[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pylonny.events._POLL", 0.01)
    install(user, "lonny", None)
    id_ = create(user)
    waiting = start(lambda: client(queue.wait_deleted(client.conn, [id_])))
    listening(user, client, "message_status")
    assert not waiting.done()
    finish(user)
    assert waiting.result(DEADLINE) is None


def test_without_an_event_channel_there_is_nothing_to_iterate(
    client: Client, queue: Any, user: Connection
) -> None:
    install(user, "lonny", None)
    with pytest.raises(ListenError, match=r"no event channel.*install --event-channel"):
        following(client, queue.events(client.conn))


@pytest.mark.usefixtures("user")
def test_one_cannot_listen_inside_of_a_transaction(client: Client, queue: Any) -> None:
    with client.within(client.transaction()), pytest.raises(ListenError, match="autocommit"):
        following(client, queue.events(client.conn))


@pytest.mark.usefixtures("user")
def test_a_connection_that_is_lost_ends_an_iteration(
    client: Client, queue: Any, user: Connection, start: Callable[[Callable[[], Any]], Future[Any]]
) -> None:
    events = queue.events(client.conn)
    waiting = start(lambda: following(client, events))
    listening(user, client, "LISTEN")
    user.execute("SELECT pg_terminate_backend(%s)", [client.conn.info.backend_pid])
    with pytest.raises(ConnectionLostError, match=r"terminating|closed"):
        waiting.result(DEADLINE)
