"""Uninstalling: all of ours goes, nothing of anybody else's does."""

from __future__ import annotations

import pytest
from psycopg import sql

from pylonny.errors import InstallError
from pylonny.migrate import Uninstalled, install, status, uninstall
from tests.migration.conftest import Connector, objects
from tests.support.sessions import Connection


def test_an_uninstall_leaves_the_database_as_it_was(conn: Connection) -> None:
    before = objects(conn)
    install(conn, "lonny", "events")
    conn.execute("SELECT lonny.message_create('a', 'content', 1000)")
    assert uninstall(conn) == Uninstalled("lonny", dropped_schema=True, remaining=())
    assert objects(conn) == before
    assert status(conn) == []


def test_a_schema_that_was_there_before_stays(conn: Connection) -> None:
    conn.execute("CREATE SCHEMA lonny")
    conn.execute("COMMENT ON SCHEMA lonny IS 'pylonny lives here'")
    before = objects(conn)
    install(conn)
    assert uninstall(conn) == Uninstalled("lonny", dropped_schema=False, remaining=())
    assert objects(conn) == before


@pytest.mark.parametrize(
    ("thing", "remaining"),
    [
        ("CREATE TABLE lonny.mine (id serial PRIMARY KEY, t text UNIQUE)", ("table lonny.mine",)),
        ("CREATE TABLE lonny.mine (id bigint GENERATED ALWAYS AS IDENTITY)", ("table lonny.mine",)),
        ("CREATE EXTENSION hstore SCHEMA lonny", ("extension hstore",)),
        ("CREATE FUNCTION lonny.mine(integer) RETURNS integer RETURN 1", ("function lonny.mine(integer)",)),
        (
            "CREATE TYPE lonny.mine AS ENUM (); CREATE VIEW lonny.m AS SELECT 1",
            ("type lonny.mine", "view lonny.m"),
        ),
        # The name of a table of ours, but not a table.
        ("CREATE FUNCTION lonny.message() RETURNS integer RETURN 1", ("function lonny.message()",)),
    ],
)
def test_what_lives_in_the_schema_stays_and_keeps_it(
    conn: Connection, thing: str, remaining: tuple[str, ...]
) -> None:
    install(conn)
    conn.execute(thing.encode())
    assert uninstall(conn) == Uninstalled("lonny", dropped_schema=False, remaining=remaining)
    assert status(conn) == []
    kept = "SELECT count(*) FROM pg_namespace WHERE nspname = 'lonny'"
    assert conn.execute(kept).fetchone() == (1,)
    with pytest.raises(InstallError, match="is not empty and not a queue of pylonny"):
        install(conn)


def test_the_schema_goes_with_a_later_uninstall(conn: Connection) -> None:
    before = objects(conn)
    install(conn)
    conn.execute("CREATE TABLE lonny.mine ()")
    uninstall(conn)
    conn.execute("DROP TABLE lonny.mine")
    install(conn)
    assert uninstall(conn).dropped_schema
    assert objects(conn) == before


@pytest.mark.parametrize(
    ("thing", "dependents"),
    [
        ("CREATE VIEW v AS SELECT id FROM lonny.message", "view public.v depends on table lonny.message"),
        ("CREATE VIEW v AS SELECT lonny._clock()", "view public.v depends on function lonny._clock()"),
        (
            "CREATE TABLE t (r lonny.delete_result)",
            "column r of table public.t depends on type lonny.delete_result",
        ),
        (
            "CREATE TABLE t (id bigint REFERENCES lonny.message)",
            "constraint t_id_fkey on table public.t depends on table lonny.message",
        ),
        (
            "CREATE VIEW v AS TABLE lonny.message; CREATE VIEW w AS TABLE lonny.message",
            "view public.v depends on table lonny.message, view public.w depends on table lonny.message",
        ),
    ],
)
def test_what_depends_on_the_queue_stops_the_uninstall(conn: Connection, thing: str, dependents: str) -> None:
    install(conn)
    conn.execute(thing.encode())
    before = objects(conn)
    with pytest.raises(InstallError) as error:
        uninstall(conn)
    assert error.value.message == f"something else needs this queue: {dependents}"
    assert error.value.hint == "drop that first"
    assert objects(conn) == before


@pytest.mark.parametrize("schema", ["lonny", "public", "theirs"])
def test_a_schema_without_a_queue_is_refused(conn: Connection, schema: str) -> None:
    conn.execute(
        "CREATE SCHEMA theirs CREATE TABLE migration (version integer) CREATE TABLE message (id bigint)"
    )
    before = objects(conn)
    with pytest.raises(InstallError) as error:
        uninstall(conn, schema)
    assert error.value.message == f'there is no queue of pylonny in schema "{schema}"'
    assert error.value.hint == "see what is installed with  python -m pylonny status"
    assert objects(conn) == before


def test_a_role_that_may_not_drop_it_changes_nothing(conn: Connection, open_as: Connector, role: str) -> None:
    install(conn)
    conn.execute(sql.SQL("GRANT ALL ON SCHEMA lonny TO {}").format(sql.Identifier(role)))
    conn.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA lonny TO {}").format(sql.Identifier(role)))
    before = objects(conn)
    with pytest.raises(InstallError) as error:
        uninstall(open_as(role))
    assert error.value.message == 'the queue in schema "lonny" belongs to role "postgres"'
    assert error.value.hint == 'connect as "postgres", or as a role that is a member of it'
    assert objects(conn) == before


def test_an_uninstall_is_part_of_the_callers_transaction(conn: Connection, open_as: Connector) -> None:
    install(conn)
    before = objects(conn)
    theirs = open_as(autocommit=False)
    theirs.execute("SET LOCAL search_path = public")
    assert uninstall(theirs).dropped_schema
    assert theirs.execute("SHOW search_path").fetchone() == ("public",)
    theirs.rollback()
    assert objects(conn) == before
