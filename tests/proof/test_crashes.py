"""Servers, workers, producers are killed, the disk is full: nothing acknowledged is lost, nothing stuck."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pylonny.migrate import install
from pylonny.server import PrivateServer
from tests.support.chaos import policy_set
from tests.support.databases import private_server
from tests.support.fleet import Fleet
from tests.support.journal import JOURNAL, STUCK
from tests.support.queue import scalar
from tests.support.servers import DURABLE, kill, start
from tests.support.sessions import wait_until
from tests.support.steady import kept, produce, work

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.support.fleet import Member
    from tests.support.sessions import Connection

PATIENCE = 60.0  # seconds, for what takes a few
POLICIES = {"one": (1, None), "three": (3, None), "slow": (None, 20), "both": (2, 10)}
CHANNELS: list[str | None] = [*POLICIES, "free", None]


def prepare(dsn: str) -> None:
    """The queue, its journal, and a few policies."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        install(conn, "lonny")
        conn.execute("CREATE EXTENSION amcheck")
        conn.execute(JOURNAL)
        for channel, policy in POLICIES.items():
            policy_set(conn, channel, policy)


def connected(dsn: str) -> Connection:
    return psycopg.connect(dsn, autocommit=True)


class Load:
    """Three producers and five workers."""

    def __init__(self, fleet: Fleet, dsn: str) -> None:
        self.fleet = fleet
        self.dsn = dsn
        self.producers = [fleet.start(produce, dsn, CHANNELS) for _ in range(3)]
        self.workers = [fleet.start(work, dsn) for _ in range(5)]

    def progress(self, count: int) -> None:
        """Wait until so many more messages are created, and some of them are deleted."""
        with connected(self.dsn) as conn:
            created, ended = (self._count(conn, table) for table in ("creation", "ending"))
            wait_until(
                lambda: (
                    self._count(conn, "creation") >= created + count
                    and self._count(conn, "ending") >= ended + count // 2
                ),
                "it goes on",
                PATIENCE,
            )

    def finish(self) -> tuple[int, int]:
        """Until the queue is empty, then as `kept`."""
        self.fleet.order("calm")
        told = [producer.result() for producer in self.producers]
        with connected(self.dsn) as conn:
            left = "SELECT count(*) FROM lonny.message"
            wait_until(lambda: scalar(conn, left) == 0, "the queue is empty", PATIENCE)
            self.fleet.order("stop")
            told += [worker.result() for worker in self.workers]
            in_order(conn)
            print(f"{sum(one.num_errors for one in told)} errors", end=", ")
            created, delivered = kept(conn, told)
            print(f"{created} messages, {delivered} deliveries")
            return created, delivered

    @staticmethod
    def _count(conn: Connection, table: str) -> int:
        return int(scalar(conn, sql.SQL("SELECT count(*) FROM journal.{}").format(sql.Identifier(table))))


def in_order(conn: Connection) -> None:
    assert conn.execute("SELECT kind, channel, message_id, found FROM lonny.check()").fetchall() == []
    assert conn.execute(STUCK).fetchall() == []


@pytest.mark.timeout(900)
def test_a_server_that_is_killed_under_load_loses_nothing(at_length: bool) -> None:
    num_crashes = 20 if at_length else 1
    with private_server(**DURABLE) as server, Fleet(seed=0) as fleet:
        dsn = server.dsn()
        prepare(dsn)
        load = Load(fleet, dsn)
        for _ in range(num_crashes):
            load.progress(100)
            kill(server)
            start(server)
            with connected(dsn) as conn:
                in_order(conn)
            server.run("pg_amcheck", "--heapallindexed", "--jobs=2", "postgres")
        load.progress(100)
        created, delivered = load.finish()
        server.run("pg_amcheck", "--heapallindexed", "postgres")
    assert delivered > created >= 100 * num_crashes


def test_workers_and_producers_that_are_killed_lose_nothing(at_length: bool) -> None:
    with private_server(**DURABLE) as server, Fleet(seed=0) as fleet:
        prepare(server.dsn())
        load = Load(fleet, server.dsn())
        for turn in range(100 if at_length else 6):
            load.progress(10)
            members: list[Member] = load.workers if turn % 2 else load.producers
            place = turn // 2 % len(members)
            members[place].process.kill()
            members[place] = fleet.replace(members[place])
        created, delivered = load.finish()
    assert delivered > created


