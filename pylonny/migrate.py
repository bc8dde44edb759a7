"""Installing a queue into a schema, taking it out again, and looking at what is installed.

An install is one transaction that holds the schema's lock: it runs the migrations that the schema's ledger
does not have yet, and everything else again. So any number of installs may run at once, and any may be
stopped. Where it has to change tables it keeps everybody out of the queue while it does, and before that
waits only so long for those who are in it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from importlib.resources.abc import Traversable
from typing import Any, Final, Literal, LiteralString, NamedTuple, cast

import psycopg
from psycopg import generators, sql
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.rows import tuple_row

from pylonny import __version__
from pylonny.errors import InstallError
from pylonny.templates import (
    DEFAULT_SCHEMA,
    LOCK_TIMEOUT_MS,
    SCHEMA_COMMENT,
    SETTINGS,
    Template,
    Templates,
    check_schema,
    quote_identifier,
    quote_literal,
)

_Connection = psycopg.Connection[Any]
_Cursor = psycopg.Cursor[tuple[Any, ...]]

# What the templates create in the schema, in the order in which it can be dropped: functions take and return
# rows of views and tables, views read tables, tables have columns of our types. Indexes and such go with
# their tables.
_KINDS: tuple[LiteralString, ...] = ("FUNCTION", "VIEW", "TABLE", "SEQUENCE", "TYPE")
_CREATE = re.compile(
    rf"^CREATE (?:OR REPLACE )?(?:UNLOGGED )?(?P<kind>{'|'.join(_KINDS)}) {{{{ schema }}}}\.(?P<name>\w+)",
    re.MULTILINE,
)
_RENAME = re.compile(
    rf"^ALTER (?P<kind>{'|'.join(_KINDS)}) {{{{ schema }}}}\.\w+ RENAME TO (?P<name>\w+)", re.MULTILINE
)


# How often an install tries, and for how long it lets the queue work in between: at first, and at most.
ATTEMPTS = 10
_PAUSE = 0.5  # seconds
_LONGEST_PAUSE = 8.0  # seconds
_IN_THE_WAY = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)


class Keep(Enum):
    """The type of KEEP."""

    CHANNEL = "keep the channel that is installed"


KEEP: Final = Keep.CHANNEL


@dataclass(frozen=True, slots=True)
class Installed:
    """What an install did."""

    schema: str
    version: int
    """Of the last migration: the version that the schema has now."""
    applied: tuple[str, ...]
    """Paths of the migrations that this install ran; empty if there was nothing to migrate."""
    event_channel: str | None
    """The channel that events go to; None if there are none."""
    newer: str | None = None
    """The version of the pylonny that the queue is of, if it is a newer one: then nothing was changed."""
    wake_channel: str | None = None
    """The channel on which sleeping workers are woken; None if they are not."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an install would do."""

    schema: str
    version: int | None
    """Of the last migration that is installed; None if there is no queue yet."""
    pending: tuple[str, ...]
    """Paths of the migrations that would be run; if there are any, and a queue, it is locked for a moment."""
    replaced: tuple[str, ...]
    """Paths of the other files whose text is not the one that was installed. All of them would be run."""
    event_channel: str | None
    """The channel that events would go to; None: no events."""
    newer: str | None = None
    """The version of the pylonny that the queue is of, if it is a newer one: then nothing would be done."""
    wake_channel: str | None = None
    """The channel on which sleeping workers would be woken; None: they would not."""


@dataclass(frozen=True, slots=True)
class Uninstalled:
    """What an uninstall did."""

    schema: str
    dropped_schema: bool
    remaining: tuple[str, ...]
    """What else lives in the schema, and keeps it, as in "table lonny.mine"."""


@dataclass(frozen=True, slots=True)
class Installation:
    """One installed queue. What the role that looks may not read is None; `readable` says whether it may."""

    schema: str
    owner: str
    readable: bool
    version: int | None
    package_version: str | None
    """The version of the pylonny that installed it last."""
    event_channel: str | None
    pending: tuple[str, ...] = ()
    """Paths of the migrations that this package has and the schema has not."""
    drift: tuple[str, ...] = ()
    """What is not as it was installed, as in "table message: index message_ready_idx is missing"."""
    wake_channel: str | None = None
    extension: str | None = None
    """The extension that it belongs to, which installs and drops it; None if it was installed."""


