"""What the sync and the async classes share: an operation is described once, and run by either.

An operation is a generator. It yields statements with their parameters, is sent the rows that each one
returns, and returns what the caller gets. So everything but the wait for the rows is written once:

    class _Thing(Part[R]):
        @operation
        def rename(self, name: str) -> Operation[bool]:
            [(done,)] = yield self._runner.statements.rename, (name,)
            return done

    thing.rename(conn, "it")        # a part that has a Runner
    await thing.rename(conn, "it")  # a part that has an AsyncRunner
"""

from __future__ import annotations

import functools
import inspect
import shlex
import string
import sys
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    LiteralString,
    ParamSpec,
    Protocol,
    Self,
    cast,
    overload,
)

from psycopg import sql

from pylonny import __version__
from pylonny.errors import DatabaseError, Error, NotInstalledError, VersionMismatchError, translate
from pylonny.templates import check_schema, latest_migration

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    from typing_extensions import TypeVar  # psycopg's own dependency, where typing has less

if TYPE_CHECKING:
    import psycopg

    from pylonny.adapters import AsyncPool, Pool

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# The connections that a queue takes are those that its adapter takes.
C = TypeVar("C", default="psycopg.Connection[Any] | Pool")
AC = TypeVar("AC", default="psycopg.AsyncConnection[Any] | AsyncPool")

Rows = Sequence[Sequence[Any]]
Operation = Generator["tuple[Statement, Sequence[object]]", Rows, T]

_MILLISECOND = timedelta(milliseconds=1)
# What the server says where the queue, or a part of it that a newer one has, is missing.
_MISSING = {"3F000", "42P01", "42703", "42704", "42883"}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement on one schema, in the notations that drivers have for parameters, each there once."""

    numbered: str
    """With $1, $2, as PostgreSQL itself has them."""
    pyformat: str
    """With %s, %s."""
    named: str
    """With :p1, :p2, for SQLAlchemy's text()."""

    @classmethod
    def on(cls, schema: str, text: LiteralString) -> Self:
        """In `text`, {name} is a function or table of `schema`, and {} the next parameter."""
        return cls(
            _fill(text, schema, _NUMBERED),
            _fill(text, schema.replace("%", "%%"), [_FORMAT] * len(_NUMBERED)),
            _fill(text, schema.replace(":", "\\:"), _NAMED),
        )


_NUMBERED = [sql.SQL("$1"), sql.SQL("$2"), sql.SQL("$3"), sql.SQL("$4"), sql.SQL("$5")]
_NAMED = [sql.SQL("(:p1)"), sql.SQL("(:p2)"), sql.SQL("(:p3)"), sql.SQL("(:p4)"), sql.SQL("(:p5)")]
_FORMAT = sql.SQL("%s")


def _fill(text: LiteralString, schema: str, parameters: Sequence[sql.SQL]) -> str:
    names = {name for _, name, _, _ in string.Formatter().parse(text) if name}
    return (
        sql.SQL(text)
        .format(*parameters, **{name: sql.Identifier(schema, name) for name in names})
        .as_string()
    )


