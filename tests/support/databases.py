"""Making of the tests' databases: pgTAP and its helpers in the schema `tap`, pylonny in all of SCHEMAS."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg import sql

from pylonny import migrate
from pylonny.server import PrivateServer, ServerError

SCHEMAS = ["lonny", 'My "Queue" 1']

# A crash of the machine may take the tests' data. A time zone that is neither UTC nor whole hours away finds
# what depends on it. PL/pgSQL's warnings are on, and the fixtures fail a test for any warning.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",
    "deadlock_timeout": "50ms",
    "timezone": "Asia/Kathmandu",
    "plpgsql.extra_warnings": "all",
}

SQL = Path(__file__).parents[2] / "sql"
_HELPERS = Path(__file__).parents[2] / "pgtap" / "support" / "helpers.sql"
_MEMORY = Path("/dev/shm")  # noqa: S108 (for mkdtemp)
_ENOUGH = 2 * 1024**3  # bytes; a container's default is 64 MiB


# Called with the DSN of each database of a test when its connections are closed, before it is dropped.
before_drop: list[Callable[[str], None]] = []


class PgtapNotFoundError(Exception):
    """pgTAP is not there; says what to install."""


def private_server(**settings: object) -> PrivateServer:
    """A server for tests, not started yet; in memory if there is enough: databases are made in a tenth."""
    root = None
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ENOUGH:
        root = Path(tempfile.mkdtemp(prefix="pylonny-", dir=_MEMORY))
    return PrivateServer(root, SETTINGS | settings, temporary=True)


def find_pgtap(server: PrivateServer) -> Path:
    """The file pgtap.sql: $PGTAP_SQL, or the extension of this server, or of the newest one that Debian has.

    Raises PgtapNotFoundError.
    """
    if named := os.environ.get("PGTAP_SQL"):
        return Path(named)
    candidates = list(Path("/usr/share/postgresql").glob("*/extension/pgtap.sql"))
    candidates.sort(key=lambda path: int(path.parts[4]), reverse=True)
    with suppress(ServerError):  # binaries without pg_config
        candidates.insert(0, Path(server.run("pg_config", "--sharedir").strip(), "extension", "pgtap.sql"))
    for path in candidates:
        if path.exists():
            return path
    raise PgtapNotFoundError(
        "pgTAP not found: install it (Debian: apt-get install postgresql-15-pgtap, or for another version), "
        "or set PGTAP_SQL to the path of a pgtap.sql"
    )


def create_template(server: PrivateServer, name: str = "template_pylonny") -> str:
    """Create the database that the tests' databases are copies of, and return its name."""
    pgtap = find_pgtap(server).read_bytes()
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(server.dsn(name), autocommit=True) as conn:
        conn.execute("CREATE SCHEMA tap")
        conn.execute("SET search_path = tap")
        conn.execute(pgtap)
        conn.execute(_HELPERS.read_bytes())
        conn.execute("RESET search_path")
        for schema in SCHEMAS:
            migrate.install(conn, schema)
    return name


def options(schema: str) -> str:
    """libpq's `options` for a session whose search_path is the queue's schema, then pgTAP's."""
    path = f"{sql.Identifier(schema).as_string()},tap,public"
    return "-csearch_path=" + path.replace("\\", "\\\\").replace(" ", "\\ ")
