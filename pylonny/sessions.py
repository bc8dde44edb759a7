"""What takes more than statements: routines, which also listen and wait, and give something on the way.

Like an operation, a routine is a generator that is written once. What it yields, a Session performs, or an
AsyncSession that awaits it, over a connection of psycopg.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from pylonny.errors import ConnectionLostError, Error, ListenError, translate

_CONNECT_TIMEOUT = 10  # seconds, where the connection string says nothing
_PID = "SELECT pg_catalog.pg_backend_pid()"

AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection, in place of the one that there was."""


@dataclass(frozen=True, slots=True)
class Do:
    """Call a method of a queue, or of a message, with the connection; the answer is what it returns."""

    call: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Listen:
    """Listen to a channel of PostgreSQL's until the end of the routine."""

    channel: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for notifications, for some seconds or, None, without end; the answer is their payloads."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let some seconds pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Give:
    """Give this to whoever iterates."""

    value: Any


Step = Connect | Do | Listen | Wait | Sleep | Give
Routine = Generator[Step, Any, None]


class Session:
    """Performs routines over a connection, or over one that they open themselves, by `conninfo`."""

    def __init__(self, conn: psycopg.Connection[Any] | None = None, conninfo: str = "") -> None:
        self._conn: Any = conn
        self._conninfo = conninfo

    def run(self, routine: Routine) -> Generator[Any]:
        """Perform a routine to its end, and yield what it gives."""
        channels: list[str] = []
        try:
            step = next(routine)
            while True:
                answer = None
                if isinstance(step, Give):
                    yield step.value
                else:
                    try:
                        answer = self._perform(step, channels)
                    except Exception as error:  # noqa: BLE001 - the routine raises it again
                        step = routine.throw(_explained(error, self._conn))
                        continue
                step = routine.send(answer)
        except StopIteration:
            return
        finally:
            routine.close()
            with suppress(psycopg.Error):
                for channel in channels:
                    self._conn.execute(_unlisten(channel))

    def close(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            self._conn.close()

    def _perform(self, step: Connect | Do | Listen | Wait | Sleep, channels: list[str]) -> Any:  # noqa: ANN401
        match step:
            case Connect():
                self.close()
                self._conn = None
                channels.clear()
                self._conn = psycopg.connect(_with_timeout(self._conninfo), autocommit=True)
                if _is_pooled(self._conn, self._conn.execute(_PID).fetchone()):
                    self._conn.prepare_threshold = None
            case Do(call):
                return call(self._conn)
            case Listen(channel):
                with psycopg.Cursor(_checked(self._conn)) as cur:
                    _check_direct(self._conn, cur.execute(_PID).fetchone())
                    cur.execute(_listen(channel))
                channels.append(channel)
            case Wait(seconds):
                # All of them, since the connection is of no use as long as there may be more.
                return [found.payload for found in self._conn.notifies(timeout=seconds, stop_after=1)]
            case Sleep(seconds):
                time.sleep(seconds)
        return None


class AsyncSession:
    """The same, to be awaited."""

    def __init__(self, conn: psycopg.AsyncConnection[Any] | None = None, conninfo: str = "") -> None:
        self._conn: Any = conn
        self._conninfo = conninfo

    async def run(self, routine: Routine) -> AsyncGenerator[Any]:
        """Perform a routine to its end, and yield what it gives."""
        channels: list[str] = []
        try:
            step = next(routine)
            while True:
                answer = None
                if isinstance(step, Give):
                    yield step.value
                else:
                    try:
                        answer = await self._perform(step, channels)
                    except Exception as error:  # noqa: BLE001 - the routine raises it again
                        step = routine.throw(_explained(error, self._conn))
                        continue
                step = routine.send(answer)
        except StopIteration:
            return
        finally:
            routine.close()
            with suppress(psycopg.Error):
                for channel in channels:
                    await self._conn.execute(_unlisten(channel))

    async def close(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            await self._conn.close()

    async def _perform(self, step: Connect | Do | Listen | Wait | Sleep, channels: list[str]) -> Any:  # noqa: ANN401
        match step:
            case Connect():
                await self.close()
                self._conn = None
                channels.clear()
                conninfo = _with_timeout(self._conninfo)
                self._conn = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
                if _is_pooled(self._conn, await (await self._conn.execute(_PID)).fetchone()):
                    self._conn.prepare_threshold = None
            case Do(call):
                return await call(self._conn)
            case Listen(channel):
                async with psycopg.AsyncCursor(_checked(self._conn)) as cur:
                    _check_direct(self._conn, await (await cur.execute(_PID)).fetchone())
                    await cur.execute(_listen(channel))
                channels.append(channel)
            case Wait(seconds):
                found = self._conn.notifies(timeout=seconds, stop_after=1)
                return [notification.payload async for notification in found]
            case Sleep(seconds):
                await asyncio.sleep(seconds)
        return None


def conninfo_of(conn: AnyConnection) -> str:
    """What another connection to the same database is made with."""
    return make_conninfo(conn.info.dsn, **{"password": conn.info.password} if conn.info.password else {})


def _with_timeout(conninfo: str) -> str:
    given = conninfo_to_dict(conninfo)
    return make_conninfo(conninfo, connect_timeout=given.get("connect_timeout", _CONNECT_TIMEOUT))


def _listen(channel: str) -> sql.Composed:
    return sql.SQL("LISTEN {}").format(sql.Identifier(channel))


def _unlisten(channel: str) -> sql.Composed:
    return sql.SQL("UNLISTEN {}").format(sql.Identifier(channel))


def _checked(conn: Any) -> Any:  # noqa: ANN401
    if not conn.autocommit or conn.info.transaction_status != TransactionStatus.IDLE:
        raise ListenError(
            "listening takes a connection in autocommit mode, outside of a transaction",
            "connect with autocommit=True",
        )
    return conn


def _is_pooled(conn: AnyConnection, row: Any) -> bool:  # noqa: ANN401
    """A pooler such as PgBouncer shows a process of its own at first, and the server's later."""
    return bool(row[0] != conn.info.backend_pid)


def _check_direct(conn: AnyConnection, row: Any) -> None:  # noqa: ANN401
    if _is_pooled(conn, row):
        raise ListenError(
            "listening takes a connection to the server itself, and this one goes through a pooler",
            "connect directly, or do without listening",
        )


def _explained(error: Exception, conn: AnyConnection | None) -> Exception:
    """The error to raise for one that may be psycopg's: ConnectionLostError if there is no connection now."""
    if isinstance(error, Error):
        return error
    found = translate(error)
    if isinstance(error, psycopg.OperationalError) and (conn is None or conn.closed):
        found = ConnectionLostError(str(error).splitlines()[0], "", error.sqlstate or "")
    if found is None:
        return error
    found.__cause__ = error
    return found
