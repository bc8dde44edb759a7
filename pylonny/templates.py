"""The SQL templates: where they are, how names are quoted in them, how they are rendered.

`install.sql` is the table of contents. Its include statements, and nothing else, say which files there are
and in which order they run: migrations, each run once and then recorded in the ledger, and everything else,
run by every install. Names may have in them what PostgreSQL allows: quotes, capitals, our own dollar tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from pylonny import __version__
from pylonny.errors import Error, InvalidNameError

if TYPE_CHECKING:
    import jinja2

DEFAULT_SCHEMA = "lonny"
CONTENTS = "install.sql"
# Says that an uninstall may drop the schema: it was not there before.
SCHEMA_COMMENT = "pylonny: a message queue. Created by its install, dropped by its uninstall."
MAX_NAME_BYTES = 63  # NAMEDATALEN - 1; PostgreSQL cuts longer identifiers off without an error

# An install that changes tables gives up after this long, and tries again: who came after it waits for it.
# Longer than PostgreSQL's deadlock_timeout, after which an autovacuum makes room.
LOCK_TIMEOUT_MS = 2000

_MIGRATION = re.compile(r"migrations/(?P<version>[0-9]{4})_(?P<name>[a-z0-9_]+)\.sql")
# The line in the header of a migration after which older packages cannot use the schema.
_BREAKING = re.compile(r"^-- Breaking: \S", re.MULTILINE)
# What a semicolon may be in without ending a statement.
_TOKEN = re.compile(
    r"""--[^\n]*|'(?:[^']|'')*'|"(?:[^"]|"")*"|(?P<tag>\$[a-z_]*\$).*?(?P=tag)|[^-'"$;]+|.""", re.DOTALL
)
_DOLLAR_TAG = re.compile(r"\$(?P<tag>[a-z]+)\$")

# What install and uninstall begin with: one of them at a time in a schema. The lock's key is one of 64 bits;
# those of the queue are two of 32.
_LOCK = """\
-- The search path is that of the functions; no notices about what is normal.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL standard_conforming_strings = on;
SET LOCAL client_min_messages = warning;
DO $do$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended({{ schema_literal }}, 0));
END
$do$;
"""

# Another isolation level would look at the schema as it was before the lock was had.
READ_COMMITTED = """\
DO $do$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an install needs the isolation level READ COMMITTED, not %',
            upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'active_sql_transaction', HINT = 'run it in a transaction of its own';
    END IF;
END
$do$;
"""

