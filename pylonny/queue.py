"""The queue from Python: a method for each function in SQL, over a connection that the caller has.

Nothing is decided here, and nothing is committed: every call is part of the transaction that the connection
is in, or its own if the connection is in autocommit mode, or comes from a pool. Errors are those of
pylonny.errors. Times are in milliseconds, which `_ms` says, or timedeltas, of which a part of a millisecond
counts as a whole one.

Each class comes twice: `Queue` is for connections that block, `AsyncQueue` for those that are awaited.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from pylonny.adapters import AsyncPsycopg, Psycopg
from pylonny.operations import (
    AC,
    AsyncExecutor,
    AsyncRunner,
    C,
    Executor,
    Operation,
    Part,
    R,
    Rows,
    Runner,
    check_version,
    milliseconds,
    operation,
    optional_milliseconds,
)
from pylonny.results import (
    CancelResult,
    Content,
    DeferResult,
    DeleteResult,
    HeartbeatResult,
    MessageState,
    MessageStatus,
    NotAvailable,
)

if TYPE_CHECKING:
    import psycopg

    from pylonny.adapters import AsyncPool, Pool
    from pylonny.consumer import AsyncDelivery, Delivery, RetryPolicy, Stop
    from pylonny.events import Event

ContentLike = bytes | bytearray | memoryview | str
Duration = int | timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _bytes(content: ContentLike) -> bytes:
    return content.encode() if isinstance(content, str) else bytes(content)


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _optional_time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _time(microseconds)


@dataclass(frozen=True, slots=True)
class _Message(Part[R]):
    id: int
    channel: str
    """The channel that it was created in, or a random name if in none."""
    content: Content
    """What its producer gave: bytes, with `text()` and `json()`."""
    state: Content | None
    """What the last defer left with it; None if nothing did."""
    num_attempts: int
    """How often it was dequeued, this time included: the fencing token of delete, defer and heartbeat."""
    is_unlocked: bool
    """True if the lock of the delivery before expired: its worker is presumed dead."""
    unlock_at: datetime
    """When the lock expires, by the server's clock, as of the dequeue."""
    _runner: R = field(repr=False, compare=False)

    @operation
    def delete(self) -> Operation[DeleteResult]:
        """Remove the message: it is done."""
        [(result,)] = yield self._runner.statements.delete, (self.id, self.num_attempts)
        return DeleteResult(result)

    @operation
    def defer(self, delay_ms: Duration = 0, state: ContentLike | None = None) -> Operation[DeferResult]:
        """Give the message back, to be dequeued again in `delay_ms` milliseconds.

        `state` comes with it then; None keeps the one that it has.
        """
        kept = None if state is None else _bytes(state)
        values = self.id, self.num_attempts, milliseconds(delay_ms), kept
        [(result,)] = yield self._runner.statements.defer, values
        return DeferResult(result)

    @operation
    def dead_letter(self, channel: str, lock_ms: Duration) -> Operation[DeleteResult]:
        """Move the message to another channel, for those that failed for good; what became of it here.

        It is deleted, and its content created there with `lock_ms`, both or neither. There it is a new
        message: another id, no state, no attempts yet. Workers get it like any other, unless the channel is
        paused: `queue.channel("failed").policy.set(conn, max_concurrency=0)`.
        """
        values = self.id, self.num_attempts, channel, _bytes(self.content), milliseconds(lock_ms)
        [(result, _)] = yield self._runner.statements.dead_letter, values
        return DeleteResult(result)

    @operation
    def heartbeat(self, lock_ms: Duration | None = None) -> Operation[HeartbeatResult]:
        """Extend the lock to `lock_ms` milliseconds from now, None for the message's own time. Never waits.

        Commit it at once: until then nobody else sees it.
        """
        values = self.id, self.num_attempts, optional_milliseconds(lock_ms)
        [(result,)] = yield self._runner.statements.heartbeat, values
        return HeartbeatResult(result)


class Message(_Message[Runner[C]]):
    """A message that was dequeued, and is locked until `unlock_at` for whoever knows its `num_attempts`."""

    __slots__ = ()


class AsyncMessage(_Message[AsyncRunner[AC]]):
    """A message that was dequeued, and is locked until `unlock_at` for whoever knows its `num_attempts`."""

    __slots__ = ()