def install(
    conn: _Connection,
    schema: str = DEFAULT_SCHEMA,
    event_channel: str | Keep | None = KEEP,
    *,
    root: Traversable | None = None,
    to: int | None = None,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
    attempts: int = ATTEMPTS,
    wake_channel: str | Keep | None = KEEP,
) -> Installed:
    """Install the queue into `schema`, or bring the one that is there up to date.

    `event_channel`: where to NOTIFY, None for no events, KEEP for what is installed (none at first); the same
    of `wake_channel`, where sleeping workers are woken. `root` is another folder of templates. `to` is the
    migration that the schema has afterwards, as a precaution: it is refused if this package would take it to
    another one. It is one transaction, or a savepoint of the one that `conn` is in.

    Where there are migrations to run, it waits for the transactions that have used the queue, and everybody
    else waits for it: so it gives up after `lock_timeout_ms` milliseconds, and tries again after a pause, up
    to `attempts` times. A queue of a newer pylonny is left as it is, unless that one says that this one
    cannot use it.

    Raises InvalidNameError, and InstallError if the schema is not ours, or that of an extension, if this role
    may not do it, if the server is older than PostgreSQL 15, if the ledger does not go with the migrations of
    this package, or if others did not let it in.
    """
    for attempt in range(1, attempts + 1):
        try:
            return _install(conn, schema, _Channels(event_channel, wake_channel), root, to, lock_timeout_ms)
        except _BusyError as error:
            if attempt == attempts:
                raise _still_busy(conn, schema, lock_timeout_ms, attempts) from error.__cause__
            time.sleep(min(_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE))
    raise ValueError(f"attempts must be 1 or more, not {attempts}")


def _install(
    conn: _Connection,
    schema: str,
    channels: _Channels,
    root: Traversable | None,
    to: int | None,
    lock_timeout_ms: int,
) -> Installed:
    templates = channels.templates(schema, root)
    with _transaction(conn) as cur:
        _run(cur, templates.opening())
        plan = _plan(cur, templates, channels, to)
        if plan.newer is not None:
            return Installed(schema, plan.version or 0, (), plan.event_channel, plan.newer, plan.wake_channel)
        templates = Templates(schema, plan.event_channel, root, wake_channel=plan.wake_channel)
        beginning = ""
        if plan.version is not None:
            beginning = templates.patience(lock_timeout_ms)
            if plan.pending:
                beginning += templates.lock_queue()
        files = [file for file in templates.files if file.version is None or file.path in plan.pending]
        # All at once, so that a distant server does not keep everybody out for a round trip a file.
        _run_all(
            cur,
            {"": beginning}
            | {file.path: templates.file(file) for file in files}
            | {"the ledger": templates.record()},
        )
        version = max(file.version or 0 for file in templates.files)
        return Installed(schema, version, plan.pending, plan.event_channel, wake_channel=plan.wake_channel)


def plan(
    conn: _Connection,
    schema: str = DEFAULT_SCHEMA,
    event_channel: str | Keep | None = KEEP,
    *,
    root: Traversable | None = None,
    to: int | None = None,
    wake_channel: str | Keep | None = KEEP,
) -> Plan:
    """What an install with these arguments would do. It changes nothing, and locks nothing.

    Raises InvalidNameError, and InstallError if the queue belongs to an extension, or if the ledger does not
    go with the migrations of this package.
    """
    channels = _Channels(event_channel, wake_channel)
    templates = channels.templates(schema, root)
    with _transaction(conn) as cur:
        _refuse_extension(cur, schema, "bring it up to date with  ALTER EXTENSION {} UPDATE")
        return _plan(cur, templates, channels, to)


