"""Workers as processes of their own, which are killed, told to stop, or lose their server."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from pylonny import Queue
from pylonny.migrate import install
from tests.support.databases import private_server
from tests.support.sessions import DEADLINE, wait_until
from tests.support.worker import EVENTS

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.conftest import Connect
    from tests.support.sessions import Connection

QUEUE = Queue()
KINDS = ["sync", "async"]
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"
LOOKING = """
SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%retry_ms FROM%' AND pid <> pg_backend_pid()
"""


@contextmanager
def worker(kind: str, dsn: str) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.support.worker", kind, dsn]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def prepare(conn: Connection) -> None:
    install(conn, "lonny", EVENTS)
    conn.execute("CREATE TABLE public.done (message_id bigint, worker text)")


def create(conn: Connection, *contents: str) -> list[int]:
    batch = QUEUE.batch()
    for number, content in enumerate(contents):
        batch.channel(f"channel {number % 5}").message.create(content, lock_ms=1)
    return batch.execute(conn)


def done(conn: Connection) -> list[int]:
    return [id_ for (id_,) in conn.execute("SELECT message_id FROM public.done ORDER BY 1").fetchall()]


def until_waiting(conn: Connection, workers: int = 1) -> None:
    """Until so many workers are in the midst of a slow message."""
    wait_until(lambda: conn.execute(WAITING).fetchone() == (workers,), "the workers are at work")


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_of_a_worker_that_is_killed_is_done_by_another(
    connect: Connect, database: str, kind: str
) -> None:
    conn, gate = connect(), connect()
    prepare(conn)
    gate.execute("SELECT pg_advisory_lock(1)")
    ids = create(conn, "slow", "quick", "quick")
    with worker(kind, database) as first:
        until_waiting(conn)
        first.kill()
        first.wait(DEADLINE)
        gate.execute("SELECT pg_advisory_unlock(1)")
        with worker(kind, database):
            wait_until(lambda: len(done(conn)) >= len(ids), "another worker did it")
    assert done(conn) == ids
    assert QUEUE.status(conn, ids) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_that_is_told_to_stop_finishes_what_it_has(
    connect: Connect, database: str, kind: str
) -> None:
    conn, gate = connect(), connect()
    prepare(conn)
    gate.execute("SELECT pg_advisory_lock(1)")
    ids = create(conn, "slow", "slow")
    with worker(kind, database) as process:
        until_waiting(conn)
        process.send_signal(signal.SIGTERM)
        gate.execute("SELECT pg_advisory_unlock(1)")
        assert process.wait(DEADLINE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert done(conn) == ids[:1]
    assert {id_: state.num_attempts for id_, state in QUEUE.status(conn, ids).items()} == {ids[1]: 0}


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_that_has_nothing_to_do_stops_when_it_is_told_to(
    connect: Connect, database: str, kind: str
) -> None:
    conn = connect()
    prepare(conn)
    with worker(kind, database) as process:
        wait_until(lambda: conn.execute(LOOKING).fetchone() == (1,), "the worker looks for messages")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0


def test_a_restart_of_the_server_loses_nothing_and_doubles_nothing() -> None:
    with private_server() as server:
        dsn = server.dsn()
        with psycopg.connect(dsn, autocommit=True) as conn, psycopg.connect(dsn, autocommit=True) as gate:
            prepare(conn)
            gate.execute("SELECT pg_advisory_lock(1)")
            before = create(conn, *["slow"] * 2, *["quick"] * 20)
            with worker("sync", dsn), worker("async", dsn):
                until_waiting(conn, 2)
                server.stop()
                server.start()
                with psycopg.connect(dsn, autocommit=True) as again:
                    after = create(again, *["quick"] * 20)
                    wait_until(lambda: len(done(again)) >= 42, "all are done", timeout=3 * DEADLINE)
                    assert done(again) == before + after
                    assert QUEUE.status(again, before + after) == {}
