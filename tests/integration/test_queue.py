"""The thin layer in Python: every method against the real functions, in the caller's transaction."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from pylonny import (
    Channel,
    ConflictError,
    Content,
    DatabaseError,
    Error,
    InvalidArgumentError,
    InvalidNameError,
    Message,
    NotAvailable,
    NotInstalledError,
    PermissionDeniedError,
    Queue,
    TransactionError,
    VersionMismatchError,
    __version__,
)
from pylonny.migrate import install, status
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


def test_bad_arguments_raise(connect: Connect) -> None:
    conn = connect()
    with pytest.raises(InvalidArgumentError, match="lock_ms") as caught:
        QUEUE.message.create(conn, content=b"", lock_ms=-1)
    assert isinstance(caught.value.__cause__, psycopg.errors.InvalidParameterValue)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InvalidArgumentError) as caught:
        QUEUE.message.create(conn, content=b"", lock_ms=2**63)
    assert caught.value.sqlstate == "22003"
    with pytest.raises(InvalidArgumentError, match="channel"):
        QUEUE.channel("").message.create(conn, content=b"", lock_ms=1)
    with pytest.raises(InvalidArgumentError, match="max_messages"):
        QUEUE.dequeue_many(conn, 0)
    with pytest.raises(InvalidArgumentError, match="max_concurrency"):
        QUEUE.channel("a").policy.set(conn, max_concurrency=-1)
    with pytest.raises(TypeError, match="lokc_ms"):
        QUEUE.dequeue(conn, lokc_ms=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    with pytest.raises(InvalidNameError):
        Queue("")
    with pytest.raises(InvalidNameError):
        Queue("pg_queue")
    assert isinstance(QUEUE.dequeue(conn), NotAvailable)


def test_errors_of_the_transaction_have_classes(connect: Connect) -> None:
    conn, other = connect(), connect()
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(TransactionError) as caught:
            QUEUE.dequeue(conn)
        assert caught.value.sqlstate == "25001"
        assert caught.value.hint
        raise psycopg.Rollback
    QUEUE.message.create(conn, content=b"", lock_ms=60_000)
    message = dequeue(conn)
    other.execute("SET lock_timeout = '10ms'")
    with conn.transaction():
        message.delete(conn)
        with pytest.raises(ConflictError):
            message.delete(other)


def test_an_error_without_an_sqlstate_stays_the_drivers(connect: Connect) -> None:
    conn = connect()
    conn.close()
    with pytest.raises(psycopg.OperationalError, match="closed"):
        QUEUE.dequeue(conn)


def test_an_error_that_is_not_known_is_a_database_error(connect: Connect) -> None:
    conn = connect()
    conn.execute("SET statement_timeout = '50ms'")
    with connect().transaction() as transaction:
        transaction.connection.execute("LOCK TABLE lonny.message")
        with pytest.raises(Error, match="timeout") as caught:
            QUEUE.message.create(conn, content=b"", lock_ms=1)
    assert type(caught.value) is DatabaseError
    assert caught.value.sqlstate == "57014"


def test_who_may_not_is_told_so(connect: Connect) -> None:
    conn = connect()
    conn.execute("CREATE ROLE nobody_special")
    conn.execute("SET ROLE nobody_special")
    with pytest.raises(PermissionDeniedError, match="permission denied"):
        QUEUE.dequeue(conn)
    conn.execute("RESET ROLE")
    conn.execute("DROP ROLE nobody_special")


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_schema_that_is_not_there_says_what_to_run(connect: Connect, autocommit: bool) -> None:
    conn = connect(autocommit=autocommit)
    with pytest.raises(NotInstalledError) as caught:
        Queue("nowhere").dequeue(conn)
    assert caught.value.message == 'there is no queue of pylonny in schema "nowhere"'
    assert caught.value.hint == "run  python -m pylonny install --schema nowhere"
    conn.rollback()
    conn.execute("CREATE SCHEMA nowhere")
    conn.commit()
    with pytest.raises(NotInstalledError, match="python -m pylonny install --schema nowhere"):
        Queue("nowhere").dequeue(conn)


def test_a_queue_of_another_version_says_what_to_run(connect: Connect) -> None:
    conn, queue = connect(), Queue('My "Queue" 1')
    queue.check_version(conn)
    conn.execute('DROP FUNCTION "My ""Queue"" 1".message_cancel')
    in_transaction = connect(autocommit=False)
    update = (
        """UPDATE "My ""Queue"" 1".migration SET version = %s, package_version = '7.8', is_breaking = true"""
    )
    for version, hint in [(0, "--schema 'My \"Queue\" 1'"), (10_000, "upgrade pylonny")]:
        conn.execute(update, [version])
        expected = f"of pylonny 7.8, migration {version}: .*{__version__}"
        with pytest.raises(VersionMismatchError, match=expected) as caught:
            queue.check_version(conn)
        assert hint in caught.value.hint
        with pytest.raises(VersionMismatchError, match=f"migration {version}"):
            queue.cancel(conn, 1)
        with pytest.raises(NotInstalledError, match=r"message_cancel.*install.*upgrade pylonny"):
            queue.cancel(in_transaction, 1)
        in_transaction.rollback()
    conn.execute('DELETE FROM "My ""Queue"" 1".migration')
    with pytest.raises(VersionMismatchError, match="migration 0"):
        queue.check_version(conn)


def test_a_newer_queue_that_older_programs_can_use_is_used_with_a_warning(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    conn, queue = connect(), Queue("lonny")
    conn.execute("INSERT INTO lonny.migration VALUES (9, 'later', 'x', '7.8', false, now())")
    queue.check_version(conn)
    [record] = caplog.records
    assert record.getMessage() == (
        'the queue in schema "lonny" is that of pylonny 7.8, migration 9: '
        f"newer than this pylonny, {__version__}, which can still use it"
    )
    conn.execute("INSERT INTO lonny.migration VALUES (10, 'latest', 'x', '7.9', false, now())")
    conn.execute("UPDATE lonny.migration SET is_breaking = true WHERE version = 9")
    with pytest.raises(VersionMismatchError, match=r"of pylonny 7\.9, migration 10"):
        queue.check_version(conn)


def test_a_function_that_is_missing_though_the_version_is_right_is_told(connect: Connect) -> None:
    conn = connect()
    conn.execute("DROP FUNCTION lonny.message_cancel")
    with pytest.raises(DatabaseError, match=r"lonny\.message_cancel") as caught:
        QUEUE.cancel(conn, 1)
    assert caught.value.sqlstate == "42883"


def test_methods_show_their_arguments_and_what_they_do() -> None:
    signature = "(self, conn, /, lock_ms: 'Duration | None' = None)"
    assert str(inspect.signature(Queue.dequeue)) == signature
    assert (inspect.getdoc(Queue.dequeue) or "").startswith("Take the next message in rotation")


def test_json_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Content.from_json(float("nan"))
    with pytest.raises(ValueError, match="Expecting value"):
        Content(b"x").json()
    with pytest.raises(UnicodeDecodeError):
        Content(b"\xff").text()


def test_a_part_of_a_millisecond_counts_as_a_whole_one(connect: Connect) -> None:
    conn = connect()
    QUEUE.message.create(conn, content=b"", lock_ms=timedelta(microseconds=1), delay_ms=timedelta(days=-1))
    assert conn.execute("SELECT lock_ms FROM lonny.message").fetchone() == (1,)


def test_migrations_are_the_statements_of_an_install(connect: Connect) -> None:
    conn, name = connect(autocommit=False), 'it\'s; "new" -- $do$'
    settings = "SELECT current_setting('search_path'), current_setting('client_min_messages')"
    conn.execute("SET search_path = public, tap")
    before = conn.execute(settings).fetchall()
    queue = Queue(name)
    statements = queue.migrations(event_channel="events; \\' --")
    assert len(statements) > 100
    for statement in statements:
        conn.execute(statement.encode())
    assert conn.execute(settings).fetchall() == before
    conn.commit()
    queue.check_version(conn)
    [installed] = [found for found in status(conn) if found.schema == name]
    assert (installed.version, installed.event_channel) == (1, "events; \\' --")
    queue.message.create(conn, content=b"", lock_ms=1)
    assert dequeue(conn, queue).num_attempts == 1
    with pytest.raises(psycopg.errors.DuplicateSchema):
        for statement in statements:
            conn.execute(statement.encode())


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
    shown = Message(1, "a", Content(b"x"), None, 1, False, at, message._runner)  # pyright: ignore[reportPrivateUsage]
    assert repr(shown) == (
        "Message(id=1, channel='a', content=b'x', state=None, num_attempts=1, is_unlocked=False,"
        f" unlock_at={at!r})"
    )
    with pytest.raises(AttributeError):
        message.id = 2  # type: ignore[misc]
    assert isinstance(QUEUE.channel("a"), Channel)
    assert QUEUE.channel("a").name == "a"
