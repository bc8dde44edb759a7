"""Installing a queue into a schema, taking it out again, and looking at what is installed.

An install is one transaction that holds the schema's lock: it runs the migrations that the schema's ledger
does not have yet, and everything else again. So any number of installs may run at once, and any may be
stopped.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, LiteralString, NamedTuple, cast

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from pylonny import __version__
from pylonny.errors import InstallError
from pylonny.templates import DEFAULT_SCHEMA, SCHEMA_COMMENT, Template, Templates, quote_identifier

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


class Keep(Enum):
    """The type of KEEP."""

    EVENT_CHANNEL = "keep the event channel that is installed"


KEEP: Final = Keep.EVENT_CHANNEL


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
    """The version of pylonny that ran the last migration."""
    event_channel: str | None


def install(
    conn: _Connection,
    schema: str = DEFAULT_SCHEMA,
    event_channel: str | Keep | None = KEEP,
    *,
    root: Path | None = None,
) -> Installed:
    """Install the queue into `schema`, or bring the one that is there up to date.

    `event_channel`: where to NOTIFY, None for no events, KEEP for what is installed (none at first). `root`
    is another folder of templates. It is one transaction, or a savepoint of the one that `conn` is in.

    Raises InvalidNameError, and InstallError if the schema is not ours, if this role may not do it, if the
    server is older than PostgreSQL 15, or if the ledger does not go with the migrations of this package.
    """
    first = Templates(schema, None if event_channel is KEEP else event_channel, root)
    with _transaction(conn) as cur:
        _run(cur, first.opening())
        ledger = _read_ledger(cur, schema)
        pending = _pending(first.files, ledger, schema)
        if event_channel is KEEP:
            event_channel = _read_event_channel(cur, schema)
        templates = Templates(schema, event_channel, root)
        for file in templates.files:
            if file.version is None or file in pending:
                _run(cur, templates.file(file), file.path)
        return Installed(
            schema, max(_read_ledger(cur, schema)), tuple(file.path for file in pending), event_channel
        )


def uninstall(conn: _Connection, schema: str = DEFAULT_SCHEMA, *, root: Path | None = None) -> Uninstalled:
    """Drop the queue in `schema`, messages and all; the schema too, if install created it and it is empty.

    Nothing of anybody else's is dropped: what lives in the schema stays and keeps the schema; what depends on
    the queue, as a view of a table, stops the uninstall. It is one transaction, or a savepoint of the one
    that `conn` is in. `root` is another folder of templates.

    Raises InvalidNameError, and InstallError if there is no queue of ours, if something depends on it, or if
    this role may not drop it.
    """
    templates = Templates(schema, None, root)
    with _transaction(conn) as cur:
        _run(cur, templates.lock())
        owners = {name: owner for name, owner, _ in _find(cur)}
        if schema not in owners:
            raise not_installed(schema)
        if cur.execute("SELECT pg_has_role(%s, 'USAGE')", [owners[schema]]).fetchone() != (True,):
            raise InstallError(
                f'the queue in schema "{schema}" belongs to role "{owners[schema]}"',
                f'connect as "{owners[schema]}", or as a role that is a member of it',
            )
        _refuse_newer(templates.files, _read_ledger(cur, schema), schema)
        _drop(cur, schema, created(templates.files))
        remaining = tuple(f"{found.kind} {found.identity}" for found in _objects(cur, schema))
        row = cur.execute(
            "SELECT obj_description(n.oid, 'pg_namespace') FROM pg_namespace n WHERE n.nspname = %s", [schema]
        ).fetchone()
        drop_schema = not remaining and row == (SCHEMA_COMMENT,)
        if drop_schema:
            cur.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(schema)))
        return Uninstalled(schema, drop_schema, remaining)


def created(files: Iterable[Template]) -> set[tuple[str, str]]:
    """Kind and name of everything that the templates create in the schema, as in ("TABLE", "message")."""
    return {(match["kind"], match["name"]) for file in files for match in _CREATE.finditer(file.text)}


def status(conn: _Connection) -> list[Installation]:
    """Every queue that is installed in the database, in the order of the schemas' names."""
    with _transaction(conn) as cur:
        return [
            Installation(schema, owner, True, *_read_version(cur, schema), _read_event_channel(cur, schema))
            if readable
            else Installation(schema, owner, False, None, None, None)
            for schema, owner, readable in _find(cur)
        ]


