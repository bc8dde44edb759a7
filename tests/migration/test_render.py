"""`render` and `install` leave the same state."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest
from psycopg import sql

from pylonny import Queue
from pylonny.migrate import install, status, uninstall
from pylonny.server import PrivateServer, ServerError
from pylonny.templates import render_install
from tests.migration.conftest import Rows, dump, objects
from tests.support.sessions import Connection


def psql(server: PrivateServer, dsn: str, script: str) -> str:
    options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    return server.run("psql", *options, f"--dbname={dsn}", stdin=script)


def ledger(dsn: str, schema: str) -> Rows:
    query = sql.SQL("SELECT version, name, checksum, package_version FROM {} ORDER BY version")
    with psycopg.connect(dsn) as conn:
        return conn.execute(query.format(sql.Identifier(schema, "migration"))).fetchall()


names = pytest.mark.parametrize(
    ("schema", "event_channel"),
    [
        ("lonny", None),
        ('My "Queue" 1', "it's"),
        ("a$function$ü", "$do$"),
        ("back\\slash\n{{ schema }}", "\\"),
    ],
)


@names
def test_psql_and_install_leave_the_same_state(
    server: PrivateServer, make_database: Callable[[], str], schema: str, event_channel: str | None
) -> None:
    installed, rendered = make_database(), make_database()
    with psycopg.connect(installed) as conn:
        install(conn, schema, event_channel)
    assert psql(server, rendered, render_install(schema, event_channel)) == ""
    assert dump(server, rendered) == dump(server, installed)
    assert ledger(rendered, schema) == ledger(installed, schema)
    with psycopg.connect(rendered) as conn:
        assert [(found.schema, found.event_channel) for found in status(conn)] == [(schema, event_channel)]


@names
def test_a_migration_tool_and_install_leave_the_same_state(
    server: PrivateServer, make_database: Callable[[], str], schema: str, event_channel: str | None
) -> None:
    installed, migrated = make_database(), make_database()
    with psycopg.connect(installed) as conn:
        install(conn, schema, event_channel)
    with psycopg.connect(migrated) as conn:
        for statement in Queue(schema).migrations(event_channel):
            conn.execute(statement.encode())
    assert dump(server, migrated) == dump(server, installed)
    assert ledger(migrated, schema) == ledger(installed, schema)


def test_a_migration_tool_runs_what_psql_does_in_the_same_order() -> None:
    created = re.compile(r"^CREATE .*?\"lonny\"\.\w+", re.MULTILINE)
    in_statements = [created.findall(statement) for statement in Queue().migrations("events")]
    in_script = created.findall(render_install("lonny", "events"))
    assert len(in_script) > 50
    assert [name for names in in_statements for name in names] == in_script
    assert max(map(len, in_statements)) == 1


def test_an_install_goes_on_from_a_rendering_and_an_uninstall_undoes_it(
    server: PrivateServer, empty: str, conn: Connection
) -> None:
    before = objects(conn)
    psql(server, empty, render_install("lonny", "events"))
    done = install(conn)
    assert (done.applied, done.event_channel) == ((), "events")
    assert uninstall(conn).dropped_schema
    assert objects(conn) == before


@pytest.mark.parametrize("stop", ["1", "0"])
def test_a_second_run_is_refused_and_changes_nothing(
    server: PrivateServer, empty: str, conn: Connection, stop: str
) -> None:
    script = render_install("lonny", "events")
    psql(server, empty, script)
    conn.execute("SELECT lonny.message_create('a', 'stays', 1000)")
    before = objects(conn), dump(server, empty)
    # Without ON_ERROR_STOP psql goes on after an error, and ends with status 0.
    try:
        printed = psql(server, empty, f"\\set ON_ERROR_STOP {stop}\n{script}")
    except ServerError as error:
        printed = str(error)
    assert 'ERROR:  schema "lonny" has a queue already, this script is for one that has none' in printed
    assert "HINT:  bring it up to date with  python -m pylonny install" in printed
    assert (objects(conn), dump(server, empty)) == before


def test_a_schema_of_somebody_else_is_refused(server: PrivateServer, empty: str, conn: Connection) -> None:
    conn.execute("CREATE SCHEMA lonny CREATE TABLE mine ()")
    before = objects(conn)
    with pytest.raises(ServerError, match='schema "lonny" is not empty and not a queue of pylonny'):
        psql(server, empty, render_install())
    assert objects(conn) == before


def test_an_empty_schema_is_used(server: PrivateServer, empty: str, conn: Connection) -> None:
    conn.execute("CREATE SCHEMA lonny")
    psql(server, empty, render_install())
    assert not uninstall(conn).dropped_schema


def test_a_transaction_of_another_level_does_not_matter(
    server: PrivateServer, empty: str, conn: Connection
) -> None:
    psql(server, empty, "SET default_transaction_isolation = serializable;\n" + render_install())
    assert [found.schema for found in status(conn)] == ["lonny"]


def test_the_encoding_of_the_terminal_does_not_matter(
    server: PrivateServer, empty: str, conn: Connection
) -> None:
    psql(server, empty, "SET client_encoding = 'LATIN1';\n" + render_install("schön"))
    assert [found.schema for found in status(conn)] == ["schön"]
