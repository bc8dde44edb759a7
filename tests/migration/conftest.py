"""Fixtures: databases without a queue, roles, templates to change; and what a database looks like."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pylonny.server import PrivateServer
from tests.support.databases import SQL, before_drop
from tests.support.sessions import Connection

_numbers = itertools.count(1)

Connector = Callable[..., Connection]
Rows = list[tuple[Any, ...]]


@pytest.fixture
def make_database(server: PrivateServer) -> Iterator[Callable[[], str]]:
    """Makes empty databases, and returns their DSNs; they are dropped after the test."""
    names: list[str] = []

    def make() -> str:
        names.append(f"migration_{next(_numbers)}")
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(names[-1])))
        return server.dsn(names[-1])

    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        yield make
        for name in names:
            for look in before_drop:
                look(server.dsn(name))
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def empty(make_database: Callable[[], str]) -> str:
    """The DSN of a database with nothing in it."""
    return make_database()


@pytest.fixture
def open_as(empty: str) -> Iterator[Connector]:
    """Opens connections to `empty`, autocommit unless told otherwise, as a user if given."""
    opened: list[Connection] = []

    def connect(user: str = "postgres", *, autocommit: bool = True, **parameters: Any) -> Connection:
        conn = psycopg.connect(make_conninfo(empty, user=user), autocommit=autocommit, **parameters)
        opened.append(conn)
        return conn

    yield connect
    for conn in opened:
        conn.close()


@pytest.fixture
def conn(open_as: Connector) -> Connection:
    """A connection of the superuser to `empty`, autocommit."""
    return open_as()


@pytest.fixture
def role(conn: Connection) -> Iterator[str]:
    """A role that may log in and nothing else; what it has is dropped with it."""
    name = f"app {next(_numbers)}"
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    yield name
    conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
    conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the templates, for the test to change."""
    return Path(shutil.copytree(SQL, tmp_path / "sql"))


def add_file(root: Path, path: str, text: str) -> None:
    """Add a template after the migrations that are there."""
    (root / path).write_text(text)
    contents = (root / "install.sql").read_text().splitlines()
    last = max(number for number, line in enumerate(contents) if "migrations/" in line)
    contents.insert(last + 1, f'{{% include "{path}" %}}')
    (root / "install.sql").write_text("\n".join([*contents, ""]))


def until(condition: Callable[[], bool], deadline: float = 10.0) -> None:
    """Ask for `condition` until it holds; fail after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"


def objects(conn: Connection) -> Rows:
    """Everything in the database that is not PostgreSQL's own; of schemas also their rights and comments."""
    return conn.execute(
        """
        SELECT o.type, o.identity, d.refclassid::regclass::text
        FROM pg_depend d CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) o
        WHERE d.objid >= 16384 AND d.classid <> 'pg_rewrite'::regclass
        UNION SELECT 'schema', n.nspname, concat_ws(' ', n.nspacl::text, obj_description(n.oid))
        FROM pg_namespace n WHERE n.oid >= 16384 OR n.nspname = 'public'
        ORDER BY 1, 2, 3
        """
    ).fetchall()


def dump(server: PrivateServer, dsn: str) -> str:
    """All definitions in a database: comments, owners and rights too."""
    lines = server.run("pg_dump", "--schema-only", f"--dbname={dsn}").splitlines()
    return "\n".join(line for line in lines if not line.startswith(("\\restrict", "\\unrestrict")))