class _Channels(NamedTuple):
    """What an install was told of the channels to NOTIFY on."""

    event: str | Keep | None
    wake: str | Keep | None

    def templates(self, schema: str, root: Traversable | None) -> Templates:
        """The templates, without what is to be kept. Raises InvalidNameError."""
        event, wake = (None if name is KEEP else name for name in self)
        return Templates(schema, event, root, wake_channel=wake)


def _plan(cur: _Cursor, templates: Templates, channels: _Channels, to: int | None) -> Plan:
    schema, files = templates.schema, templates.files
    ledger = _read_ledger(cur, schema)
    version = max(ledger, default=None)
    applied = _read_templates(cur, schema) if ledger else {}
    newer = _newer(files, ledger, applied, schema)
    _refuse_changed(files, ledger, schema)
    installed = _read_channel(cur, schema, "event"), _read_channel(cur, schema, "wake")
    event, wake = wanted = tuple(
        old if new is KEEP else new for old, new in zip(installed, channels, strict=True)
    )
    latest = max(file.version or 0 for file in files)
    if newer is not None:
        latest = version or latest
        if wanted != installed:
            raise InstallError(
                f'the queue in schema "{schema}" is of pylonny {newer}; this is {__version__}, which does not'
                " set its channels",
                "upgrade pylonny",
            )
    if to is not None and to != latest:
        raise InstallError(
            f'schema "{schema}" would have migration {latest} then, not {to}: that is the last one of'
            f" pylonny {newer or __version__}",
            "install the pylonny whose last migration that is",
        )
    replaced = [
        file
        for file in files
        if file.version is None and applied.get(file.path, _NONE).checksum != file.checksum
    ]
    return Plan(
        schema,
        version,
        () if newer else _pending(files, ledger),
        () if newer else tuple(file.path for file in replaced),
        event,
        newer,
        wake,
    )


def uninstall(
    conn: _Connection, schema: str = DEFAULT_SCHEMA, *, root: Traversable | None = None
) -> Uninstalled:
    """Drop the queue in `schema`, messages and all; the schema too, if install created it and it is empty.

    Nothing of anybody else's is dropped: what lives in the schema stays and keeps the schema; what depends on
    the queue, as a view of a table, stops the uninstall. It is one transaction, or a savepoint of the one
    that `conn` is in. `root` is another folder of templates.

    Raises InvalidNameError, and InstallError if there is no queue of ours, or that of an extension, if
    something depends on it, or if this role may not drop it.
    """
    templates = Templates(schema, None, root)
    with _transaction(conn) as cur:
        _run(cur, templates.lock())
        _refuse_strangers(cur, schema)
        _refuse_extension(cur, schema, "drop it with  DROP EXTENSION {}")
        _refuse_newer(templates.files, _read_ledger(cur, schema), schema)
        _revoke_all(cur, schema)
        _drop(cur, schema, created(templates.files))
        remaining = tuple(f"{found.kind} {found.identity}" for found in _objects(cur, schema))
        row = cur.execute(
            "SELECT obj_description(n.oid, 'pg_namespace') FROM pg_namespace n WHERE n.nspname = %s", [schema]
        ).fetchone()
        drop_schema = not remaining and row == (SCHEMA_COMMENT,)
        if drop_schema:
            cur.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(schema)))
        return Uninstalled(schema, drop_schema, remaining)


def grant(
    conn: _Connection,
    role: str,
    kind: str,
    schema: str = DEFAULT_SCHEMA,
    channel_prefix: str | None = None,
) -> None:
    """Make a role a "producer", a "consumer" or an "operator" of the queue in `schema`.

    `channel_prefix` is what the channels begin with that a producer is bound to; None, all channels. The SQL
    function role_grant, which this calls, says more.

    Raises InstallError if there is no such role, kind or queue, or if this role may not grant it.
    """
    _call_as_owner(conn, schema, "role_grant", role, kind, channel_prefix)


def revoke(conn: _Connection, role: str, kind: str, schema: str = DEFAULT_SCHEMA) -> None:
    """Take back what `grant` has given; it does no harm if that was nothing. Raises as that does."""
    _call_as_owner(conn, schema, "role_revoke", role, kind)