# What every install goes on with. After it the schema exists, and is ours or empty.
OPENING = """\
DO $do$
DECLARE
    v_schema pg_namespace.oid%TYPE;
    v_owner name;
    v_extension name;
BEGIN
    IF current_setting('server_version_num')::integer < 150000 THEN
        RAISE EXCEPTION 'PostgreSQL 15 or newer is needed, this server is %',
            current_setting('server_version')
            USING ERRCODE = 'feature_not_supported', HINT = 'upgrade the server, or use another';
    END IF;

    LOOP
        SELECT n.oid INTO v_schema FROM pg_namespace n WHERE n.nspname = {{ schema_literal }};
        EXIT WHEN FOUND;
        IF NOT has_database_privilege(current_database(), 'CREATE') THEN
            RAISE EXCEPTION 'role "%" may not create schema "%" in database "%"',
                current_user, {{ schema_literal }}, current_database()
                USING ERRCODE = 'insufficient_privilege',
                    HINT = format(
                        'have its owner run  GRANT CREATE ON DATABASE %1$I TO %2$I  '
                        'or  CREATE SCHEMA %3$I AUTHORIZATION %2$I',
                        current_database(), current_user, {{ schema_literal }});
        END IF;
        BEGIN
            CREATE SCHEMA {{ schema }};
            COMMENT ON SCHEMA {{ schema }} IS {{ schema_comment }};
            RETURN;
        EXCEPTION WHEN unique_violation OR duplicate_schema THEN
            NULL;  -- Somebody created it meanwhile, not with an install: look at it.
        END;
    END LOOP;

    SELECT pg_get_userbyid(c.relowner), x.extname INTO v_owner, v_extension
    FROM pg_class c
    LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    LEFT JOIN pg_extension x ON x.oid = d.refobjid
    WHERE c.relnamespace = v_schema AND c.relname = 'migration'
      AND obj_description(c.oid, 'pg_class') LIKE 'pylonny%';
    IF FOUND THEN
        -- Its scripts bring an extension up to date, and nothing else: they are what a dump relies on.
        IF v_extension IS NOT NULL THEN
            RAISE EXCEPTION 'the queue in schema "%" belongs to the extension "%"',
                {{ schema_literal }}, v_extension
                USING ERRCODE = 'object_not_in_prerequisite_state',
                    HINT = format('bring it up to date with  ALTER EXTENSION %I UPDATE', v_extension);
        END IF;
        -- Functions of several owners in one queue could not be replaced by any one of them.
        IF v_owner <> current_user THEN
            RAISE EXCEPTION 'the queue in schema "%" belongs to role "%", not to "%"',
                {{ schema_literal }}, v_owner, current_user
                USING ERRCODE = 'insufficient_privilege',
                    HINT = format('connect as "%s", or become it with PGOPTIONS="-c role=%1$s"', v_owner);
        END IF;
    ELSIF EXISTS (
        SELECT FROM pg_depend d
        WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = v_schema AND d.deptype = 'n'
    ) THEN
        RAISE EXCEPTION 'schema "%" is not empty and not a queue of pylonny', {{ schema_literal }}
            USING ERRCODE = 'duplicate_schema', HINT = 'choose another schema, or empty this one';
    ELSIF NOT (has_schema_privilege(v_schema, 'CREATE') AND has_schema_privilege(v_schema, 'USAGE')) THEN
        RAISE EXCEPTION 'role "%" may not create anything in schema "%"', current_user, {{ schema_literal }}
            USING ERRCODE = 'insufficient_privilege',
                HINT = format('have its owner run  GRANT CREATE, USAGE ON SCHEMA %I TO %I',
                    {{ schema_literal }}, current_user);
    END IF;
END
$do$;
"""

# Where a rendering starts from. An install has looked instead, and leaves out what is there already.
_FRESH = """\
DO $do$
BEGIN
    IF EXISTS (
        SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = {{ schema_literal }} AND c.relname = 'migration'
    ) THEN
        RAISE EXCEPTION 'schema "%" has a queue already, this script is for one that has none',
            {{ schema_literal }}
            USING ERRCODE = 'duplicate_schema', HINT = 'bring it up to date with  python -m pylonny install';
    END IF;
END
$do$;
"""
_FROM = """\
DO $do$
DECLARE
    v_version integer;
    v_is_changed boolean;
BEGIN
    IF EXISTS (
        SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = {{ schema_literal }} AND c.relname = 'migration'
    ) THEN
        SELECT max(m.version), bool_or(m.checksum <> k.checksum) INTO v_version, v_is_changed
        FROM {{ schema }}.migration m LEFT JOIN (VALUES {{ known }}) AS k (version, checksum) USING (version);
    END IF;
    IF v_version IS DISTINCT FROM {{ version }} OR v_is_changed THEN
        RAISE EXCEPTION 'schema "%" has %, this script is for one with migration {{ version }} of pylonny',
            {{ schema_literal }},
            CASE WHEN v_version IS NULL THEN 'no queue'
                WHEN v_is_changed THEN 'migrations that were changed'
                ELSE 'migration ' || v_version END
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'see what is installed with  python -m pylonny status';
    END IF;
END
$do$;
"""

# What an install goes on with where there is a queue. An update that has to wait for others' transactions
# has all who come after it wait too, so it waits only so long.
_PATIENCE = """\
SET LOCAL lock_timeout = {{ lock_timeout_ms }};
"""
# Every call of the queue comes by the table of messages before it changes anything, so nobody is halfway
# through one while tables, types and functions change. See "Upgrading under load" in sql/README.md.
_LOCK_QUEUE = """\
LOCK TABLE {{ schema }}.message IN ACCESS EXCLUSIVE MODE;
"""

