"""Installs at once: one waits for the other, and both end well."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import psycopg
import pytest

from pylonny.errors import InstallError
from pylonny.migrate import Installed, install, status, uninstall
from tests.migration.conftest import Connector, objects, until
from tests.support.sessions import Connection, background

T = TypeVar("T")


def install_at_once(connections: list[Connection], schemas: list[str]) -> list[Installed]:
    barrier = threading.Barrier(len(connections))

    def one(conn: Connection, schema: str) -> Installed:
        barrier.wait()
        return install(conn, schema)

    with ThreadPoolExecutor(len(connections)) as pool:
        return list(pool.map(one, connections, schemas))


@contextmanager
def blocked(
    function: Callable[[Connection], T], conn: Connection, by: Connection, observer: Connection
) -> Generator[Future[T]]:
    """Call `function` with `conn` in a thread; what is in the block runs once it waits for `by`."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(function, conn)
        try:
            waits = "SELECT %s = ANY (pg_blocking_pids(%s))"
            pids = [by.info.backend_pid, conn.info.backend_pid]
            until(lambda: observer.execute(waits, pids).fetchone() == (True,))
            yield future
        finally:
            if not future.done():  # the test has failed: it must not wait for ever
                conn.cancel()


def test_twenty_installs_into_one_schema(conn: Connection, open_as: Connector) -> None:
    done = install_at_once([open_as() for _ in range(20)], ["lonny"] * 20)
    assert sorted(len(one.applied) for one in done) == [0] * 19 + [1]
    assert {one.version for one in done} == {1}
    assert conn.execute("SELECT count(*) FROM lonny.migration").fetchone() == (1,)


def test_installs_into_many_schemas(conn: Connection, open_as: Connector) -> None:
    schemas = ["one", "two", "three", "four"] * 3
    done = install_at_once([open_as() for _ in schemas], schemas)
    assert sorted(one.schema for one in done if one.applied) == sorted(set(schemas))
    assert [found.schema for found in status(conn)] == sorted(set(schemas))


def test_an_install_waits_for_the_one_before_and_keeps_its_event_channel(
    conn: Connection, open_as: Connector
) -> None:
    first, second = open_as(autocommit=False), open_as()
    first.execute("SELECT 1")
    install(first, "lonny", "events")
    with blocked(install, second, by=first, observer=conn) as waiting:
        first.commit()
        assert waiting.result(timeout=30) == Installed("lonny", 1, (), "events")


def test_an_install_goes_on_where_the_one_before_failed(conn: Connection, open_as: Connector) -> None:
    first, second = open_as(autocommit=False), open_as()
    first.execute("SELECT 1")
    install(first, "lonny", "events")
    with blocked(install, second, by=first, observer=conn) as waiting:
        first.rollback()
        assert waiting.result(timeout=30) == Installed("lonny", 1, ("migrations/0001_initial.sql",), None)


def test_an_install_into_another_schema_does_not_wait(open_as: Connector) -> None:
    first, second = open_as(autocommit=False), open_as()
    first.execute("SELECT 1")
    install(first, "one")
    second.execute("SET lock_timeout = '10ms'")
    assert install(second, "two").applied


def test_an_install_waits_for_an_uninstall(conn: Connection, open_as: Connector) -> None:
    install(conn, "lonny", "events")
    first, second = open_as(autocommit=False), open_as()
    first.execute("SELECT 1")
    assert uninstall(first).dropped_schema
    with blocked(install, second, by=first, observer=conn) as waiting:
        first.commit()
        assert waiting.result(timeout=30).applied
    assert [found.event_channel for found in status(conn)] == [None]


def test_two_uninstalls(conn: Connection, open_as: Connector) -> None:
    install(conn)
    first, second = open_as(autocommit=False), open_as()
    first.execute("SELECT 1")
    uninstall(first)
    with blocked(uninstall, second, by=first, observer=conn) as waiting:
        first.commit()
        with pytest.raises(InstallError, match="there is no queue of pylonny"):
            waiting.result(timeout=30)


def test_a_schema_that_somebody_else_creates_meanwhile_is_looked_at_again(
    conn: Connection, open_as: Connector
) -> None:
    first, second = open_as(autocommit=False), open_as()
    first.execute("CREATE SCHEMA lonny")
    with blocked(install, second, by=first, observer=conn) as waiting:
        first.commit()
        assert waiting.result(timeout=30).applied
    assert not uninstall(conn).dropped_schema


def test_the_queue_works_on_beside_an_install(conn: Connection, open_as: Connector) -> None:
    install(conn)
    installing, working = open_as(autocommit=False), open_as()
    installing.execute("SELECT 1")
    install(installing)
    before = objects(conn)
    with background(working, "SELECT lonny.message_create('a', 'content', 1000)") as step:
        assert step.blocked_by() == []
    with background(working, "SELECT (lonny.message_dequeue()).result::text") as step:
        assert step.blocked_by() == []
        assert step.result() == [("MESSAGE_DEQUEUED",)]
    installing.commit()
    assert objects(conn) == before


def test_two_commands_at_once(conn: Connection, empty: str) -> None:
    command = [sys.executable, "-m", "pylonny", "install", "--dsn", empty, "--schema"]
    processes = [
        subprocess.Popen([*command, schema], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for schema in ("one", "one", "two")
    ]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
    assert [found.schema for found in status(conn)] == ["one", "two"]


def test_a_session_that_gives_up_waiting_says_why(open_as: Connector) -> None:
    first, second = open_as(autocommit=False), open_as()
    first.execute("SELECT 1")
    install(first)
    second.execute("SET lock_timeout = '10ms'")
    with pytest.raises(InstallError, match="canceling statement due to lock timeout") as error:
        install(second)
    assert isinstance(error.value.__cause__, psycopg.errors.LockNotAvailable)
