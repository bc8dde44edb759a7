"""The consumer loop, with both kinds of connection, in this process."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pylonny import (
    Backoff,
    ConnectionLostError,
    DeadLetter,
    DeleteResult,
    ListenError,
    MessageStatus,
    NotAvailable,
    Outcome,
    Queue,
)
from pylonny.migrate import install
from tests.support.clients import CLIENTS, Client, connected
from tests.support.sessions import DEADLINE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Connect
    from tests.support.sessions import Connection

QUEUE = Queue()
EVENTS = "lonny_events"

CONSUMERS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE '%%retry_ms FROM%%' AND pid <> pg_backend_pid()
  AND state LIKE %s
"""

# When the last query of each other session began.
QUERIES = """
SELECT query_start FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid NOT IN (pg_backend_pid(), %s)
  AND state = 'idle' -- before, parse, bind and execute have a start each
"""


def consumers(user: Connection, state: str = "%") -> list[int]:
    """The sessions that dequeue, or have dequeued last."""
    return [pid for (pid,) in user.execute(CONSUMERS, [state]).fetchall()]


def until_idle(user: Connection) -> None:
    """Until a consumer has looked, and waits."""
    wait_until(lambda: len(consumers(user, "idle")) == 1, "the consumer waits")


class Consumer:
    """One that consumes, step by step; its heartbeats go on while `until` waits."""

    def __init__(self, client: Client, source: Any, **options: Any) -> None:
        self.stop = threading.Event()
        self._client = client
        self._deliveries = client.make_queue("lonny").consume(source, stop=self.stop, **options)

    def next(self) -> Any:
        if hasattr(self._deliveries, "__anext__"):
            return self._client(self._deliveries.__anext__())
        return next(self._deliveries)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        async def wait() -> None:
            async with asyncio.timeout(DEADLINE):
                while not condition():
                    await asyncio.sleep(0.01)

        if hasattr(self._deliveries, "__anext__"):
            self._client(wait())
        else:
            wait_until(condition, what)

    def close(self) -> None:
        if hasattr(self._deliveries, "aclose"):
            self._client(self._deliveries.aclose())
        else:
            self._deliveries.close()


@pytest.fixture(params=["psycopg", "psycopg async", "psycopg pool", "psycopg async pool"])
def any_client(request: pytest.FixtureRequest, database: str) -> Iterator[Client]:
    with connected(request.param, database) as client:
        yield client


@pytest.fixture(params=["psycopg", "psycopg async"])
def client(request: pytest.FixtureRequest, database: str) -> Iterator[Client]:
    with connected(request.param, database) as client:
        yield client


@pytest.fixture
def user(connect: Connect) -> Connection:
    """A session that uses the queue, which has an event channel."""
    conn = connect()
    install(conn, "lonny", EVENTS)
    return conn


@pytest.fixture
def consume(client: Client, database: str) -> Iterator[Callable[..., Consumer]]:
    """Starts a consumer."""
    started: list[Consumer] = []

    def start(**options: Any) -> Consumer:
        started.append(Consumer(client, database, **options))
        return started[-1]

    yield start
    for consumer in started:
        consumer.close()


def create(user: Connection, content: str = "") -> int:
    return QUEUE.channel("a").message.create(user, content=content, lock_ms=1)


def state(user: Connection, id_: int) -> Any:
    return QUEUE.status(user, [id_]).get(id_)


def test_messages_come_one_after_the_other_until_told_to_stop(any_client: Client, user: Connection) -> None:
    ids = [create(user, "x"), create(user, "y")]
    consumer = Consumer(any_client, any_client.conn)
    for id_, content in zip(ids, "xy", strict=True):
        message = consumer.next()
        assert (message.id, message.content.text(), message.num_attempts) == (id_, content, 1)
        assert not message.is_lost
        with any_client.within(message):
            assert any_client(message.delete(any_client.conn)) is DeleteResult.MESSAGE_DELETED
    consumer.stop.set()
    with pytest.raises((StopIteration, StopAsyncIteration)):
        consumer.next()
    wait_until(lambda: consumers(user) == [], "its connections are closed")


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_message_is_finished_in_a_transaction_of_the_users_client(
    user: Connection, database: str, kind: str
) -> None:
    id_ = create(user)
    with connected(kind, database) as client:
        consumer = Consumer(client, database)
        message = consumer.next()
        with client.within(message), client.within(client.transaction()):
            assert client(message.delete(client.conn)) is DeleteResult.MESSAGE_DELETED
            assert state(user, id_).status is MessageStatus.LOCKED
        assert state(user, id_) is None
        consumer.close()


