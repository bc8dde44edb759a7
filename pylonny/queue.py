"""The queue from Python: a method for each function in SQL, over a psycopg connection that the caller has.

Nothing is decided here, and nothing is committed: every call is part of the transaction that the connection
is in, or its own if the connection is in autocommit mode. Errors are psycopg's. Times are in milliseconds,
which `_ms` says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from pylonny.results import DeferResult, DeleteResult, HeartbeatResult

_Connection = psycopg.Connection[Any]
_Bytes = bytes | bytearray | memoryview


class _Statements:
    """The SQL of one schema's functions. It says which columns it reads: the types may grow."""

    def __init__(self, schema: str) -> None:
        def statement(text: LiteralString, function: str) -> sql.Composed:
            return sql.SQL(text).format(sql.Identifier(schema, function))

        self.create = statement(
            "SELECT {}(channel => %s::text, content => %b::bytea,"
            " lock_ms => %s::bigint, delay_ms => %s::bigint)",
            "message_create",
        )
        self.dequeue = statement(
            "SELECT result::text, id, channel, content, state, num_attempts, is_unlocked, unlock_at, retry_ms"
            " FROM {}(max_messages => %s::integer, lock_ms => %s::bigint)",
            "message_dequeue",
        )
        self.delete = statement(
            "SELECT {}(id => %s::bigint, num_attempts => %s::integer)::text", "message_delete"
        )
        self.defer = statement(
            "SELECT {}(id => %s::bigint, num_attempts => %s::integer,"
            " delay_ms => %s::bigint, state => %b::bytea)::text",
            "message_defer",
        )
        self.heartbeat = statement(
            "SELECT {}(id => %s::bigint, num_attempts => %s::integer, lock_ms => %s::bigint)::text",
            "message_heartbeat",
        )
        self.policy_set = statement(
            "SELECT {}(channel => %s::text, max_concurrency => %s::integer,"
            " release_interval_ms => %s::bigint)",
            "channel_policy_set",
        )
        self.policy_clear = statement("SELECT {}(channel => %s::text)", "channel_policy_clear")


def _rows(conn: _Connection, statement: sql.Composed, *values: object) -> list[tuple[Any, ...]]:
    # Not conn.cursor(): the connection may have factories for other cursors and other rows.
    # In binary, because content in text format is twice as long.
    with psycopg.Cursor(conn, row_factory=tuple_row) as cur:
        return cur.execute(statement, values, binary=True).fetchall()


def _value(conn: _Connection, statement: sql.Composed, *values: object) -> Any:  # noqa: ANN401
    [(value,)] = _rows(conn, statement, *values)
    return value


@dataclass(frozen=True, slots=True)
class NotAvailable:
    """No message can be had at the moment."""

    retry_ms: int | None
    """Milliseconds until something that is known already can become available; None if nothing is known."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was dequeued, and is locked until `unlock_at` for whoever knows its `num_attempts`."""

    id: int
    channel: str
    """The channel that it was created in, or a random name if in none."""
    content: bytes
    state: bytes | None
    """What the last defer left with it; None if nothing did."""
    num_attempts: int
    """How often it was dequeued, this time included: the fencing token of delete, defer and heartbeat."""
    is_unlocked: bool
    """True if the lock of the delivery before expired: its worker is presumed dead."""
    unlock_at: datetime
    """When the lock expires, by the server's clock, as of the dequeue."""
    _statements: _Statements = field(repr=False, compare=False)

    def delete(self, conn: _Connection) -> DeleteResult:
        """Remove the message: it is done."""
        return DeleteResult(_value(conn, self._statements.delete, self.id, self.num_attempts))

    def defer(self, conn: _Connection, delay_ms: int = 0, state: _Bytes | None = None) -> DeferResult:
        """Give the message back, to be dequeued again in `delay_ms` milliseconds.

        `state` comes with it then; None keeps the one that it has.
        """
        return DeferResult(_value(conn, self._statements.defer, self.id, self.num_attempts, delay_ms, state))

    def heartbeat(self, conn: _Connection, lock_ms: int | None = None) -> HeartbeatResult:
        """Extend the lock to `lock_ms` milliseconds from now, None for the message's own time. Never waits.

        Commit it at once: until then nobody else sees it.
        """
        return HeartbeatResult(_value(conn, self._statements.heartbeat, self.id, self.num_attempts, lock_ms))