@pytest.mark.timeout(600)
def test_a_failover_to_a_synchronous_replica_loses_nothing(at_length: bool) -> None:
    num_failovers = 3 if at_length else 1
    with Fleet(seed=0) as fleet:
        servers = [private_server(**DURABLE) for _ in range(1 + num_failovers)]
        try:
            dsn = make_conninfo(
                servers[0].start().dsn(),
                host=",".join(str(server.root) for server in servers),
                port=",".join("5432" for _ in servers),
                target_session_attrs="read-write",
            )
            prepare(dsn)
            load = Load(fleet, dsn)
            for primary, replica in pairwise(servers):
                replicate(primary, replica)
                load.progress(100)
                kill(primary)
                with connected(replica.dsn()) as conn:
                    conn.execute("ALTER SYSTEM RESET synchronous_standby_names")
                    assert scalar(conn, "SELECT pg_promote()") is True
                    conn.execute("SELECT pg_reload_conf()")
                    in_order(conn)
            load.progress(100)
            created, delivered = load.finish()
        finally:
            for server in servers:
                server.destroy()
    assert delivered > created


def replicate(primary: PrivateServer, replica: PrivateServer) -> None:
    """Make a replica without which the primary acknowledges nothing from now on."""
    backup = ["--checkpoint=fast", "--no-sync", "--write-recovery-conf"]
    primary.run("pg_basebackup", f"--pgdata={replica.data}", *backup)
    replica.start()
    with connected(primary.dsn()) as conn:
        conn.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        conn.execute("SELECT pg_reload_conf()")
        state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: scalar(conn, state) == 1, "the replica is synchronous", PATIENCE)


@contextmanager
def small_disk(folder: Path) -> Generator[Path]:
    """A file system of 160 MiB, in memory."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "pylonny-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        f"needs a file system to fill: run it where root may mount ({done.stderr.strip()})"
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.at_length
@pytest.mark.timeout(600)
def test_a_full_disk_gives_errors_and_nothing_is_lost(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = DURABLE | {"min_wal_size": "32MB", "max_wal_size": "48MB", "restart_after_crash": "on"}
    with (
        small_disk(tmp_path_factory.mktemp("disk") / "d") as disk,
        PrivateServer(disk / "s", settings, temporary=True) as server,
        Fleet(seed=0) as fleet,
    ):
        dsn = server.dsn()
        prepare(dsn)
        load = Load(fleet, dsn)
        ballast = disk / "ballast"
        errors: list[psycopg.Error] = []
        for _ in range(3):
            load.progress(100)
            fill(ballast)
            errors.append(refused(dsn))
            ballast.unlink()
            if not answers(dsn):
                start(server)
            with connected(dsn) as conn:
                in_order(conn)
        load.progress(100)
        created, delivered = load.finish()
        server.run("pg_amcheck", "--heapallindexed", "postgres")
    print([error.sqlstate or str(error) for error in errors])
    assert any(isinstance(error, psycopg.errors.DiskFull) for error in errors)
    assert delivered > created


def fill(ballast: Path) -> None:
    """Leave no byte of its disk."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(shutil.disk_usage(ballast.parent).free or 1))


def refused(dsn: str) -> psycopg.Error:
    """Create large messages until the server says why it can't, or is down."""
    noise = os.urandom(1024**2)
    while True:
        try:
            with connected(dsn) as conn:
                conn.execute("SELECT journal.create('free', 1, 1000, 0) FROM generate_series(1, 100)")
                with conn.transaction(force_rollback=True):
                    conn.execute("SELECT lonny.message_create('free', %b, 1000)", [noise])
        except psycopg.OperationalError as error:
            return error


def answers(dsn: str) -> bool:
    """Whether the server runs, after it has recovered by itself perhaps."""

    def is_decided() -> bool:
        try:
            connected(dsn).close()
        except psycopg.OperationalError as error:
            return "starting up" not in str(error) and "recovery" not in str(error)
        return True

    wait_until(is_decided, "the server is up or down", PATIENCE)
    with suppress(psycopg.OperationalError):
        connected(dsn).close()
        return True
    return False