class _Messages(Part[R]):
    __slots__ = ("_channel",)

    def __init__(self, runner: R, channel: str | None) -> None:
        self._runner = runner
        self._channel = channel

    @operation
    def create(self, content: ContentLike, lock_ms: Duration, delay_ms: Duration = 0) -> Operation[int]:
        """Put a message in and return its id.

        `content`: bytes, a str, which becomes UTF-8, or any JSON value as Content.from_json(value); up to
        256,000,000 bytes.
        `lock_ms`: for how many milliseconds a dequeue locks it, and a heartbeat from then on. `delay_ms`: how
        many it waits before it can be dequeued; a negative number puts it ahead of others in its channel.
        """
        values = self._channel, _bytes(content), milliseconds(lock_ms), milliseconds(delay_ms)
        [(id_,)] = yield self._runner.statements.create, values
        created: int = id_
        return created


class Messages(_Messages[Runner[C]]):
    """The messages of a queue, or of one channel of it: see Queue.message and Channel.message."""

    __slots__ = ()


class AsyncMessages(_Messages[AsyncRunner[AC]]):
    """The messages of a queue, or of one channel of it: see AsyncQueue.message and AsyncChannel.message."""

    __slots__ = ()


class _Policy(Part[R]):
    __slots__ = ("_channel",)

    def __init__(self, runner: R, channel: str) -> None:
        self._runner = runner
        self._channel = channel

    @operation
    def set(
        self, max_concurrency: int | None = None, release_interval_ms: Duration | None = None
    ) -> Operation[None]:
        """Replace the channel's limits.

        `max_concurrency`: how many of its messages may be locked at a time; None: any number, 0: a pause.
        `release_interval_ms`: how many milliseconds pass between two of its dequeues; None or 0: any.
        """
        values = self._channel, max_concurrency, optional_milliseconds(release_interval_ms)
        yield self._runner.statements.policy_set, values

    @operation
    def clear(self) -> Operation[None]:
        """Remove all limits of the channel."""
        yield self._runner.statements.policy_clear, (self._channel,)


class Policy(_Policy[Runner[C]]):
    """What limits a channel: see Channel.policy. It binds all dequeues that begin after its commit."""

    __slots__ = ()


class AsyncPolicy(_Policy[AsyncRunner[AC]]):
    """What limits a channel: see AsyncChannel.policy. It binds all dequeues that begin after its commit."""

    __slots__ = ()


class Channel(Generic[C]):
    """One channel of a queue: its messages, and the policy that limits them. Making one asks no database."""

    __slots__ = ("message", "name", "policy")

    def __init__(self, runner: Runner[C], name: str) -> None:
        self.name = name
        self.message = Messages(runner, name)
        self.policy = Policy(runner, name)


class AsyncChannel(Generic[AC]):
    """One channel of a queue: its messages, and the policy that limits them. Making one asks no database."""

    __slots__ = ("message", "name", "policy")

    def __init__(self, runner: AsyncRunner[AC], name: str) -> None:
        self.name = name
        self.message = AsyncMessages(runner, name)
        self.policy = AsyncPolicy(runner, name)


class BatchMessages:
    """The messages that a batch will create: see Batch.message and BatchChannel.message."""

    __slots__ = ("_channel", "_created")

    def __init__(self, channel: str | None, created: list[tuple[str | None, bytes, int, int]]) -> None:
        self._channel = channel
        self._created = created

    def create(self, content: ContentLike, lock_ms: Duration, delay_ms: Duration = 0) -> None:
        """Add a message; the arguments are those of Messages.create."""
        values = self._channel, _bytes(content), milliseconds(lock_ms), milliseconds(delay_ms)
        self._created.append(values)


class BatchPolicy:
    """The policy that a batch will set or clear: see BatchChannel.policy."""

    __slots__ = ("_channel", "_policies")

    def __init__(self, channel: str, policies: dict[str, tuple[int | None, int | None, bool]]) -> None:
        self._channel = channel
        self._policies = policies

    def set(self, max_concurrency: int | None = None, release_interval_ms: Duration | None = None) -> None:
        """Add a policy, in place of what the batch has of this channel; the arguments are Policy.set's."""
        limits = max_concurrency, optional_milliseconds(release_interval_ms)
        self._policies[self._channel] = (*limits, False)

    def clear(self) -> None:
        """Add the removal of all limits, in place of what the batch has of this channel."""
        self._policies[self._channel] = (None, None, True)


class BatchChannel:
    """One channel of a batch: the messages, and the policy, that the batch will put into it."""

    __slots__ = ("message", "name", "policy")

    def __init__(self, name: str, message: BatchMessages, policy: BatchPolicy) -> None:
        self.name = name
        self.message = message
        self.policy = policy


