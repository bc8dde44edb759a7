"""`render` and `install` leave the same state."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pylonny import Queue, __version__
from pylonny.errors import Error
from pylonny.migrate import install, status, uninstall
from pylonny.server import PrivateServer, ServerError
from pylonny.templates import Templates, render_install
from tests.migration.conftest import Rows, add_file, dump, objects
from tests.support.sessions import Connection


def psql(server: PrivateServer, dsn: str, script: str) -> str:
    options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    return server.run("psql", *options, f"--dbname={dsn}", stdin=script)


def ledger(dsn: str, schema: str) -> Rows:
    """All that an install has written down of itself, without the times."""
    with psycopg.connect(dsn) as conn:
        return [
            row
            for query in (
                "SELECT version, name, checksum, package_version, is_breaking FROM {}.migration ORDER BY 1",
                "SELECT path, checksum, package_version FROM {}.template ORDER BY 1",
                "SELECT kind, name, part, checksum FROM {}.object ORDER BY 1, 2, 3",
            )
            for row in conn.execute(sql.SQL(query).format(sql.Identifier(schema))).fetchall()
        ]


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
        install(conn, schema, event_channel, wake_channel=schema)
    assert psql(server, rendered, render_install(schema, event_channel, wake_channel=schema)) == ""
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
        install(conn, schema, event_channel, wake_channel=schema)
    with psycopg.connect(migrated) as conn:
        for statement in Queue(schema).migrations(event_channel, wake_channel=schema):
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


# An upgrade


@pytest.fixture
def next_root(root: Path) -> Path:
    """Templates of a next version: a table that has something in it, and a function that has changed."""
    add_file(
        root,
        "migrations/0002_second.sql",
        "CREATE TABLE {{ schema }}.second (id bigint);\nINSERT INTO {{ schema }}.second VALUES (1);\n",
    )
    add_file(root, "migrations/0003_third.sql", "ALTER TABLE {{ schema }}.message ADD third text;\n")
    with (root / "functions/message_status.sql").open("a") as file:
        file.write("COMMENT ON FUNCTION {{ schema }}.message_status IS 'Another one.';\n")
    return root


@names
def test_psql_a_migration_tool_and_install_leave_the_same_upgrade(
    server: PrivateServer,
    make_database: Callable[[], str],
    next_root: Path,
    schema: str,
    event_channel: str | None,
) -> None:
    installed, rendered, migrated = (make_database() for _ in range(3))
    for dsn in (installed, rendered, migrated):
        with psycopg.connect(dsn) as conn:
            install(conn, schema, "before")
    with psycopg.connect(installed) as conn:
        done = install(conn, schema, event_channel, root=next_root)
    assert done.applied == ("migrations/0002_second.sql", "migrations/0003_third.sql")
    script = render_install(schema, event_channel, next_root, from_version=1)
    assert script == render_install(schema, event_channel, next_root, from_version=1)
    assert psql(server, rendered, script) == ""
    with psycopg.connect(migrated) as conn:
        conn.execute("SET lock_timeout = '7s'")
        for statement in Templates(schema, event_channel, next_root).statements(from_version=1):
            conn.execute(statement.encode())
        assert conn.execute("SHOW lock_timeout").fetchone() == ("7s",)
    for dsn in (rendered, migrated):
        assert dump(server, dsn) == dump(server, installed)
        assert ledger(dsn, schema) == ledger(installed, schema)
        with psycopg.connect(dsn) as conn:
            [found] = status(conn, root=next_root)
            assert (found.version, found.event_channel, found.drift) == (3, event_channel, ())


def test_an_upgrade_of_functions_only(server: PrivateServer, empty: str, conn: Connection) -> None:
    install(conn)
    conn.execute("DROP FUNCTION lonny.message_status")
    working = psycopg.connect(empty)
    working.execute("SELECT lonny.message_create('a', 'content', 1000)")
    psql(server, empty, render_install(from_version=1))  # it locks nothing that others use
    working.close()
    assert [found.drift for found in status(conn)] == [()]


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ("SELECT 1", "no queue"),
        ("CREATE SCHEMA lonny", "no queue"),
        ("UPDATE lonny.migration SET version = 2", "migration 2"),
        ("UPDATE lonny.migration SET checksum = 'x'", "migrations that were changed"),
    ],
)
def test_an_upgrade_starts_where_it_says_or_not_at_all(
    server: PrivateServer, empty: str, conn: Connection, next_root: Path, before: str, found: str
) -> None:
    if "UPDATE" in before:
        install(conn)
    conn.execute(before.encode())
    state = objects(conn), dump(server, empty)
    with pytest.raises(ServerError) as error:
        psql(server, empty, render_install(root=next_root, from_version=1))
    expected = f'schema "lonny" has {found}, this script is for one with migration 1 of pylonny'
    assert expected in error.value.message
    assert (objects(conn), dump(server, empty)) == state


def test_an_upgrade_from_a_version_that_there_never_was_is_refused() -> None:
    with pytest.raises(Error) as error:
        render_install(from_version=99)
    assert error.value.message == f"this pylonny, {__version__}, has no migration 99 to start from"


def test_a_rendering_gives_up_where_others_are_in_the_queue(
    server: PrivateServer, empty: str, conn: Connection, next_root: Path
) -> None:
    install(conn)
    script = render_install(root=next_root, from_version=1).replace(
        "lock_timeout = 2000", "lock_timeout = 10"
    )
    before = dump(server, empty)
    with psycopg.connect(empty) as working:
        working.execute("SELECT lonny.message_create('a', 'content', 1000)")
        with pytest.raises(ServerError, match="canceling statement due to lock timeout"):
            psql(server, empty, script)
        assert dump(server, empty) == before
    psql(server, empty, script)
    assert [found.version for found in status(conn)] == [3]
