"""Adapters: what makes a queue work over the connections of a database client.

    queue = Queue("lonny", adapter=SQLAlchemy)
    queue.message.create(session, content="hello", lock_ms=30_000)

An adapter is a callable, here a class, that takes such a connection and returns an Executor (or an
AsyncExecutor), whose `execute` runs one statement in the transaction that the connection is in, and returns
the rows. One for another client is as small as those here: the statement comes in several notations for its
parameters, which are int, str, bytes, bool, None and lists of those; rows are sequences, in which a bytea is
any bytes-like object.

None of the clients is imported here but psycopg.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, LiteralString, Protocol, cast

import psycopg
from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from sqlalchemy import TextClause
    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

    from pylonny.operations import Rows, Statement


class Pool(Protocol):
    """What the pools of psycopg_pool are."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection, to be committed and given back at the end of the block."""
        ...


class AsyncPool(Protocol):
    """What the asynchronous pools of psycopg_pool are."""

    def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
        """A connection, to be committed and given back at the end of the block."""
        ...


class AsyncpgConnection(Protocol):
    """What the connections and pools of asyncpg are."""

    async def fetch(self, query: str, /, *args: object) -> Sequence[Sequence[Any]]:
        """The rows that a query returns."""
        ...


class DjangoConnection(Protocol):
    """What the connections of Django are."""

    def cursor(self) -> AbstractContextManager[Any]:
        """A cursor, to be closed at the end of the block."""
        ...


class Psycopg:
    """For psycopg: a Connection, or a pool, which gives each call a transaction of its own."""

    __slots__ = ("_conn",)

    def __init__(self, conn: psycopg.Connection[Any] | Pool) -> None:
        self._conn = conn

    def execute(self, statement: Statement, parameters: Sequence[object]) -> Rows:
        """The rows that the statement returns."""
        if not isinstance(self._conn, psycopg.Connection):
            with self._conn.connection() as conn:
                return Psycopg(conn).execute(statement, parameters)
        # Not conn.cursor(): the connection may have factories for other cursors and other rows.
        # In binary, because content in text format is twice as long.
        with psycopg.RawCursor(self._conn, row_factory=tuple_row) as cur:
            return cur.execute(_trusted(statement), parameters, binary=True).fetchall()


class AsyncPsycopg:
    """For psycopg: an AsyncConnection, or a pool, which gives each call a transaction of its own."""

    __slots__ = ("_conn",)

    def __init__(self, conn: psycopg.AsyncConnection[Any] | AsyncPool) -> None:
        self._conn = conn

    async def execute(self, statement: Statement, parameters: Sequence[object]) -> Rows:
        """The rows that the statement returns."""
        if not isinstance(self._conn, psycopg.AsyncConnection):
            async with self._conn.connection() as conn:
                return await AsyncPsycopg(conn).execute(statement, parameters)
        async with psycopg.AsyncRawCursor(self._conn, row_factory=tuple_row) as cur:
            await cur.execute(_trusted(statement), parameters, binary=True)
            return await cur.fetchall()


class Asyncpg:
    """For asyncpg: a Connection, or a Pool, which gives each call a transaction of its own."""

    __slots__ = ("_conn",)

    def __init__(self, conn: AsyncpgConnection) -> None:
        self._conn = conn

    async def execute(self, statement: Statement, parameters: Sequence[object]) -> Rows:
        """The rows that the statement returns."""
        return await self._conn.fetch(statement.numbered, *parameters)


class SQLAlchemy:
    """For SQLAlchemy 2: a Session or a Connection, in the transaction that it begins or is in."""

    __slots__ = ("_conn",)

    def __init__(self, conn: Session | scoped_session[Any] | Connection) -> None:
        self._conn = conn

    def execute(self, statement: Statement, parameters: Sequence[object]) -> Rows:
        """The rows that the statement returns."""
        return self._conn.execute(_text(statement), _named(parameters)).all()


class AsyncSQLAlchemy:
    """For SQLAlchemy 2: an AsyncSession or an AsyncConnection, in the transaction that it begins or is in."""

    __slots__ = ("_conn",)

    def __init__(self, conn: AsyncSession | async_scoped_session[Any] | AsyncConnection) -> None:
        self._conn = conn

    async def execute(self, statement: Statement, parameters: Sequence[object]) -> Rows:
        """The rows that the statement returns."""
        return (await self._conn.execute(_text(statement), _named(parameters))).all()


class Django:
    """For Django: `django.db.connection` or one of `connections`, in autocommit or in transaction.atomic."""

    __slots__ = ("_conn",)

    def __init__(self, conn: DjangoConnection) -> None:
        self._conn = conn

    def execute(self, statement: Statement, parameters: Sequence[object]) -> Rows:
        """The rows that the statement returns."""
        with self._conn.cursor() as cur:
            cur.execute(statement.pyformat, parameters)
            rows: Rows = cur.fetchall()
            return rows


def _trusted(statement: Statement) -> LiteralString:
    """A statement of ours is as good as a literal, which no type checker can know."""
    return cast("LiteralString", statement.numbered)  # type: ignore[redundant-cast]


@functools.lru_cache(maxsize=256)
def _text(statement: Statement) -> TextClause:
    from sqlalchemy import text

    return text(statement.named)


def _named(parameters: Sequence[object]) -> dict[str, object]:
    return {f"p{number}": value for number, value in enumerate(parameters, 1)}