class _Batch(Part[R]):
    __slots__ = ("_created", "_policies", "message")

    def __init__(self, runner: R) -> None:
        self._runner = runner
        self._created: list[tuple[str | None, bytes, int, int]] = []
        self._policies: dict[str, tuple[int | None, int | None, bool]] = {}
        self.message = BatchMessages(None, self._created)
        """Messages without a channel."""

    def channel(self, name: str) -> BatchChannel:
        """The channel of that name, for this batch."""
        return BatchChannel(name, BatchMessages(name, self._created), BatchPolicy(name, self._policies))

    @operation
    def execute(self) -> Operation[list[int]]:
        """Set and clear the policies, then create the messages; return their ids in the order of the batch.

        It takes one statement for all policies and one for all messages. The batch stays as it is, so that
        it can be executed again if its transaction is rolled back.
        """
        if self._policies:
            limits = zip(*self._policies.values(), strict=True)
            yield self._runner.statements.policy_many, (list(self._policies), *map(list, limits))
        if not self._created:
            return []
        columns = zip(*self._created, strict=True)
        rows = yield self._runner.statements.create_many, tuple(map(list, columns))
        return [id_ for (id_,) in rows]


class Batch(_Batch[Runner[C]]):
    """Messages and policies that are collected, and go to the database together: see Queue.batch."""

    __slots__ = ()


class AsyncBatch(_Batch[AsyncRunner[AC]]):
    """Messages and policies that are collected, and go to the database together: see AsyncQueue.batch."""

    __slots__ = ()


M = TypeVar("M", bound="_Message[Any]")


class _Queue(Part[R], Generic[R, M]):
    __slots__ = ("_message",)

    _message: Callable[..., M]

    @property
    def schema(self) -> str:
        """The schema that the queue is installed in."""
        return self._runner.statements.schema

    @operation
    def dequeue(self, lock_ms: Duration | None = None) -> Operation[M | NotAvailable]:
        """Take the next message in rotation over the channels, and lock it for `lock_ms` milliseconds.

        None locks it for the time that its producer gave. Commit it at once: the lock is in the row, not in
        the transaction.
        """
        rows = yield self._runner.statements.dequeue, (1, optional_milliseconds(lock_ms))
        taken = self._taken(rows)
        return taken if isinstance(taken, NotAvailable) else taken[0]

    @operation
    def dequeue_many(
        self, max_messages: int, lock_ms: Duration | None = None
    ) -> Operation[list[M] | NotAvailable]:
        """Take up to `max_messages`, in the order in which as many calls of `dequeue` would give them."""
        rows = yield self._runner.statements.dequeue, (max_messages, optional_milliseconds(lock_ms))
        return self._taken(rows)

    @operation
    def delete_many(self, messages: Sequence[M]) -> Operation[list[DeleteResult]]:
        """Remove messages that are done; what became of each of them, in the same order."""
        values = [message.id for message in messages], [message.num_attempts for message in messages]
        rows = yield self._runner.statements.delete_many, values
        return [DeleteResult(result) for (result,) in rows]

    @operation
    def cancel(self, id_: int, /) -> Operation[CancelResult]:
        """Remove a message that no worker has."""
        [(result,)] = yield self._runner.statements.cancel, (id_,)
        return CancelResult(result)

    @operation
    def status(self, ids: Iterable[int]) -> Operation[dict[int, MessageState]]:
        """Where these messages are, by their ids and in the order of those. What is missing is gone."""
        rows = yield self._runner.statements.status, (list(ids),)
        return {
            id_: MessageState(
                id_,
                MessageStatus(status),
                channel,
                num_attempts,
                _time(created_at),
                _time(dequeue_at),
                _optional_time(locked_at),
                _optional_time(unlock_at),
            )
            for id_, status, channel, num_attempts, created_at, dequeue_at, locked_at, unlock_at in rows
        }

    @operation
    def event_channel(self) -> Operation[str | None]:
        """The channel that the queue's events are sent to with NOTIFY; None if it has none.

        The role needs the right to call the schema's function `_event_channel`.
        """
        [(channel,)] = yield self._runner.statements.event_channel, ()
        found: str | None = channel
        return found

    @operation
    def check_version(self) -> Operation[None]:
        """See that the queue is installed, as this version of pylonny needs it: for the start of a program.

        Raises NotInstalledError, or VersionMismatchError if it is an older or a newer one.
        """
        return check_version(self._runner.statements)

    def migrations(
        self,
        event_channel: str | None = None,
        from_version: int | None = None,
        *,
        wake_channel: str | None = None,
    ) -> list[str]:
        """The SQL statements that install the queue, in order, for a migration tool of your own.

        They leave what `python -m pylonny install` does, and are to be run in one transaction, into a schema
        that has no queue yet; with `from_version`, into one whose queue has that as its last migration.
        `event_channel` is where to NOTIFY of events from then on, `wake_channel` where to NOTIFY sleeping
        workers; None: not at all. Raises InvalidNameError, and Error if there is no such migration.
        """
        from pylonny.templates import Templates

        return Templates(self.schema, event_channel, wake_channel=wake_channel).statements(from_version)

    def _taken(self, rows: Rows) -> list[M] | NotAvailable:
        if rows[0][0] == "MESSAGE_NOT_AVAILABLE":
            return NotAvailable(retry_ms=rows[0][-1])
        return [
            self._message(
                id_,
                channel,
                Content(content),
                None if state is None else Content(state),
                num_attempts,
                is_unlocked,
                _time(unlock_at),
                self._runner,
            )
            for _, id_, channel, content, state, num_attempts, is_unlocked, unlock_at, _ in rows
        ]