class Statements:
    """The statements on one schema. They say which columns they read: the types may grow.

    A time is read in microseconds since 1970, because drivers differ in what they make of a timestamptz.
    """

    def __init__(self, schema: str) -> None:
        self.schema = check_schema(schema)

        def statement(text: LiteralString) -> Statement:
            return Statement.on(schema, text)

        self.create = statement(
            "SELECT {message_create}(channel => {}::text, content => {}::bytea,"
            " lock_ms => {}::bigint, delay_ms => {}::bigint)"
        )
        self.create_many = statement(
            "SELECT id FROM {message_create_many}(channels => {}::text[], contents => {}::bytea[],"
            " lock_ms => {}::bigint[], delay_ms => {}::bigint[]) AS id"
        )
        self.dequeue = statement(
            "SELECT result::text, id, channel, content, state, num_attempts, is_unlocked,"
            " (extract(epoch FROM unlock_at) * 1000000)::bigint, retry_ms"
            " FROM {message_dequeue}(max_messages => {}::integer, lock_ms => {}::bigint)"
        )
        self.delete = statement(
            "SELECT {message_delete}(id => {}::bigint, num_attempts => {}::integer)::text"
        )
        self.delete_many = statement(
            "SELECT result::text"
            " FROM {message_delete_many}(ids => {}::bigint[], num_attempts => {}::integer[])"
        )
        # MATERIALIZED: the delete comes first, and is done once.
        self.dead_letter = statement(
            "WITH deleted AS MATERIALIZED ("
            "SELECT {message_delete}(id => {}::bigint, num_attempts => {}::integer)::text AS result)"
            " SELECT result, CASE WHEN result = 'MESSAGE_DELETED' THEN {message_create}("
            "channel => {}::text, content => {}::bytea, lock_ms => {}::bigint) END FROM deleted"
        )
        self.defer = statement(
            "SELECT {message_defer}(id => {}::bigint, num_attempts => {}::integer,"
            " delay_ms => {}::bigint, state => {}::bytea)::text"
        )
        self.heartbeat = statement(
            "SELECT {message_heartbeat}(id => {}::bigint, num_attempts => {}::integer,"
            " lock_ms => {}::bigint)::text"
        )
        self.cancel = statement("SELECT {message_cancel}(id => {}::bigint)::text")
        self.status = statement(
            "SELECT id, status::text, channel, num_attempts,"
            " (extract(epoch FROM created_at) * 1000000)::bigint,"
            " (extract(epoch FROM dequeue_at) * 1000000)::bigint,"
            " (extract(epoch FROM locked_at) * 1000000)::bigint,"
            " (extract(epoch FROM unlock_at) * 1000000)::bigint"
            " FROM {message_status}(ids => {}::bigint[])"
        )
        self.policy_set = statement(
            "SELECT {channel_policy_set}(channel => {}::text, max_concurrency => {}::integer,"
            " release_interval_ms => {}::bigint)::text"
        )
        self.policy_clear = statement("SELECT {channel_policy_clear}(channel => {}::text)::text")
        self.policy_many = statement(
            "SELECT CASE WHEN p.is_cleared THEN {channel_policy_clear}(channel => p.channel)::text"
            " ELSE {channel_policy_set}(channel => p.channel, max_concurrency => p.max_concurrency,"
            " release_interval_ms => p.release_interval_ms)::text END"
            " FROM unnest({}::text[], {}::integer[], {}::bigint[], {}::boolean[])"
            " AS p (channel, max_concurrency, release_interval_ms, is_cleared)"
        )
        self.event_channel = statement("SELECT {_event_channel}()")
        self.version = statement("SELECT version, package_version, breaking_version FROM {version_status}()")


@functools.lru_cache(maxsize=64)
def statements(schema: str) -> Statements:
    """The statements on `schema`. Raises InvalidNameError."""
    return Statements(schema)


class Executor(Protocol):
    """What an adapter makes of a connection: it runs a statement in the transaction that that one is in."""

    def execute(self, statement: Statement, parameters: Sequence[object], /) -> Rows:
        """The rows that the statement returns."""
        ...


class AsyncExecutor(Protocol):
    """The same, to be awaited."""

    async def execute(self, statement: Statement, parameters: Sequence[object], /) -> Rows:
        """The rows that the statement returns."""
        ...


class Runner(Generic[C]):
    """Runs operations on one schema, over connections that its adapter takes."""

    __slots__ = ("adapter", "statements")

    def __init__(self, schema: str, adapter: Callable[[C], Executor]) -> None:
        self.statements = statements(schema)
        self.adapter = adapter

    def run(self, conn: C, operation: Operation[T]) -> T:
        """What the operation returns. Raises DatabaseError, or the driver's error if it has no SQLSTATE."""
        executor = self.adapter(conn)
        steps = _explained(operation, self.statements)
        try:
            request = next(steps)
            while True:
                try:
                    rows = executor.execute(*request)
                except Exception as error:  # noqa: BLE001 - the operation raises it again
                    request = steps.throw(error)
                else:
                    request = steps.send(rows)
        except StopIteration as stop:
            return cast("T", stop.value)


class AsyncRunner(Generic[AC]):
    """The same, to be awaited."""

    __slots__ = ("adapter", "statements")

    def __init__(self, schema: str, adapter: Callable[[AC], AsyncExecutor]) -> None:
        self.statements = statements(schema)
        self.adapter = adapter

    async def run(self, conn: AC, operation: Operation[T]) -> T:
        """What the operation returns. Raises DatabaseError, or the driver's error if it has no SQLSTATE."""
        executor = self.adapter(conn)
        steps = _explained(operation, self.statements)
        try:
            request = next(steps)
            while True:
                try:
                    rows = await executor.execute(*request)
                except Exception as error:  # noqa: BLE001 - the operation raises it again
                    request = steps.throw(error)
                else:
                    request = steps.send(rows)
        except StopIteration as stop:
            return cast("T", stop.value)