def _call_as_owner(conn: _Connection, schema: str, function: LiteralString, *arguments: str | None) -> None:
    with _transaction(conn) as cur:
        _refuse_strangers(cur, schema)
        values = sql.SQL(", ").join(sql.Placeholder() * len(arguments))
        cur.execute(
            sql.SQL("SELECT {}({})").format(sql.Identifier(check_schema(schema), function), values), arguments
        )


def created(files: Iterable[Template]) -> set[tuple[str, str]]:
    """Kind and name of everything that the templates create in the schema, as in ("TABLE", "message")."""
    return {
        (match["kind"], match["name"])
        for file in files
        for pattern in (_CREATE, _RENAME)
        for match in pattern.finditer(file.text)
    }


def check_installed(conn: _Connection, schema: str) -> None:
    """Raise InstallError if there is no queue in `schema`."""
    with _transaction(conn) as cur:
        if not _find(cur, schema):
            raise not_installed(schema)


def status(conn: _Connection, *, root: Traversable | None = None) -> list[Installation]:
    """Every queue that is installed in the database, in the order of the schemas' names.

    What it says of pending migrations and of drift is what the templates of this package, or those in the
    folder `root`, have to do with it.
    """
    files = Templates(root=root).files
    with _transaction(conn) as cur:
        return [
            _installation(cur, files, found)
            if found.readable
            else Installation(found.schema, found.owner, False, None, None, None, extension=found.extension)
            for found in _find(cur)
        ]


def _installation(cur: _Cursor, files: list[Template], found: _Found) -> Installation:
    schema = found.schema
    ledger = _read_ledger(cur, schema)
    applied = _read_templates(cur, schema)
    return Installation(
        schema,
        found.owner,
        True,
        max(ledger, default=None),
        max((row.package_version for row in [*ledger.values(), *applied.values()]), key=_order, default=None),
        _read_channel(cur, schema, "event"),
        _pending(files, ledger),
        tuple(_drift(cur, schema, files)),
        _read_channel(cur, schema, "wake"),
        found.extension,
    )


class _Found(NamedTuple):
    """A queue, and whether this role may look at its ledger and channels."""

    schema: str
    owner: str
    readable: bool
    extension: str | None


class _Row(NamedTuple):
    """A row of the ledger."""

    checksum: str
    package_version: str
    is_breaking: bool = False


_NONE = _Row("", "")


class _BusyError(InstallError):
    """Others were in the way: it may be tried again."""


class _Object(NamedTuple):
    """Something that lives in a schema; `identity` is quoted, schema and arguments included."""

    kind: str
    name: str | None
    identity: str


def not_installed(schema: str) -> InstallError:
    """The error for a schema without a queue."""
    return InstallError(
        f'there is no queue of pylonny in schema "{schema}"',
        "see what is installed with  python -m pylonny status",
    )


@contextmanager
def _transaction(conn: _Connection) -> Generator[_Cursor]:
    """A cursor in a transaction, or a savepoint, whose end leaves the caller's settings as they were.

    Whatever the database refuses becomes an InstallError, and everything is rolled back.
    """
    try:
        # Not conn.cursor(): the connection may have factories for other cursors and other rows.
        with conn.transaction(), psycopg.Cursor(conn, row_factory=tuple_row) as cur:
            kept = cur.execute(
                "SELECT n, pg_catalog.current_setting(n) FROM pg_catalog.unnest(%s::pg_catalog.text[]) AS n",
                [list(SETTINGS)],
            ).fetchall()
            cur.execute("SET LOCAL search_path = pg_catalog, pg_temp")
            yield cur
            names, values = map(list, zip(*kept, strict=True))
            cur.execute(
                "SELECT set_config(s.name, s.value, true)"
                " FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
                [names, values],
            )
    except psycopg.Error as error:
        raise _refusal(error) from error


def _run(cur: _Cursor, text: str) -> None:
    """Run rendered SQL, which may be many statements."""
    try:
        cur.execute(_trusted(text), prepare=False)  # they are many, and the connection may prepare everything
    except psycopg.Error as error:
        raise _refusal(error) from error


