"""What takes more than statements: routines, which also listen, wait, and give something on the way.

Like an operation, a routine is a generator that is written once. What it yields, a Session performs, or an
AsyncSession that awaits it, over one connection of psycopg.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from pylonny.adapters import AsyncPsycopg, Psycopg
from pylonny.errors import ConnectionLostError, Error, ListenError, translate
from pylonny.operations import AsyncRunner, Operation, Runner

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Do(Generic[T]):
    """Run an operation; the answer is what it returns."""

    operation: Operation[T]


@dataclass(frozen=True, slots=True)
class Listen:
    """Listen to a channel of PostgreSQL's until the end of the routine."""

    channel: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for notifications, for some seconds or, None, without end; the answer is their payloads."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Give:
    """Give this to whoever iterates."""

    value: Any


Step = Do[Any] | Listen | Wait | Give
Routine = Generator[Step, Any, None]

_PID = "SELECT pg_catalog.pg_backend_pid()"


class Session:
    """Performs routines over a connection."""

    def __init__(self, schema: str, conn: psycopg.Connection[Any]) -> None:
        self._runner = Runner(schema, Psycopg)
        self._conn = conn
        self._channels: list[str] = []

    def run(self, routine: Routine) -> Generator[Any]:
        """Perform a routine to its end, and yield what it gives."""
        try:
            step = next(routine)
            while True:
                answer = None
                if isinstance(step, Give):
                    yield step.value
                else:
                    try:
                        answer = self._perform(step)
                    except Exception as error:  # noqa: BLE001 - the routine raises it again
                        step = routine.throw(explained(error, self._conn))
                        continue
                step = routine.send(answer)
        except StopIteration:
            return
        finally:
            with suppress(psycopg.Error):
                for channel in self._channels:
                    self._conn.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)))

    def _perform(self, step: Do[Any] | Listen | Wait) -> Any:  # noqa: ANN401
        match step:
            case Do(operation):
                return self._runner.run(self._conn, operation)
            case Listen(channel):
                _check_mode(self._conn)
                with psycopg.Cursor(self._conn) as cur:
                    _check_direct(self._conn, cur.execute(_PID).fetchone())
                    cur.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                self._channels.append(channel)
            case Wait(seconds):
                # All of them, since the connection is of no use as long as there may be more.
                return [found.payload for found in self._conn.notifies(timeout=seconds, stop_after=1)]
        return None


class AsyncSession:
    """The same, to be awaited."""

    def __init__(self, schema: str, conn: psycopg.AsyncConnection[Any]) -> None:
        self._runner = AsyncRunner(schema, AsyncPsycopg)
        self._conn = conn
        self._channels: list[str] = []

    async def run(self, routine: Routine) -> AsyncGenerator[Any]:
        """Perform a routine to its end, and yield what it gives."""
        try:
            step = next(routine)
            while True:
                answer = None
                if isinstance(step, Give):
                    yield step.value
                else:
                    try:
                        answer = await self._perform(step)
                    except Exception as error:  # noqa: BLE001 - the routine raises it again
                        step = routine.throw(explained(error, self._conn))
                        continue
                step = routine.send(answer)
        except StopIteration:
            return
        finally:
            with suppress(psycopg.Error):
                for channel in self._channels:
                    await self._conn.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)))

    async def _perform(self, step: Do[Any] | Listen | Wait) -> Any:  # noqa: ANN401
        match step:
            case Do(operation):
                return await self._runner.run(self._conn, operation)
            case Listen(channel):
                _check_mode(self._conn)
                async with psycopg.AsyncCursor(self._conn) as cur:
                    await cur.execute(_PID)
                    _check_direct(self._conn, await cur.fetchone())
                    await cur.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                self._channels.append(channel)
            case Wait(seconds):
                found = self._conn.notifies(timeout=seconds, stop_after=1)
                return [notification.payload async for notification in found]
        return None


def explained(error: Exception, conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> Exception:
    """The error to raise for one that may be psycopg's: ConnectionLostError if it cost the connection."""
    if isinstance(error, Error):
        return error
    found = translate(error)
    if conn.closed and isinstance(error, psycopg.OperationalError):
        found = ConnectionLostError(str(error).splitlines()[0], "", error.sqlstate or "")
    if found is None:
        return error
    found.__cause__ = error
    return found


def _check_mode(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    if not conn.autocommit or conn.info.transaction_status != TransactionStatus.IDLE:
        raise ListenError(
            "listening takes a connection in autocommit mode, outside of a transaction",
            "connect with autocommit=True",
        )


def _check_direct(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], row: Any) -> None:  # noqa: ANN401
    """A pooler such as PgBouncer shows a process of its own at first, and others later."""
    if row[0] != conn.info.backend_pid:
        raise ListenError(
            "listening takes a connection of its own, and this one goes through a pooler",
            "connect to the server itself, or do without listening",
        )
