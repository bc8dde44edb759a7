"""A queue with messages in every state moves: by pg_upgrade from the oldest version, by dump and restore."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pylonny.migrate import grant, install, status
from pylonny.server import PrivateServer
from tests.support.databases import private_server
from tests.support.sessions import Connection

BINARIES = Path(sys.prefix, "postgresql-15", "bin")


def fill(conn: Connection) -> None:
    """Put messages of every state into a queue, and make a role a producer of some channels."""
    conn.execute("CREATE ROLE mover LOGIN")
    grant(conn, "mover", "producer", channel_prefix="mine")
    for statement in (
        "SELECT lonny.message_create('locked', '1', 3600000)",
        "SELECT lonny.message_create('over', '2', 0)",
        "SELECT lonny.message_dequeue(2)",
        "SELECT lonny.channel_policy_set('limited', 1, 0)",
        "SELECT lonny.channel_policy_set('paused', 0)",
        "SELECT lonny.message_create('ready', '3', 3600000)",
        "SELECT lonny.message_create(NULL, '4', 3600000)",
        "SELECT lonny.message_create('late', '5', 1000, 3600000)",
        "SELECT lonny.message_create('limited', '6', 3600000), lonny.message_create('limited', '7', 3600000)",
        "SELECT lonny.message_create('paused', '8', 3600000)",
    ):
        conn.execute(statement)


def states(conn: Connection) -> list[tuple[object, ...]]:
    return conn.execute(
        "SELECT id, status, channel, num_attempts, dequeue_at, unlock_at, content, state"
        " FROM lonny.message ORDER BY id"
    ).fetchall()


def go_on(conn: Connection, before: list[tuple[object, ...]]) -> None:
    """Everything is as it was, and goes on from there."""
    assert states(conn) == before
    assert conn.execute("SELECT found FROM lonny.check()").fetchall() == []
    [found] = status(conn)
    assert (found.event_channel, found.pending, found.drift) == ("events", (), ())
    listener = psycopg.connect(conn.info.dsn, autocommit=True)
    listener.execute("LISTEN events")
    taken = conn.execute(
        "SELECT convert_from(content, 'UTF8') FROM lonny.message_dequeue(10, 3600000)"
    ).fetchall()
    assert sorted(text for (text,) in taken) == ["2", "3", "4", "6"]
    assert conn.execute("SELECT result FROM lonny.message_dequeue()").fetchall() == [
        ("MESSAGE_NOT_AVAILABLE",)
    ]
    assert conn.execute("SELECT lonny.message_delete(1, 1)").fetchall() == [("MESSAGE_DELETED",)]
    assert '"id":1,' in next(listener.notifies(timeout=10, stop_after=1)).payload
    listener.close()
    conn.execute("SELECT lonny.channel_policy_clear('paused'), lonny.message_delete(6, 1)")
    taken = conn.execute(
        "SELECT convert_from(content, 'UTF8') FROM lonny.message_dequeue(10, 3600000)"
    ).fetchall()
    assert sorted(text for (text,) in taken) == ["7", "8"]
    assert conn.execute("SELECT lonny.message_create('new', 'x', 3600000)").fetchall() == [(9,)]
    with psycopg.connect(make_conninfo(conn.info.dsn, user="mover"), autocommit=True) as theirs:
        theirs.execute("SELECT lonny.message_create('mine', 'x', 3600000)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            theirs.execute("SELECT lonny.message_create('new', 'x', 3600000)")
    assert conn.execute("SELECT found FROM lonny.check()").fetchall() == []


@pytest.fixture
def oldest() -> Iterator[PrivateServer]:
    """A server of the oldest version that is supported."""
    assert (BINARIES / "postgres").exists(), "get it: make .venv/postgresql-15"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYLONNY_PG_BIN", str(BINARIES))
        server = private_server()
    with server:
        yield server


def test_pg_upgrade(oldest: PrivateServer) -> None:
    with psycopg.connect(oldest.dsn(), autocommit=True) as conn:
        assert conn.info.server_version // 10000 == 15
        install(conn, "lonny", "events")
        fill(conn)
        before = states(conn)
    oldest.stop()
    with private_server() as server:
        server.stop()
        shutil.rmtree(server.data)
        initdb = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        if "--no-data-checksums" in server.run("initdb", "--help"):
            initdb.append("--no-data-checksums")  # as the old one, of before they were usual
        server.run("initdb", f"--pgdata={server.data}", *initdb)
        with (server.data / "postgresql.conf").open("a") as file:
            file.write("include 'private_server.conf'\n")
        shutil.copy(oldest.data / "private_server.conf", server.data)
        os.chown(server.data / "private_server.conf", *owner(server.data))
        server.run(
            "pg_upgrade",
            "--username=postgres",
            f"--old-bindir={oldest.bin}",
            f"--new-bindir={server.bin}",
            f"--old-datadir={oldest.data}",
            f"--new-datadir={server.data}",
        )
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            go_on(conn, before)
            assert install(conn).applied == ()


def owner(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


def move(server: PrivateServer, source: str, target: str, form: str) -> None:
    """Dump a database and restore it, with the programs of `server`."""
    file = server.root / "dump"
    server.run("pg_dump", f"--dbname={source}", f"--format={form}", f"--file={file}")
    if form == "plain":
        options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
        server.run("psql", *options, f"--dbname={target}", f"--file={file}")
    else:
        server.run("pg_restore", "--exit-on-error", f"--dbname={target}", str(file))
    file.unlink()


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_dump_and_restore(oldest: PrivateServer, form: str) -> None:
    with psycopg.connect(oldest.dsn(), autocommit=True) as conn:
        install(conn, "lonny", "events")
        fill(conn)
        before = states(conn)
    with private_server() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("CREATE ROLE mover LOGIN")
        move(server, oldest.dsn(), server.dsn(), form)
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            go_on(conn, before)
            assert install(conn).applied == ()