def _run_all(cur: _Cursor, texts: Mapping[str, str]) -> None:
    """Run rendered SQL of many files, by path, in one round trip; errors say in which file, and which line.

    psycopg keeps only the last result of a script that fails, so this is what its cursor does underneath.
    """
    conn, script, starts = cur.connection, "", dict[str, int]()
    for path, text in texts.items():
        script += f"SELECT {quote_literal(path)} AS pylonny_file;\n"
        starts[path] = len(script)
        script += f"{text}\n"
    with conn.lock:
        conn.pgconn.send_query(script.encode(conn.info.encoding))
        results = conn.wait(generators.execute(conn.pgconn))
    path = ""
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            error = error_from_result(result, conn.info.encoding)
            position = error.diag.statement_position
            line = script.count("\n", starts[path], int(position) - 1) + 1 if position else None
            place = f"{path}, line {line}: " if path and line else f"{path}: " if path else ""
            refusal = _refusal(error, place)
            raise (_BusyError(*refusal.args) if isinstance(error, _IN_THE_WAY) else refusal) from error
        if result.nfields and result.fname(0) == b"pylonny_file":
            path = (result.get_value(0, 0) or b"").decode()


def _trusted(text: str) -> sql.SQL:
    """SQL that is as good as a literal, which no type checker can know.

    It is either a template of ours with names that pylonny.templates has quoted, or an identity that the
    server has.
    """
    return sql.SQL(cast(LiteralString, text))  # type: ignore[redundant-cast]


def _refusal(error: psycopg.Error, place: str = "") -> InstallError:
    diag = error.diag
    return InstallError(
        place + (diag.message_primary or str(error)), diag.message_hint or diag.message_detail or ""
    )


def _still_busy(conn: _Connection, schema: str, lock_timeout_ms: int, attempts: int) -> InstallError:
    """The error of an install that was not let in, which says by whom: whoever is longest in the queue."""
    with _transaction(conn) as cur:
        row = cur.execute(
            """
            SELECT a.pid, a.usename, a.application_name, a.state,
                   round(extract(epoch FROM clock_timestamp() - a.xact_start))
            FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.granted AND l.relation = to_regclass(%s) AND l.pid <> pg_backend_pid()
            ORDER BY a.xact_start LIMIT 1
            """,
            [quote_identifier(schema) + ".message"],
        ).fetchone()
    message = (
        f'the queue in schema "{schema}" was in use whenever it was to be changed, {attempts} times in'
        f" {lock_timeout_ms / 1000:g} s each"
    )
    if row is None:
        return InstallError(message, "try again when there is less to do")
    pid, user, application, state, seconds = row
    by = f'session {pid} of role "{user}"' + (f" ({application})" if application else "")
    since = "" if seconds is None else f", {state}, in a transaction for {seconds} s"
    return InstallError(
        f"{message}; now it is by {by}{since}",
        "end that transaction, or give more time with --lock-timeout, and try again",
    )


def _read_ledger(cur: _Cursor, schema: str) -> dict[int, _Row]:
    """The ledger by version, empty where there is none yet."""
    if cur.execute("SELECT to_regclass(%s)", [quote_identifier(schema) + ".migration"]).fetchone() == (None,):
        return {}
    query = sql.SQL("SELECT version, checksum, package_version, is_breaking FROM {} ORDER BY version")
    rows = cur.execute(query.format(sql.Identifier(schema, "migration"))).fetchall()
    return {version: _Row(*row) for version, *row in rows}


def _pending(files: Iterable[Template], ledger: dict[int, _Row]) -> tuple[str, ...]:
    """Paths of the migrations that are not in the ledger."""
    return tuple(file.path for file in files if file.version is not None and file.version not in ledger)


def _read_templates(cur: _Cursor, schema: str) -> dict[str, _Row]:
    """The ledger of what every install runs, by path."""
    query = sql.SQL("SELECT path, checksum, package_version FROM {}")
    rows = cur.execute(query.format(sql.Identifier(schema, "template"))).fetchall()
    return {path: _Row(*row) for path, *row in rows}