@pytest.mark.parametrize(
    ("outcome", "status", "text"),
    [
        (60_000, MessageStatus.WAITING, "again in 60000 ms"),
        (Outcome.LEAVE, MessageStatus.LOCKED, "leave"),
        (Outcome.DELETE, None, "delete"),
        (DeadLetter("failed"), None, "to channel failed"),
    ],
)
def test_an_exception_is_logged_and_the_policy_says_what_becomes_of_the_message(
    client: Client,
    user: Connection,
    consume: Callable[..., Consumer],
    caplog: pytest.LogCaptureFixture,
    outcome: int | Outcome | DeadLetter,
    status: MessageStatus | None,
    text: str,
) -> None:
    attempts: list[int] = []

    def retry(num_attempts: int) -> int | Outcome | DeadLetter:
        attempts.append(num_attempts)
        return outcome

    id_ = create(user)
    message = consume(retry=retry).next()
    with client.within(message):
        raise ZeroDivisionError
    assert attempts == [1]
    found = state(user, id_)
    assert (found and found.status) is status
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == f"message {id_} of channel a, attempt 1: {text}"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_a_message_that_is_given_up_is_kept_in_the_channel_for_that(
    client: Client, user: Connection, consume: Callable[..., Consumer]
) -> None:
    QUEUE.channel("failed").policy.set(user, max_concurrency=0)
    create(user, "poison")
    backoff = Backoff(first_ms=0, max_attempts=2, exhausted=DeadLetter("failed"))
    consumer = consume(retry=backoff, lock_ms=60_000)
    for num_attempts in (1, 2):
        message = consumer.next()
        assert message.num_attempts == num_attempts
        with client.within(message):
            raise ZeroDivisionError
    assert QUEUE.dequeue(user) == NotAvailable(None)
    QUEUE.channel("failed").policy.clear(user)
    again = consumer.next()
    assert (again.channel, again.content, again.num_attempts) == ("failed", b"poison", 1)
    assert again.unlock_at - state(user, again.id).locked_at == timedelta(minutes=1)


def test_a_message_that_cannot_be_moved_stays_where_it_is(
    client: Client, user: Connection, consume: Callable[..., Consumer], caplog: pytest.LogCaptureFixture
) -> None:
    id_ = create(user)
    message = consume(retry=Backoff(max_attempts=1, exhausted=DeadLetter(""))).next()
    with client.within(message):
        raise ZeroDivisionError
    assert state(user, id_).status is MessageStatus.LOCKED
    assert f"message {id_} is left until its lock expires: " in caplog.text


def test_what_is_no_exception_goes_on_and_leaves_the_message(
    client: Client, user: Connection, consume: Callable[..., Consumer]
) -> None:
    id_ = create(user)
    message = consume().next()
    with pytest.raises(KeyboardInterrupt), client.within(message):
        raise KeyboardInterrupt
    assert state(user, id_).status is MessageStatus.LOCKED


def test_a_message_that_an_open_transaction_finishes_is_left(
    client: Client, user: Connection, consume: Callable[..., Consumer], caplog: pytest.LogCaptureFixture
) -> None:
    id_ = create(user)
    message = consume().next()
    with client.within(client.transaction()), client.within(message):
        client(message.delete(client.conn))
        raise ZeroDivisionError
    assert state(user, id_) is None
    assert f"message {id_} is left: an open transaction finishes it" in caplog.messages


def test_heartbeats_keep_a_message_locked_as_long_as_the_body_runs(
    client: Client, user: Connection, consume: Callable[..., Consumer]
) -> None:
    id_ = create(user)
    consumer = consume(lock_ms=600)
    message = consumer.next()
    seen = {message.unlock_at}

    def is_extended() -> bool:
        assert isinstance(QUEUE.dequeue(user), NotAvailable)  # would take it if its lock had expired
        seen.add(state(user, id_).unlock_at)
        return len(seen) > 4

    consumer.until(is_extended, "heartbeats extend the lock")
    assert state(user, id_).num_attempts == 1
    assert not message.is_lost
    assert client(message.delete(client.conn)) is DeleteResult.MESSAGE_DELETED