class Queue(_Queue[Runner[C], Message[C]]):
    """The queue that is installed in a schema. It holds no connection and no state: any threads may share it.

    queue = Queue("lonny")
    queue.channel("tenant-1").message.create(conn, content="hello", lock_ms=30_000)
    match queue.dequeue(conn):
        case Message() as message:
            message.delete(conn)
        case NotAvailable(retry_ms):
            ...

    `adapter` is for connections other than psycopg's: see pylonny.adapters. Raises InvalidNameError.
    """

    __slots__ = ("message",)

    @overload
    def __init__(self: Queue[psycopg.Connection[Any] | Pool], schema: str = ...) -> None: ...
    @overload
    def __init__(self, schema: str = ..., *, adapter: Callable[[C], Executor]) -> None: ...
    def __init__(self, schema: str = "lonny", *, adapter: Callable[[Any], Executor] = Psycopg) -> None:
        self._message = Message
        self._runner = Runner(schema, adapter)
        self.message: Messages[C] = Messages(self._runner, None)
        """Messages without a channel: they share one turn, first in, first out."""

    def channel(self, name: str) -> Channel[C]:
        """The channel of that name. It need not exist: it is there as long as it has messages or a policy."""
        return Channel(self._runner, name)

    def batch(self) -> Batch[C]:
        """A new batch, which collects messages and policies until it is executed."""
        return Batch(self._runner)

    def events(
        self,
        conn: psycopg.Connection[Any],
        *,
        event_channel: str | None = None,
        timeout: float | None = None,
    ) -> Generator[Event]:
        """Listen, from the first step of the iteration on, and yield what happens in the queue.

        `conn` is one of psycopg's in autocommit mode, and directly to the server. Between two events it may
        be used for anything else. `event_channel`: None asks the queue for it, for which the role needs the
        right to call `_event_channel`. `timeout`: seconds after which the iteration ends; None: never.

        Raises ListenError if there is no event channel, or if `conn` is not one to listen with.
        """
        from pylonny.events import events
        from pylonny.sessions import Session

        return Session(conn).run(events(Queue(self.schema), event_channel, timeout))

    def wait_deleted(
        self,
        conn: psycopg.Connection[Any],
        ids: Iterable[int],
        timeout: float | None = None,
        *,
        event_channel: str | None = None,
    ) -> None:
        """Return when all of these messages are gone, those that were gone before included.

        The arguments are those of `events`. Where the queue has no event channel it looks once a second.
        Raises WaitTimeoutError if after `timeout` seconds one is still there, and ListenError.
        """
        from pylonny.events import wait_deleted
        from pylonny.sessions import Session

        routine = wait_deleted(Queue(self.schema), ids, event_channel, timeout)
        for _ in Session(conn).run(routine):
            pass

    def consume(
        self,
        source: str | psycopg.Connection[Any] | Pool,
        *,
        lock_ms: Duration = 30_000,
        listen: str | None = None,
        poll_ms: Duration = 1000,
        retry: RetryPolicy | None = None,
        stop: Stop | None = None,
    ) -> Generator[Delivery[C]]:
        """Yield one message after the other, and wait where there is none, until told to stop.

            for message in queue.consume(pool, listen="lonny_events"):
                with message, pool.connection() as conn:
                    work(conn, message.content)
                    message.delete(conn)

        The body finishes the message, in a transaction of its own. While it runs, heartbeats keep the message
        locked; if it raises inside of `with message`, the error is logged, and `retry` says what becomes of
        the message: None is Backoff(), which defers it, for ever if need be. If the process dies, the message
        is delivered again `lock_ms` milliseconds later.

        `source` says where the database is: a connection string, or a connection or a pool of psycopg's,
        which is only asked for its parameters. The loop has a connection of its own, and a second one for
        heartbeats; it makes them anew, with back-off, when they are lost. `listen`: an event channel, or any
        on which a NOTIFY says that there may be a message. `poll_ms`: for how many milliseconds at the most
        it waits without looking. `stop`: an event that ends it, after the body in which it is set. SIGTERM
        does the same, in the main thread of a program that does not handle it otherwise.

        Raises ConnectionLostError if there is no database at first, ListenError, DatabaseError.
        """
        from pylonny.consumer import consume

        return consume(
            self._runner, source, lock_ms=lock_ms, listen=listen, poll_ms=poll_ms, retry=retry, stop=stop
        )