# Around an install in a transaction that goes on after it.
SETTINGS = ("search_path", "standard_conforming_strings", "client_min_messages", "lock_timeout")
_KEEP_SETTINGS = """\
SELECT pg_catalog.set_config(pg_catalog.concat('pylonny.', n), pg_catalog.current_setting(n), true)
FROM pg_catalog.unnest({{ settings }}) AS n;
"""
_RESTORE_SETTINGS = """\
SELECT set_config(n, current_setting('pylonny.' || n), true)
FROM unnest({{ settings }}) AS n;
"""

# The catalog is taken down anew after a migration; see _RECORD.
_LEDGER_ROW = """\
INSERT INTO {{ schema }}.migration (version, name, checksum, package_version, is_breaking, applied_at)
VALUES ({{ version }}, {{ name }}, {{ checksum }}, {{ package_version }}, {{ breaking }}, clock_timestamp());
DELETE FROM {{ schema }}.object;
"""

# The end of every install. Of tables, types and so on it takes down only what migrations have made: if
# somebody else has changed them, it stays visible.
_RECORD = """\
DELETE FROM {{ schema }}.template;
INSERT INTO {{ schema }}.template (path, checksum, package_version, applied_at) VALUES
{{ rows }};

DELETE FROM {{ schema }}.object WHERE kind = 'function';
INSERT INTO {{ schema }}.object (kind, name, part, checksum)
SELECT o.kind, o.name, o.part, o.checksum
  FROM {{ schema }}._objects() o
 WHERE o.kind = 'function' OR NOT EXISTS (SELECT FROM {{ schema }}.object);
"""


def find() -> Traversable:
    """The folder of the templates: the package's own, or that of the checkout that it is run from.

    It is a Path, unless the package is imported from a zip. Raises Error if it is in neither place.
    """
    checkout = Path(__file__).resolve().parents[1]
    for folder in (files("pylonny") / "sql", checkout / "sql"):
        if (folder / CONTENTS).is_file():
            return folder
    raise Error("the SQL templates are missing from this installation of pylonny", "install it again")


@cache
def latest_migration() -> int:
    """The version that this package installs: the number of its last migration."""
    names = (file.name for file in (find() / "migrations").iterdir())
    return max(int(name[:4]) for name in names if name.endswith(".sql"))


def quote_identifier(name: str) -> str:
    """`name` as a quoted identifier. Raises InvalidNameError if PostgreSQL cannot have such a name."""
    _check_name(name)
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """`text` as a string literal that means the same whatever standard_conforming_strings is."""
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in quoted else quoted


def check_schema(name: str) -> str:
    """`name`, if a queue's schema can have it, else InvalidNameError."""
    _check_name(name)
    if name.startswith("pg_"):
        raise InvalidNameError(
            f'"{name}" cannot be the name of a schema', 'PostgreSQL keeps the prefix "pg_" to itself'
        )
    return name


def check_notify_channel(name: str) -> str:
    """`name`, if one can NOTIFY on it, else InvalidNameError."""
    _check_name(name)
    return name


def _check_name(name: str) -> None:
    hint = f"give a name of 1 to {MAX_NAME_BYTES} bytes without a zero byte"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidNameError(f"the name {name!r} is not valid UTF-8", hint) from None
    if not name:
        raise InvalidNameError("an empty name is none", hint)
    if size > MAX_NAME_BYTES:
        raise InvalidNameError(f'"{name}" is too long for a name in PostgreSQL: {size} bytes', hint)
    if "\0" in name:
        raise InvalidNameError(f"the name {name!r} has a zero byte in it", hint)