R = TypeVar("R", bound="Runner[Any] | AsyncRunner[Any]")


class Part(Generic[R]):
    """Whatever has operations: a queue and the things that it gives."""

    __slots__ = ("_runner",)

    _runner: R


class Method(Protocol[P, T_co]):
    """An operation as the caller sees it: the connection comes first, and the runner says what to await."""

    @overload
    def __get__(self, part: None, owner: type, /) -> Callable[..., Any]: ...
    @overload
    def __get__(self, part: Part[Runner[C]], owner: type, /) -> Callable[Concatenate[C, P], T_co]: ...
    @overload
    def __get__(
        self, part: Part[AsyncRunner[C]], owner: type, /
    ) -> Callable[Concatenate[C, P], Coroutine[Any, Any, T_co]]: ...


def operation(describe: Callable[Concatenate[Any, P], Operation[T]]) -> Method[P, T]:
    """Make a method that runs on a connection what `describe` describes."""

    @functools.wraps(describe)
    def method(self: Part[Any], conn: object, /, *args: P.args, **kwargs: P.kwargs) -> object:
        return self._runner.run(conn, describe(self, *args, **kwargs))  # pyright: ignore[reportPrivateUsage]

    first, *rest = inspect.signature(describe).parameters.values()
    conn = inspect.Parameter("conn", inspect.Parameter.POSITIONAL_ONLY)
    method.__signature__ = inspect.Signature([first.replace(kind=conn.kind), conn, *rest])  # type: ignore[attr-defined]
    return cast("Method[P, T]", method)


def milliseconds(duration: int | timedelta) -> int:
    """A duration in milliseconds, rounded up; an int is one already."""
    return -(-duration // _MILLISECOND) if isinstance(duration, timedelta) else duration


def optional_milliseconds(duration: int | timedelta | None) -> int | None:
    """The same, where there may be none."""
    return None if duration is None else milliseconds(duration)


def check_version(statements: Statements) -> Operation[None]:
    """Raise NotInstalledError or VersionMismatchError unless the schema's queue is this package's."""
    try:
        rows = yield statements.version, ()
    except Exception as error:
        found = translate(error)
        if found is None or found.sqlstate not in _MISSING:
            raise
        raise _not_installed(statements.schema, found.sqlstate) from error
    version, package, breaking = rows[0]
    version = version or 0  # an empty ledger
    if version == latest_migration():
        return
    queue = f'the queue in schema "{statements.schema}" is that of pylonny {package}, migration {version}'
    if version < latest_migration():
        raise VersionMismatchError(
            f"{queue}: older than this pylonny, {__version__}", _install(statements.schema)
        )
    newer = f"{queue}: newer than this pylonny, {__version__}"
    if (breaking or 0) > latest_migration():
        raise VersionMismatchError(newer, "upgrade pylonny")
    import logging

    logging.getLogger("pylonny").warning("%s, which can still use it", newer)


def _explained(operation: Operation[T], statements: Statements) -> Operation[T]:
    """The operation, with errors of pylonny in place of the driver's."""
    try:
        return (yield from operation)
    except Error:
        raise
    except Exception as error:
        found = translate(error)
        if found is None:
            raise
        if found.sqlstate in _MISSING:
            found = yield from _explain(found, statements)
        raise found from error


def _explain(error: DatabaseError, statements: Statements) -> Operation[DatabaseError]:
    """Say why something is missing, if the transaction can still be asked."""
    try:
        yield from check_version(statements)
    except NotInstalledError as found:
        return found
    except Exception:  # noqa: BLE001 - the transaction is aborted, or the role may not look
        if error.sqlstate == "3F000":
            return _not_installed(statements.schema, error.sqlstate)
        return NotInstalledError(
            f'the queue in schema "{statements.schema}" is not installed, or does not go with this pylonny,'
            f" {__version__}: {error.message}",
            f"{_install(statements.schema)}, or upgrade pylonny if that refuses",
            error.sqlstate,
        )
    return error


def _not_installed(schema: str, sqlstate: str) -> NotInstalledError:
    return NotInstalledError(f'there is no queue of pylonny in schema "{schema}"', _install(schema), sqlstate)


def _install(schema: str) -> str:
    option = "" if schema == "lonny" else f" --schema {shlex.quote(schema)}"
    return f"run  python -m pylonny install{option}"