class _Row(NamedTuple):
    """A row of the ledger."""

    checksum: str
    package_version: str


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
            settings = cur.execute(
                "SELECT pg_catalog.current_setting('search_path'),"
                " pg_catalog.current_setting('standard_conforming_strings'),"
                " pg_catalog.current_setting('client_min_messages')"
            ).fetchone()
            cur.execute("SET LOCAL search_path = pg_catalog, pg_temp")
            yield cur
            cur.execute(
                "SELECT pg_catalog.set_config('search_path', %s, true),"
                " pg_catalog.set_config('standard_conforming_strings', %s, true),"
                " pg_catalog.set_config('client_min_messages', %s, true)",
                settings,
            )
    except psycopg.Error as error:
        raise _refusal(error) from error


def _run(cur: _Cursor, text: str, path: str = "") -> None:
    """Run rendered SQL, which may be many statements; `path` is the template's, for the error."""
    try:
        cur.execute(_trusted(text))
    except psycopg.Error as error:
        position = error.diag.statement_position
        line = text.count("\n", 0, int(position) - 1) + 1 if position else None
        place = f"{path}, line {line}: " if path and line else f"{path}: " if path else ""
        raise _refusal(error, place) from error


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


def _read_ledger(cur: _Cursor, schema: str) -> dict[int, _Row]:
    """The ledger by version, empty where there is none yet."""
    if cur.execute("SELECT to_regclass(%s)", [quote_identifier(schema) + ".migration"]).fetchone() == (None,):
        return {}
    query = sql.SQL("SELECT version, checksum, package_version FROM {} ORDER BY version")
    rows = cur.execute(query.format(sql.Identifier(schema, "migration"))).fetchall()
    return {version: _Row(*row) for version, *row in rows}


def _read_event_channel(cur: _Cursor, schema: str) -> str | None:
    function = quote_identifier(schema) + "._event_channel()"
    if cur.execute("SELECT to_regprocedure(%s)", [function]).fetchone() == (None,):
        return None
    row = cur.execute(sql.SQL("SELECT {}()").format(sql.Identifier(schema, "_event_channel"))).fetchone()
    return row[0] if row else None


def _pending(files: list[Template], ledger: dict[int, _Row], schema: str) -> list[Template]:
    """The migrations that the ledger does not have. Raises InstallError if its past is not this package's."""
    _refuse_newer(files, ledger, schema)
    migrations = {file.version: file for file in files if file.version is not None}
    for version, row in ledger.items():
        if row.checksum != migrations[version].checksum:
            raise InstallError(
                f'{migrations[version].path} is not what was run in schema "{schema}"',
                "a released migration is frozen: restore the file, and make the change in a new one",
            )
    return [file for version, file in migrations.items() if version not in ledger]


def _refuse_newer(files: Iterable[Template], ledger: dict[int, _Row], schema: str) -> None:
    """Raise InstallError if the ledger has a migration that this package does not know."""
    for version in sorted(ledger.keys() - {file.version for file in files}):
        newer = f"migration {version}, of pylonny {ledger[version].package_version}"
        raise InstallError(
            f'the queue in schema "{schema}" has {newer}; this is {__version__}, which does not know it',
            "upgrade pylonny",
        )


def _find(cur: _Cursor) -> list[tuple[str, str, bool]]:
    """Schema and owner of every queue, and whether this role may look at its ledger and event channel."""
    return cur.execute(
        """
        SELECT n.nspname::text, pg_get_userbyid(c.relowner)::text,
               has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
               AND coalesce((SELECT has_function_privilege(p.oid, 'EXECUTE')
                             FROM pg_proc p
                             WHERE p.pronamespace = n.oid AND p.proname = '_event_channel'), true)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = 'migration' AND c.relkind = 'r'
          AND obj_description(c.oid, 'pg_class') LIKE 'pylonny%'
        ORDER BY n.nspname
        """
    ).fetchall()


def _read_version(cur: _Cursor, schema: str) -> tuple[int | None, str | None]:
    version, row = max(_read_ledger(cur, schema).items(), default=(None, None))
    return version, row and row.package_version


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