def _drift(cur: _Cursor, schema: str, files: list[Template]) -> list[str]:
    """What the catalog says now that it did not say at the end of the install, one line each.

    Things of somebody else's are none of ours, unless they are parts of ours, as an index of our table.
    """
    rows = cur.execute(
        sql.SQL(
            """
            SELECT kind, name, part, CASE WHEN b.checksum IS NULL THEN 'was added'
                                          WHEN a.checksum IS NULL THEN 'is missing' ELSE 'differs' END
            FROM {} b FULL JOIN {}() a USING (kind, name, part)
            WHERE b.checksum IS DISTINCT FROM a.checksum
            ORDER BY kind, name, part
            """
        ).format(sql.Identifier(schema, "object"), sql.Identifier(schema, "_objects"))
    ).fetchall()
    ours = {(kind.lower(), name) for kind, name in created(files)}
    return [
        f"{kind} {name}({part}) {what}"
        if kind == "function"
        else f"{kind} {name}{f': {part}' if part else ''} {what}"
        for kind, name, part, what in rows
        if (kind, name) in ours
    ]


def _read_channel(cur: _Cursor, schema: str, what: Literal["event", "wake"]) -> str | None:
    name = f"_{what}_channel"
    if cur.execute("SELECT to_regprocedure(%s)", [f"{quote_identifier(schema)}.{name}()"]).fetchone() == (
        None,
    ):
        return None
    row = cur.execute(sql.SQL("SELECT {}()").format(sql.Identifier(schema, name))).fetchone()
    return row[0] if row else None


def _refuse_changed(files: Iterable[Template], ledger: dict[int, _Row], schema: str) -> None:
    """Raise InstallError if the ledger has a migration of which this package has another text."""
    for file in files:
        if file.version in ledger and ledger[file.version].checksum != file.checksum:
            raise InstallError(
                f'{file.path} is not what was run in schema "{schema}"',
                "a released migration is frozen: restore the file, and make the change in a new one",
            )


def _newer(
    files: Iterable[Template], ledger: dict[int, _Row], applied: dict[str, _Row], schema: str
) -> str | None:
    """The version of the pylonny that the queue is of, if it is newer than this one.

    Raises InstallError if that one has made changes that this one cannot live with.
    """
    unknown = ledger.keys() - {file.version for file in files}
    for version in sorted(unknown):
        if ledger[version].is_breaking:
            raise _refused(schema, version, ledger[version])
    rows = [*(ledger[version] for version in unknown), *applied.values()]
    found = max((row.package_version for row in rows), key=_order, default=__version__)
    return found if unknown or _order(found) > _order(__version__) else None


def _refuse_strangers(cur: _Cursor, schema: str) -> None:
    """Raise InstallError if there is no queue in `schema`, or if it is not this role's."""
    found = _find(cur, schema)
    if not found:
        raise not_installed(schema)
    owner = found[0].owner
    if cur.execute("SELECT pg_has_role(%s, 'USAGE')", [owner]).fetchone() != (True,):
        raise InstallError(
            f'the queue in schema "{schema}" belongs to role "{owner}"',
            f'connect as "{owner}", or as a role that is a member of it',
        )


def _refuse_extension(cur: _Cursor, schema: str, remedy: str) -> None:
    """Raise InstallError if the queue in `schema` belongs to an extension; `remedy` has {} for its name."""
    for found in _find(cur, schema):
        if found.extension is not None:
            raise InstallError(
                f'the queue in schema "{schema}" belongs to the extension "{found.extension}"',
                remedy.format(found.extension),
            )


def _revoke_all(cur: _Cursor, schema: str) -> None:
    """Take back what was granted to roles: the right to use the schema, which may stay, would stay too."""
    functions = [quote_identifier(schema) + name for name in ("._roles()", ".role_revoke(text, text)")]
    found = cur.execute("SELECT to_regprocedure(%s), to_regprocedure(%s)", functions).fetchone()
    if found is None or None in found:
        return  # the queue is damaged, and goes all the same
    query = sql.SQL(
        "SELECT {}(pg_get_userbyid(r.role), r.kind) FROM (SELECT DISTINCT role, kind FROM {}()) AS r"
    )
    cur.execute(query.format(sql.Identifier(schema, "role_revoke"), sql.Identifier(schema, "_roles")))


