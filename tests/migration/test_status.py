"""What is installed where."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg import sql

from pylonny import __version__
from pylonny.migrate import Installation, install, status
from tests.migration.conftest import Connector, add_file
from tests.support.sessions import Connection


def test_nothing_is_installed(conn: Connection) -> None:
    conn.execute("CREATE SCHEMA other CREATE TABLE migration (version integer)")
    conn.execute("COMMENT ON TABLE other.migration IS 'not a pylonny'")
    assert status(conn) == []


def test_every_queue_is_shown(conn: Connection, open_as: Connector, role: str) -> None:
    install(conn, 'My "Queue" 1', "it's", wake_channel="wake")
    conn.execute(sql.SQL("CREATE SCHEMA theirs AUTHORIZATION {}").format(sql.Identifier(role)))
    install(open_as(role), "theirs")
    assert status(conn) == [
        Installation('My "Queue" 1', "postgres", True, 1, __version__, "it's", wake_channel="wake"),
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
        "SELECT ON lonny.template",
        "SELECT ON lonny.object",
        "EXECUTE ON FUNCTION lonny._objects()",
        "EXECUTE ON FUNCTION lonny._event_channel()",
        "EXECUTE ON FUNCTION lonny._wake_channel()",
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


def test_a_queue_as_it_was_installed_has_no_drift(conn: Connection) -> None:
    install(conn, 'My "Queue" 1', "it's")
    conn.execute("CREATE SCHEMA lonny")
    install(conn)
    conn.execute("CREATE TABLE lonny.theirs (id bigint PRIMARY KEY)")
    conn.execute("CREATE FUNCTION lonny.f() RETURNS integer RETURN 1")
    conn.execute("ALTER TABLE lonny.message SET (autovacuum_vacuum_scale_factor = 0.01)")
    conn.execute("GRANT SELECT ON lonny.message TO pg_monitor")
    conn.execute("SET search_path = lonny")
    assert [found.drift for found in status(conn)] == [(), ()]
    install(conn)
    assert [found.drift for found in status(conn)] == [(), ()]


@pytest.mark.parametrize(
    ("change", "drift"),
    [
        ("DROP INDEX lonny.message_ready_idx", "table message: index message_ready_idx is missing"),
        ("CREATE INDEX mine ON lonny.message (channel)", "table message: index mine was added"),
        ("ALTER TABLE lonny.message ADD mine text", "table message: column mine was added"),
        ("ALTER TABLE lonny.message ALTER lock_ms SET DEFAULT 1", "table message: column lock_ms differs"),
        ("ALTER TABLE lonny.message ALTER lock_ms DROP NOT NULL", "table message: column lock_ms differs"),
        (
            "ALTER TABLE lonny.message ADD CONSTRAINT mine CHECK (lock_ms >= 0)",
            "table message: constraint mine was added",
        ),
        ("ALTER TABLE lonny.wake SET (fillfactor = 50)", "table wake differs"),
        ("ALTER TABLE lonny.wake ENABLE ROW LEVEL SECURITY", "table wake differs"),
        ("CREATE POLICY p ON lonny.wake", "table wake: policy p was added"),
        (
            "CREATE RULE r AS ON INSERT TO lonny.wake DO INSTEAD NOTHING",
            "table wake: rule r was added",
        ),
        (
            "CREATE TRIGGER t AFTER UPDATE ON lonny.wake EXECUTE FUNCTION tsvector_update_trigger()",
            "table wake: trigger t was added",
        ),
        ("COMMENT ON VIEW lonny._policy_in_force IS 'mine'", "view _policy_in_force differs"),
        ("ALTER SEQUENCE lonny.rotation CYCLE", "sequence rotation differs"),
        ("ALTER TYPE lonny.message_status ADD VALUE 'x'", "type message_status differs"),
        ("ALTER TYPE lonny.dequeued ADD ATTRIBUTE x text", "type dequeued: column x was added"),
        ("COMMENT ON TYPE lonny.dequeued IS 'mine'", "type dequeued differs"),
        ("DROP FUNCTION lonny.message_cancel", "function message_cancel(bigint) is missing"),
        ("ALTER FUNCTION lonny._clock STABLE", "function _clock() differs"),
        (
            "ALTER FUNCTION lonny.message_cancel SET work_mem = '1MB'",
            "function message_cancel(bigint) differs",
        ),
        (
            "CREATE OR REPLACE FUNCTION lonny._clock() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'",
            "function _clock() differs",
        ),
        (
            "CREATE FUNCTION lonny.message_cancel(text) RETURNS integer RETURN 1",
            "function message_cancel(text) was added",
        ),
    ],
)
def test_what_somebody_has_changed_is_told(conn: Connection, change: str, drift: str) -> None:
    install(conn)
    conn.execute(change.encode())
    [found] = status(conn)
    assert drift in found.drift
    install(conn)
    [repaired] = status(conn)
    # Functions are made anew; what is a table's stays as it is, and stays visible.
    assert (drift in repaired.drift) == (not drift.startswith("function"))


def test_migrations_that_this_package_would_run_are_told(conn: Connection, root: Path) -> None:
    install(conn)
    assert [found.pending for found in status(conn)] == [()]
    add_file(root, "migrations/0002_second.sql", "CREATE TABLE {{ schema }}.second ();\n")
    assert [found.pending for found in status(conn, root=root)] == [("migrations/0002_second.sql",)]
    install(conn, root=root)
    [found] = status(conn, root=root)
    assert (found.pending, found.drift, found.version) == ((), (), 2)
    conn.execute("DROP TABLE lonny.second")
    assert [found.drift for found in status(conn, root=root)] == [("table second is missing",)]
