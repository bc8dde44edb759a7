"""Upgrading beside producers and workers, from the snapshot of this release to a next version, made up."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from pylonny import __version__
from pylonny.errors import InstallError
from pylonny.migrate import install, status, uninstall
from pylonny.server import PrivateServer
from pylonny.templates import Templates
from tests.migration import next_version
from tests.migration.conftest import Connector, Rows, dump, objects, until
from tests.support.sessions import Connection, background

RELEASE = Path(__file__).parents[1] / "releases" / f"{__version__}.sql"

CREATE = "SELECT lonny.message_create(channel => %s, content => %s, lock_ms => 60000)"
DEQUEUE = (
    "SELECT result::text, id, channel, content, num_attempts, retry_ms"
    " FROM lonny.message_dequeue(max_messages => %s)"
)
DELETE = "SELECT lonny.message_delete(id => %s, num_attempts => %s)::text"


@pytest.fixture
def next_root(root: Path) -> Path:
    """The templates of the next version."""
    next_version.change(root)
    return root


@pytest.fixture(autouse=True)
def released(server: PrivateServer, empty: str) -> None:
    """What this release installs, as it was written down."""
    options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    server.run("psql", *options, f"--dbname={empty}", f"--file={RELEASE}")


def label(conn: Connection, id_: int) -> Any:
    [(found,)] = conn.execute("SELECT label FROM lonny.message WHERE id = %s", [id_]).fetchall()
    return found


def test_the_next_version_does_what_it_is_made_up_for(conn: Connection, next_root: Path) -> None:
    before = conn.execute(CREATE, ["a", b"before"]).fetchall()
    assert install(conn, root=next_root).applied == ("migrations/0002_label.sql",)
    [(id_,)] = conn.execute("SELECT lonny.message_create('a', 'x', 1000, label => 'urgent')").fetchall()
    assert label(conn, id_) == "urgent"
    rows = conn.execute("SELECT id, label FROM lonny.message_dequeue(10)").fetchall()
    assert rows == [(before[0][0], None), (id_, "urgent")]
    [found] = status(conn, root=next_root)
    assert (found.version, found.pending, found.drift) == (2, (), ())


def test_a_first_install_and_an_upgrade_end_in_the_same(
    server: PrivateServer, empty: str, conn: Connection, next_root: Path
) -> None:
    recorded = "SELECT * FROM lonny.object ORDER BY kind, name, part"
    install(conn, root=next_root)
    upgraded = dump(server, empty), conn.execute(recorded).fetchall()
    assert uninstall(conn, root=next_root).dropped_schema
    install(conn, root=next_root)
    assert (dump(server, empty), conn.execute(recorded).fetchall()) == upgraded


# Calls that an upgrade catches on their way: they have begun in the release, and go on in the next version

CALLS: dict[str, tuple[LiteralString, list[Any], Rows]] = {
    "create": (CREATE, ["b", b"x"], [(4,)]),
    "create without a channel": (CREATE, [None, b"x"], [(4,)]),
    "create in a limited channel": (CREATE, ["limited", b"x"], [(4,)]),
    "create by position": ("SELECT lonny.message_create('b', 'x', 1000, 0)", [], [(4,)]),
    "create many": ("SELECT lonny.message_create_many('{b,c}', '{x,y}', '{1000}')", [], [(4,), (5,)]),
    "dequeue": (DEQUEUE, [1], [("MESSAGE_DEQUEUED", 2, "a", b"content", 1, None)]),
    "dequeue many": (DEQUEUE, [1000], [("MESSAGE_DEQUEUED", 2, "a", b"content", 1, None)]),
    "dequeue in the list": ("SELECT (lonny.message_dequeue(1)).id", [], [(2,)]),
    "delete": (DELETE, [1, 1], [("MESSAGE_DELETED",)]),
    "delete many": (
        "SELECT (lonny.message_delete_many('{1}', '{1}')).result::text",
        [],
        [("MESSAGE_DELETED",)],
    ),
    "defer": ("SELECT lonny.message_defer(1, 1)::text", [], [("MESSAGE_DEFERRED",)]),
    "heartbeat": ("SELECT lonny.message_heartbeat(1, 1)::text", [], [("MESSAGE_HEARTBEATED",)]),
    "cancel": ("SELECT lonny.message_cancel(2)::text", [], [("MESSAGE_CANCELLED",)]),
    "status": (
        "SELECT id, status::text FROM lonny.message_status(ids => '{1,2}')",
        [],
        [(1, "LOCKED"), (2, "READY")],
    ),
}
# How a session has called before, and calls.
WAYS = ["plain", "prepared", "prepared by a call before", "in a transaction"]


def fill(conn: Connection) -> None:
    """Message 1 is dequeued, 2 is ready, 3 is held back: its channel is limited."""
    conn.execute(CREATE, ["a", b"content"])
    conn.execute("SELECT lonny.message_dequeue()")
    conn.execute("SELECT lonny.channel_policy_set('limited', 0)")
    conn.execute(CREATE, ["a", b"content"])
    conn.execute(CREATE, ["limited", b"content"])


def caller(open_as: Connector, way: str, statement: LiteralString, parameters: list[Any]) -> Connection:
    conn = open_as(prepare_threshold=None if way == "plain" else 0)
    if way == "prepared by a call before":  # so that all its functions are compiled, and their plans made
        with conn.transaction(force_rollback=True):
            conn.execute(statement, parameters)
    if way == "in a transaction":  # that has not touched the queue
        conn.execute("BEGIN")
        conn.execute("SELECT 1")
    return conn


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_waits_for_an_upgrade_goes_on_after_it(
    conn: Connection, open_as: Connector, next_root: Path, call: str, way: str
) -> None:
    fill(conn)
    conn.execute("ALTER SEQUENCE lonny.message_id_seq RESTART 4")
    statement, parameters, expected = CALLS[call]
    calling = caller(open_as, way, statement, parameters)
    conn.execute("SELECT setval('lonny.message_id_seq', 3)")
    upgrading = open_as(autocommit=False)
    upgrading.execute("SELECT 1")
    install(upgrading, root=next_root)
    with background(calling, statement, parameters) as step:
        assert step.blocked_by() == [upgrading.info.backend_pid]
        upgrading.commit()
        assert step.result() == expected


@pytest.mark.parametrize("way", WAYS)
def test_a_dequeue_that_finds_nothing_after_an_upgrade_says_so(
    open_as: Connector, next_root: Path, way: str
) -> None:
    calling = caller(open_as, way, DEQUEUE, [1])
    upgrading = open_as(autocommit=False)
    upgrading.execute("SELECT 1")
    install(upgrading, root=next_root)
    with background(calling, DEQUEUE, [1]) as step:
        assert step.blocked_by() == [upgrading.info.backend_pid]
        upgrading.commit()
        assert step.result() == [("MESSAGE_NOT_AVAILABLE", None, None, None, None, None)]


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_a_statement_that_was_planned_before_an_upgrade_is_executed_after_it(
    conn: Connection, open_as: Connector, next_root: Path, call: str, is_compiled: bool
) -> None:
    # Between the two there is only an instant, made longer here by a cursor: it looks its functions up when
    # it is declared. Then the session learns of the upgrade, and they are called.
    fill(conn)
    statement, parameters, expected = CALLS[call]
    calling = open_as(autocommit=False)
    if is_compiled:
        calling.execute(statement, parameters)
        calling.rollback()
    conn.execute("SELECT setval('lonny.message_id_seq', 3)")
    with calling.cursor("c") as cursor:
        cursor.execute(statement, parameters)
        install(conn, root=next_root)
        calling.execute("SELECT count(*) FROM pg_class")
        assert cursor.fetchall() == expected
    calling.commit()


# Programs that go on


class Load:
    """Producers and workers of the release, each in a thread: what they have done, and what went wrong."""

    def __init__(self, dsn: str) -> None:
        self.stop = threading.Event()
        self.errors: list[str] = []
        self.counts: Counter[str] = Counter()
        self.longest = 0.0  # seconds that a statement has taken
        self._dsn = dsn
        self._lock = threading.Lock()
        self.created: set[int] = set()
        self.deleted: list[int] = []

    def run(self, body: Callable[[Connection], None], *, prepared: bool) -> None:
        """Call `body` again and again, with one connection until it fails."""
        try:
            with psycopg.connect(
                self._dsn, autocommit=True, prepare_threshold=0 if prepared else None
            ) as conn:
                while not self.stop.is_set():
                    body(conn)
        except psycopg.Error as error:
            self.errors.append(f"{body}: {error.sqlstate}: {error}")

    def execute(self, conn: Connection, statement: LiteralString, parameters: list[Any]) -> Rows:
        start = time.monotonic()
        rows = conn.execute(statement, parameters).fetchall()
        with self._lock:
            self.longest = max(self.longest, time.monotonic() - start)
        return rows

    def create(self, conn: Connection) -> None:
        for channel in ("a", "b", "limited", None):
            [(id_,)] = self.execute(conn, CREATE, [channel, b"content"])
            self.created.add(id_)

    def create_in_a_transaction(self, conn: Connection) -> None:
        with conn.transaction():
            conn.execute("SELECT count(*) FROM pg_class")
            self.create(conn)

    def work(self, conn: Connection, count: int = 1) -> None:
        for result, id_, _, content, num_attempts, _ in self.execute(conn, DEQUEUE, [count]):
            if result == "MESSAGE_DEQUEUED":
                assert content == b"content"
                assert self.execute(conn, DELETE, [id_, num_attempts]) == [("MESSAGE_DELETED",)]
                self.deleted.append(id_)

    def work_many(self, conn: Connection) -> None:
        self.work(conn, 10)

    def work_in_a_transaction(self, conn: Connection) -> None:
        with conn.transaction():
            conn.execute("SELECT 1")
            self.work(conn)

    def come_and_go(self, _: Connection) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            self.create(conn)
            self.work(conn)


def test_producers_and_workers_go_on_through_an_upgrade(
    conn: Connection, open_as: Connector, empty: str, next_root: Path
) -> None:
    lock_timeout_ms = 300
    conn.execute("SELECT lonny.channel_policy_set('limited', 1)")
    load = Load(empty)
    bodies = [
        load.create,
        load.create_in_a_transaction,
        load.work,
        load.work_many,
        load.work_in_a_transaction,
    ]
    with ThreadPoolExecutor(12) as pool, ExitStack() as stack:
        stack.callback(load.stop.set)
        programs = [pool.submit(load.run, body, prepared=True) for body in bodies]
        programs += [pool.submit(load.run, body, prepared=False) for body in [*bodies, load.come_and_go]]
        until(lambda: len(load.deleted) > 200)
        # A transaction that stays in the queue: the upgrade gives up at least once, and gets in after it.
        busy = open_as(autocommit=False)
        [(id_,)] = busy.execute(CREATE, ["a", b"content"]).fetchall()
        upgrade = pool.submit(install, conn, root=next_root, lock_timeout_ms=lock_timeout_ms)
        observer, pids = open_as(), [busy.info.backend_pid, conn.info.backend_pid]
        waits = "SELECT %s = ANY (pg_blocking_pids(%s))"
        until(lambda: observer.execute(waits, pids).fetchone() == (True,))
        until(lambda: observer.execute(waits, pids).fetchone() == (False,))
        busy.commit()
        load.created.add(id_)
        assert upgrade.result(timeout=60).version == 2
        done = len(load.deleted)
        until(lambda: len(load.deleted) > done + 200)
    for program in programs:
        program.result()
    assert load.errors == []
    assert load.longest < lock_timeout_ms / 1000 + 1
    # Nothing is lost, and nothing is there twice.
    left = [id_ for (id_,) in conn.execute("SELECT id FROM lonny.message").fetchall()]
    assert sorted(load.deleted + left) == sorted(load.created)


# An install that is killed


KILLER = """
CREATE SEQUENCE public.commands;
CREATE FUNCTION public.kill() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  IF nextval('public.commands') = current_setting('test.at')::bigint THEN
    PERFORM pg_terminate_backend(pg_backend_pid());
    PERFORM pg_sleep(0);  -- where it is noticed
  END IF;
