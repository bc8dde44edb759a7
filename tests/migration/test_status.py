"""What is installed where."""

from __future__ import annotations

from psycopg import sql

from pylonny import __version__
from pylonny.migrate import Installation, install, status
from tests.migration.conftest import Connector
from tests.support.sessions import Connection


def test_nothing_is_installed(conn: Connection) -> None:
    conn.execute("CREATE SCHEMA other CREATE TABLE migration (version integer)")
    conn.execute("COMMENT ON TABLE other.migration IS 'not a pylonny'")
    assert status(conn) == []


def test_every_queue_is_shown(conn: Connection, open_as: Connector, role: str) -> None:
    install(conn, 'My "Queue" 1', "it's")
    conn.execute(sql.SQL("CREATE SCHEMA theirs AUTHORIZATION {}").format(sql.Identifier(role)))
    install(open_as(role), "theirs")
    assert status(conn) == [
        Installation('My "Queue" 1', "postgres", True, 1, __version__, "it's"),
        Installation("theirs", role, True, 1, __version__, None),
    ]


def test_a_queue_that_one_may_not_read_is_shown_as_such(
    conn: Connection, open_as: Connector, role: str
) -> None:
    install(conn, "lonny", "events")
    theirs = open_as(role)
    hidden = Installation("lonny", "postgres", False, None, None, None)
    assert status(theirs) == [hidden]
    for grant in (
        "USAGE ON SCHEMA lonny",
        "SELECT ON lonny.migration",
        "EXECUTE ON FUNCTION lonny._event_channel()",
    ):
        assert status(theirs) == [hidden]
        conn.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(grant), sql.Identifier(role)))
    assert status(theirs) == status(conn)


def test_status_is_part_of_the_callers_transaction(open_as: Connector) -> None:
    conn = open_as(autocommit=False)
    conn.execute("SET LOCAL search_path = public")
    install(conn)
    assert [found.schema for found in status(conn)] == ["lonny"]
    assert conn.execute("SHOW search_path").fetchone() == ("public",)