def _refuse_newer(files: Iterable[Template], ledger: dict[int, _Row], schema: str) -> None:
    """Raise InstallError if the ledger has a migration that this package does not know."""
    for version in sorted(ledger.keys() - {file.version for file in files}):
        raise _refused(schema, version, ledger[version])


def _refused(schema: str, version: int, row: _Row) -> InstallError:
    newer = f"migration {version}, of pylonny {row.package_version}"
    return InstallError(
        f'the queue in schema "{schema}" has {newer}; this is {__version__}, which does not know it',
        "upgrade pylonny",
    )


def _order(version: str) -> tuple[int, ...]:
    """What versions of the package are compared by."""
    return tuple(map(int, re.findall(r"[0-9]+", version)[:3]))


def _find(cur: _Cursor, schema: str | None = None) -> list[_Found]:
    """Every queue, or that in the schema, if there is one."""
    rows = cur.execute(
        """
        SELECT n.nspname::text, pg_get_userbyid(c.relowner)::text,
               has_schema_privilege(n.oid, 'USAGE')
               AND (SELECT bool_and(has_table_privilege(t.oid, 'SELECT'))
                    FROM pg_class t
                    WHERE t.relnamespace = n.oid AND t.relname IN ('migration', 'template', 'object'))
               AND (SELECT coalesce(bool_and(has_function_privilege(p.oid, 'EXECUTE')), true)
                    FROM pg_proc p
                    WHERE p.pronamespace = n.oid
                      AND p.proname IN ('_event_channel', '_wake_channel', '_objects')),
               x.extname::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
        LEFT JOIN pg_extension x ON x.oid = d.refobjid
        WHERE c.relname = 'migration' AND c.relkind = 'r'
          AND obj_description(c.oid, 'pg_class') LIKE 'pylonny%%'
          AND n.nspname = coalesce(%s, n.nspname)
        ORDER BY n.nspname
        """,
        [schema],
    ).fetchall()
    return [_Found(*row) for row in rows]


def _objects(cur: _Cursor, schema: str) -> list[_Object]:
    """What lives in the schema by itself: not as a part of another object, or of an extension."""
    rows = cur.execute(
        """
        SELECT o.type, coalesce(c.relname, p.proname, t.typname)::text, o.identity
        FROM pg_namespace n
        JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid AND d.deptype = 'n'
        CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) o
        LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
        LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
        LEFT JOIN pg_type t ON d.classid = 'pg_type'::regclass AND t.oid = d.objid
        WHERE n.nspname = %s
          AND NOT EXISTS (
            SELECT FROM pg_depend whole
            WHERE whole.classid = d.classid AND whole.objid = d.objid AND whole.objsubid = 0
              AND whole.deptype IN ('a', 'i', 'e')
          )
        ORDER BY o.type, o.identity
        """,
        [schema],
    ).fetchall()
    return [_Object(*row) for row in rows]


def _drop(cur: _Cursor, schema: str, ours: set[tuple[str, str]]) -> None:
    """Drop our objects, and only if nothing else depends on them."""
    objects = _objects(cur, schema)
    for kind in _KINDS:
        # The server has quoted the identities, which have the arguments of functions in them.
        identities = [
            _trusted(found.identity)
            for found in objects
            if found.kind == kind.lower() and (kind, found.name) in ours
        ]
        if not identities:
            continue
        try:
            cur.execute(sql.SQL("DROP {} {}").format(sql.SQL(kind), sql.SQL(", ").join(identities)))
        except psycopg.errors.DependentObjectsStillExist as error:
            dependents = (error.diag.message_detail or "").replace("\n", ", ")
            raise InstallError(f"something else needs this queue: {dependents}", "drop that first") from error