END
$$;
CREATE EVENT TRIGGER kill ON ddl_command_start EXECUTE FUNCTION public.kill();
"""


@pytest.mark.parametrize("upgrade", [False, True])
def test_an_install_that_is_killed_at_any_command_leaves_what_was_there(
    conn: Connection, empty: str, next_root: Path, upgrade: bool, at_length: bool
) -> None:
    if not upgrade:
        uninstall(conn)
    conn.execute(KILLER)
    ledger = "SELECT m.*, t.* FROM lonny.migration m, lonny.template t ORDER BY m.version, t.path"

    def state() -> tuple[Rows, Rows]:
        return objects(conn), conn.execute(ledger).fetchall() if upgrade else []

    before, killed = state(), 0
    while True:
        killed += 1 if at_length else 7
        conn.execute("SELECT setval('public.commands', 1, false)")
        with psycopg.connect(empty, autocommit=True, options=f"-ctest.at={killed}") as victim:
            try:
                install(victim, root=next_root)
                break
            except InstallError:
                assert victim.closed
        assert state() == before, f"killed at command {killed}"
    assert killed > 80
    [found] = status(conn, root=next_root)
    assert (found.version, found.pending, found.drift) == (2, (), ())


@pytest.mark.parametrize("upgrade", [False, True])
def test_an_install_whose_connection_is_cut_between_statements_leaves_what_was_there(
    conn: Connection, empty: str, next_root: Path, upgrade: bool
) -> None:
    if not upgrade:
        uninstall(conn)
    before = objects(conn)
    statements = Templates(root=next_root).statements(from_version=1 if upgrade else None)
    ends = [*range(0, len(statements), 10), len(statements)]
    for end in ends:
        with psycopg.connect(empty) as victim:
            for statement in statements[:end]:
                victim.execute(statement.encode())
            victim.pgconn.finish()  # without a word
        until(
            lambda: (
                conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)
            )
        )
        assert objects(conn) == before, f"cut after statement {end}"
    install(conn, root=next_root)
    assert [found.version for found in status(conn, root=next_root)] == [2]