@dataclass(frozen=True)
class Template:
    """One file that install.sql includes: its path below the folder of the templates, and its text."""

    path: str
    text: str

    @property
    def version(self) -> int | None:
        """The number of a migration; None for what every install runs."""
        match = _MIGRATION.fullmatch(self.path)
        return int(match["version"]) if match else None

    @property
    def name(self) -> str:
        """The name in the ledger: the file's, without its number."""
        match = _MIGRATION.fullmatch(self.path)
        return match["name"] if match else Path(self.path).stem

    @property
    def is_breaking(self) -> bool:
        """Whether packages that do not know this migration cannot use the schema after it."""
        return self.version is not None and _BREAKING.search(self.text) is not None

    @property
    def checksum(self) -> str:
        """The SHA-256 of the text in hexadecimal; of the template's, so it is the same for all schemas."""
        import hashlib

        return hashlib.sha256(self.text.encode()).hexdigest()


class Templates:
    """The templates of one folder, rendered for one schema, event channel and wake channel (None: none)."""

    def __init__(
        self,
        schema: str = DEFAULT_SCHEMA,
        event_channel: str | None = None,
        root: Traversable | None = None,
        *,
        wake_channel: str | None = None,
    ) -> None:
        self.root = root or find()
        self.schema = schema
        self._names = {"schema": check_schema(schema)}
        if event_channel is not None:
            self._names["event_channel"] = check_notify_channel(event_channel)
        if wake_channel is not None:
            self._names["wake_channel"] = check_notify_channel(wake_channel)
        self._values: dict[str, str] = {
            "schema": quote_identifier(schema),
            "schema_literal": quote_literal(schema),
            "event_channel": "NULL" if event_channel is None else quote_literal(event_channel),
            "wake_channel": "NULL" if wake_channel is None else quote_literal(wake_channel),
        }

    @cached_property
    def _environment(self) -> jinja2.Environment:
        import jinja2

        return jinja2.Environment(
            undefined=jinja2.StrictUndefined,
            autoescape=False,  # noqa: S701 - it is SQL, and the values come quoted
            keep_trailing_newline=True,
        )

    @cached_property
    def files(self) -> list[Template]:
        """What install.sql includes, in order."""
        return [part for part in self._parts() if isinstance(part, Template)]

    def lock(self) -> str:
        """The SQL that install and uninstall begin with: the transaction's settings, the schema's lock."""
        return self._render(_LOCK)

    def opening(self) -> str:
        """The SQL that an install begins with: the lock, checks, and the schema if there is none."""
        opening = self._render(READ_COMMITTED + OPENING, schema_comment=quote_literal(SCHEMA_COMMENT))
        return f"{self.lock()}\n{opening}"

    def patience(self, lock_timeout_ms: int = LOCK_TIMEOUT_MS) -> str:
        """The SQL that limits how long an install waits for a lock."""
        return self._render(_PATIENCE, lock_timeout_ms=str(lock_timeout_ms))

    def lock_queue(self) -> str:
        """The SQL that keeps everybody out of the queue until the end of the transaction."""
        return self._render(_LOCK_QUEUE)

    def file(self, template: Template) -> str:
        """The SQL of one file; that of a migration ends with its row for the ledger."""
        rendered = self._render(template.text)
        if template.version is None:
            return rendered
        row = self._render(
            _LEDGER_ROW,
            version=str(template.version),
            name=quote_literal(template.name),
            checksum=quote_literal(template.checksum),
            package_version=quote_literal(__version__),
            breaking=str(template.is_breaking).lower(),
        )
        return f"{rendered}\n{row}"

    def record(self) -> str:
        """The SQL that an install ends with: the ledger of what is not a migration, and of the catalog."""
        rows = [
            f"  ({quote_literal(file.path)}, {quote_literal(file.checksum)}, {quote_literal(__version__)}, "
            "clock_timestamp())"
            for file in self.files
            if file.version is None
        ]
        return self._render(_RECORD, rows=",\n".join(rows))

    def script(self, from_version: int | None = None) -> str:
        """An install as one transaction, headings of install.sql included; see render_install."""
        return (
            f"-- A queue of pylonny {__version__}, made by: python -m pylonny render\n"
            "-- One transaction: it does all or nothing, and nothing if the schema is not as it expects.\n\n"
            "BEGIN ISOLATION LEVEL READ COMMITTED;\n"
            f"SET LOCAL client_encoding = 'UTF8';\n{self._body(from_version)}\nCOMMIT;\n"
        )

    def statements(self, from_version: int | None = None) -> list[str]:
        """The statements of that, for a transaction of somebody else's, whose settings stay."""
        return _split(self._between_settings(self._body(from_version), SETTINGS))

    def _between_settings(self, body: str, names: Sequence[str]) -> str:
        """SQL that leaves these settings of the transaction as they were."""
        settings = f"ARRAY[{', '.join(map(quote_literal, names))}]"
        keep, restore = (
            self._render(text, settings=settings) for text in (_KEEP_SETTINGS, _RESTORE_SETTINGS)
        )
        return f"{keep}\n{body}\n{restore}"

    def _body(self, from_version: int | None) -> str:
        """What an install runs in its transaction: where there is no queue, or one of that version."""
        parts = list(self._parts())
        known = [file for file in self.files if file.version is not None]
        pending = [file for file in known if (file.version or 0) > (from_version or 0)]
        before = self._render(_FRESH)
        if from_version is not None:
            known = known[: len(known) - len(pending)]
            if from_version != (known[-1].version if known else None):
                raise Error(
                    f"this pylonny, {__version__}, has no migration {from_version} to start from",
                    f"give the number of one, from 1 to {latest_migration()}",
                )
            rows = ", ".join(f"({file.version}, {quote_literal(file.checksum)})" for file in known)
            before = self._render(_FROM, known=rows, version=str(from_version)) + "\n" + self.patience()
            if pending:
                before += self.lock_queue()
        files = "".join(
            part if isinstance(part, str) else self.file(part)
            for part in parts
            if isinstance(part, str) or part.version is None or part in pending
        )
        return f"{self.opening()}\n{before}\n{files}\n{self.record()}"

    def _parts(self) -> Iterator[Template | str]:
        """The table of contents, taken apart: included files, and the text between them."""
        from jinja2 import nodes

        for node in self._environment.parse(self._read(CONTENTS)).body:
            match node:
                case nodes.Include(template=nodes.Const(value=str(path))):
                    yield Template(path, self._read(path))
                case nodes.Output(nodes=[nodes.TemplateData(data=text)]):
                    yield text
                case _:
                    raise Error(f"{CONTENTS}, line {node.lineno}: only text and includes belong here")

    def _read(self, path: str) -> str:
        # Line ends become "\n", so that a checksum is the same on every system.
        return (self.root / path).read_text(encoding="utf-8")

    def _render(self, text: str, **values: str) -> str:
        return self._environment.from_string(self._safe_tags(text)).render(self._values, **values)

    def _safe_tags(self, text: str) -> str:
        """`text` with other dollar tags where a name contains one, and so would end the quoted text early."""

        def replace(match: re.Match[str]) -> str:
            tag = match["tag"]
            while any(f"${tag}$" in name for name in self._names.values()):
                tag += "_"
            return f"${tag}$"

        return _DOLLAR_TAG.sub(replace, text)


def _split(script: str) -> list[str]:
    """The statements of a script, without what is only comment."""
    statements = [""]
    for token in _TOKEN.finditer(script):
        if token[0] == ";":
            statements.append("")
        elif not token[0].startswith("--"):
            statements[-1] += token[0]
    return [statement.strip() for statement in statements if statement.strip()]


def render_install(
    schema: str = DEFAULT_SCHEMA,
    event_channel: str | None = None,
    root: Traversable | None = None,
    from_version: int | None = None,
    *,
    wake_channel: str | None = None,
) -> str:
    """The SQL of an install into `schema`, as one transaction that psql can run.

    `event_channel` is where to NOTIFY of events, `wake_channel` where to NOTIFY sleeping workers; None: not
    at all. `root` is another folder of templates.
    It is for a schema without a queue, or, with `from_version`, for one whose last migration has that
    number; in any other it is refused and does nothing. The same arguments give the same text.

    Raises InvalidNameError, and Error if there is no such migration.
    """
    return Templates(schema, event_channel, root, wake_channel=wake_channel).script(from_version)