def test_a_worker_is_told_that_its_message_is_no_longer_its_own(
    user: Connection, consume: Callable[..., Consumer]
) -> None:
    create(user)
    consumer = consume(lock_ms=300)
    message = consumer.next()
    user.execute("SELECT lonny.message_delete(%s, %s)", [message.id, message.num_attempts])
    consumer.until(lambda: message.is_lost, "a heartbeat notices")


def test_connections_that_are_lost_are_made_anew(
    client: Client, user: Connection, consume: Callable[..., Consumer]
) -> None:
    id_ = create(user)
    consumer = consume(lock_ms=600, listen=EVENTS)
    message = consumer.next()
    first = message.unlock_at
    consumer.until(lambda: state(user, id_).unlock_at > first, "a heartbeat")
    # All but these two: that of deliveries, and that of heartbeats.
    lose = (
        "SELECT pg_terminate_backend(pid), clock_timestamp() FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), %s)"
    )
    lost = user.execute(lose, [client.conn.info.backend_pid]).fetchall()
    assert len(lost) == 2
    second = state(user, id_).unlock_at
    consumer.until(lambda: state(user, id_).unlock_at > second, "a heartbeat over another connection")
    client(message.delete(client.conn))
    following = create(user)
    assert consumer.next().id == following


def test_a_failure_that_cannot_be_told_to_the_database_leaves_the_message(
    client: Client, user: Connection, consume: Callable[..., Consumer], caplog: pytest.LogCaptureFixture
) -> None:
    id_ = create(user)
    consumer = consume(lock_ms=2000)
    message = consumer.next()
    with client.within(message):
        [pid] = consumers(user)
        user.execute("SELECT pg_terminate_backend(%s)", [pid])
        raise ZeroDivisionError
    assert f"message {id_} is left until its lock expires" in caplog.text
    again = consumer.next()
    assert (again.id, again.num_attempts, again.is_unlocked) == (id_, 2, True)


def test_a_notification_ends_the_wait(user: Connection, consume: Callable[..., Consumer]) -> None:
    consumer = consume(listen=EVENTS, poll_ms=60_000)
    with ThreadPoolExecutor(1) as pool:
        delivered = pool.submit(consumer.next)
        until_idle(user)
        id_ = create(user)
        assert delivered.result(DEADLINE).id == id_


def test_an_idle_consumer_asks_the_server_once_a_second(
    client: Client, user: Connection, consume: Callable[..., Consumer]
) -> None:
    consumer, pid = consume(listen=EVENTS), client.conn.info.backend_pid
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(pytest.raises, (StopIteration, StopAsyncIteration), consumer.next)
        until_idle(user)
        asked: set[datetime] = set()

        def is_asked_three_times() -> bool:
            asked.update(start for (start,) in user.execute(QUERIES, [pid]).fetchall())
            return len(asked) >= 3

        wait_until(is_asked_three_times, "the consumer looks again and again")
        consumer.stop.set()
        ended.result(DEADLINE)
    first, *_, last = sorted(asked)
    assert last - first >= (len(asked) - 1) * timedelta(seconds=0.99)


def test_a_bare_notification_ends_the_wait_too(user: Connection, consume: Callable[..., Consumer]) -> None:
    install(user, "lonny", None)
    consumer = consume(listen="wake", poll_ms=60_000)
    with ThreadPoolExecutor(1) as pool:
        delivered = pool.submit(consumer.next)
        until_idle(user)
        id_ = create(user)
        user.execute("NOTIFY wake")
        assert delivered.result(DEADLINE).id == id_


def test_without_listening_it_looks_now_and_then(user: Connection, consume: Callable[..., Consumer]) -> None:
    consumer = consume(poll_ms=10)
    with ThreadPoolExecutor(1) as pool:
        delivered = pool.submit(consumer.next)
        until_idle(user)
        id_ = create(user)
        assert delivered.result(DEADLINE).id == id_


def test_no_database_at_first_is_an_error(client: Client, tmp_path: Any) -> None:
    consumer = Consumer(client, f"host={tmp_path} dbname=nothing")
    with pytest.raises(ConnectionLostError, match="connection"):
        consumer.next()


def test_a_channel_that_cannot_be_is_an_error(
    user: Connection, consume: Callable[..., Consumer], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert user.info.dbname
    monkeypatch.setattr("pylonny.sessions._PID", "SELECT 0")  # as through a pooler
    with pytest.raises(ListenError, match="pooler"):
        consume(listen=EVENTS).next()