class Messages:
    """The messages of a queue, or of one channel of it: see Queue.message and Channel.message."""

    __slots__ = ("_channel", "_statements")

    def __init__(self, statements: _Statements, channel: str | None) -> None:
        self._statements = statements
        self._channel = channel

    def create(self, conn: _Connection, content: _Bytes, lock_ms: int, delay_ms: int = 0) -> int:
        """Put a message in and return its id.

        `lock_ms`: for how many milliseconds a dequeue locks it, and a heartbeat from then on. `delay_ms`: how
        many it waits before it can be dequeued; a negative number puts it ahead of others in its channel.
        """
        created: int = _value(conn, self._statements.create, self._channel, content, lock_ms, delay_ms)
        return created


class Policy:
    """What limits a channel: see Channel.policy. A change binds all dequeues that begin after its commit."""

    __slots__ = ("_channel", "_statements")

    def __init__(self, statements: _Statements, channel: str) -> None:
        self._statements = statements
        self._channel = channel

    def set(
        self, conn: _Connection, max_concurrency: int | None = None, release_interval_ms: int | None = None
    ) -> None:
        """Replace the channel's limits.

        `max_concurrency`: how many of its messages may be locked at a time; None: any number, 0: a pause.
        `release_interval_ms`: how many milliseconds pass between two of its dequeues; None or 0: any.
        """
        _rows(conn, self._statements.policy_set, self._channel, max_concurrency, release_interval_ms)

    def clear(self, conn: _Connection) -> None:
        """Remove all limits of the channel."""
        _rows(conn, self._statements.policy_clear, self._channel)


class Channel:
    """One channel of a queue: its messages, and the policy that limits them. Making one asks no database."""

    __slots__ = ("message", "name", "policy")

    def __init__(self, statements: _Statements, name: str) -> None:
        self.name = name
        self.message = Messages(statements, name)
        self.policy = Policy(statements, name)


class Queue:
    """The queue that is installed in a schema. It holds no connection and no state: any threads may share it.

    queue = Queue("lonny")
    queue.channel("tenant-1").message.create(conn, content=b"hello", lock_ms=30_000)
    message = queue.dequeue(conn)
    if isinstance(message, Message):
        message.delete(conn)
    """

    __slots__ = ("_statements", "message", "schema")

    def __init__(self, schema: str = "lonny") -> None:
        self.schema = schema
        self._statements = _Statements(schema)
        self.message = Messages(self._statements, None)
        """Messages without a channel: they share one turn, first in, first out."""

    def channel(self, name: str) -> Channel:
        """The channel of that name. It need not exist: it is there as long as it has messages or a policy."""
        return Channel(self._statements, name)

    def dequeue(self, conn: _Connection, lock_ms: int | None = None) -> Message | NotAvailable:
        """Take the next message in rotation over the channels, and lock it for `lock_ms` milliseconds.

        None locks it for the time that its producer gave. Commit it at once: the lock is in the row, not in
        the transaction.
        """
        taken = self.dequeue_many(conn, 1, lock_ms)
        return taken if isinstance(taken, NotAvailable) else taken[0]

    def dequeue_many(
        self, conn: _Connection, max_messages: int, lock_ms: int | None = None
    ) -> list[Message] | NotAvailable:
        """Take up to `max_messages`, in the order in which as many calls of `dequeue` would give them."""
        rows = _rows(conn, self._statements.dequeue, max_messages, lock_ms)
        if rows[0][0] == "MESSAGE_NOT_AVAILABLE":
            return NotAvailable(retry_ms=rows[0][-1])
        return [self._message(*row[1:-1]) for row in rows]

    def _message(self, *values: Any) -> Message:  # noqa: ANN401
        fields: Any = (*values, self._statements)
        return Message(*fields)