class AsyncQueue(_Queue[AsyncRunner[AC], AsyncMessage[AC]]):
    """The queue that is installed in a schema, for connections that are awaited. Any tasks may share it.

    queue = AsyncQueue("lonny")
    await queue.channel("tenant-1").message.create(conn, content="hello", lock_ms=30_000)
    match await queue.dequeue(conn):
        case AsyncMessage() as message:
            await message.delete(conn)
        case NotAvailable(retry_ms):
            ...

    `adapter` is for connections other than psycopg's: see pylonny.adapters. Raises InvalidNameError.
    """

    __slots__ = ("message",)

    @overload
    def __init__(self: AsyncQueue[psycopg.AsyncConnection[Any] | AsyncPool], schema: str = ...) -> None: ...
    @overload
    def __init__(self, schema: str = ..., *, adapter: Callable[[AC], AsyncExecutor]) -> None: ...
    def __init__(
        self, schema: str = "lonny", *, adapter: Callable[[Any], AsyncExecutor] = AsyncPsycopg
    ) -> None:
        self._message = AsyncMessage
        self._runner = AsyncRunner(schema, adapter)
        self.message: AsyncMessages[AC] = AsyncMessages(self._runner, None)
        """Messages without a channel: they share one turn, first in, first out."""

    def channel(self, name: str) -> AsyncChannel[AC]:
        """The channel of that name. It need not exist: it is there as long as it has messages or a policy."""
        return AsyncChannel(self._runner, name)

    def batch(self) -> AsyncBatch[AC]:
        """A new batch, which collects messages and policies until it is executed."""
        return AsyncBatch(self._runner)

    def events(
        self,
        conn: psycopg.AsyncConnection[Any],
        *,
        event_channel: str | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Event]:
        """Listen, from the first step of the iteration on, and yield what happens in the queue.

        See Queue.events.
        """
        from pylonny.events import events
        from pylonny.sessions import AsyncSession

        return AsyncSession(conn).run(events(AsyncQueue(self.schema), event_channel, timeout))

    async def wait_deleted(
        self,
        conn: psycopg.AsyncConnection[Any],
        ids: Iterable[int],
        timeout: float | None = None,
        *,
        event_channel: str | None = None,
    ) -> None:
        """Return when all of these messages are gone, those that were gone before included.

        See Queue.wait_deleted.
        """
        from pylonny.events import wait_deleted
        from pylonny.sessions import AsyncSession

        routine = wait_deleted(AsyncQueue(self.schema), ids, event_channel, timeout)
        async for _ in AsyncSession(conn).run(routine):
            pass

    def consume(
        self,
        source: str | psycopg.AsyncConnection[Any] | AsyncPool,
        *,
        lock_ms: Duration = 30_000,
        listen: str | None = None,
        poll_ms: Duration = 1000,
        retry: RetryPolicy | None = None,
        stop: Stop | None = None,
    ) -> AsyncGenerator[AsyncDelivery[AC]]:
        """Yield one message after the other, and wait where there is none, until told to stop.

            async for message in queue.consume(pool, listen="lonny_events"):
                async with message, pool.connection() as conn:
                    await work(conn, message.content)
                    await message.delete(conn)

        See Queue.consume. Heartbeats are a task of the same loop: a body that blocks it holds them up. Where
        the iteration may be left by a break, contextlib.aclosing closes the connections at once.
        """
        from pylonny.consumer import consume_async

        return consume_async(
            self._runner, source, lock_ms=lock_ms, listen=listen, poll_ms=poll_ms, retry=retry, stop=stop
        )
