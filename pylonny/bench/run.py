"""The order of things: each system in turn does each workload, again and again, and nothing is left."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, NoReturn

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pylonny.bench.drivers import Driver, Tick
from pylonny.bench.statistics import Rounds
from pylonny.bench.systems import Connection, Floor, Queue, System, execute, script
from pylonny.bench.workloads import Workload

WINDOW = 10  # seconds at the beginning and the end of a run beside a held snapshot

Json = dict[str, Any]
Place = Callable[[], AbstractContextManager[tuple[str, System]]]
"""Opens an empty schema, or database, for one run of a system; closed, it is gone. The first is its DSN."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure. `clients` None: as many as the workload has."""

    workloads: tuple[Workload, ...]
    seconds: int = 3
    snapshot_seconds: int = 120
    repetitions: int = 3
    clients: int | None = None
    begin: bool = False
    synchronous_commit: tuple[str, ...] = ("on", "off")


@dataclass(frozen=True, slots=True)
class Plan:
    """One run to come."""

    workload: Workload
    system: str
    synchronous_commit: str
    repetition: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Run:
    """What came of it."""

    workload: str
    system: str
    synchronous_commit: str
    repetition: int
    clients: int
    seconds: float
    messages: int
    """That were done from beginning to end."""
    per_second: float
    missed: int
    """How many more messages were asked for than came, although they were there."""
    lost: int
    """Messages that were dequeued, and neither deleted nor given back; nobody works on them any more."""
    wal_bytes: float
    """A message, of all that the server did meanwhile."""
    latency_ms: dict[str, float]
    """Percentiles of a whole round of the script."""
    steps_ms: dict[str, float]
    """Mean time of each step."""
    first_per_second: float | None
    """In the first seconds beside a held snapshot; else None."""
    last_per_second: float | None

    def to_json(self) -> Json:
        """As a row of the file."""
        return asdict(self)


def plans(options: Options, systems: Sequence[System], floors: Sequence[str]) -> list[Plan]:
    """All runs in their order: what is to be compared is measured one after the other, and all of it again.

    floors: the names of the systems that do a workload only where others are compared with it.
    """
    needed = {workload.floor or workload.name for workload in options.workloads}
    found: list[Plan] = []
    for repetition in range(1, options.repetitions + 1):
        for synchronous_commit in options.synchronous_commit:
            for workload in options.workloads:
                seconds = options.snapshot_seconds if workload.beside_snapshot else options.seconds
                found += [
                    Plan(workload, system.name, synchronous_commit, repetition, seconds)
                    for system in systems
                    if system.supports(workload) and (system.name not in floors or workload.name in needed)
                ]
    return found


def measure(place: Place, plan: Plan, driver: Driver, options: Options, tick: Tick) -> Run:
    """Do one run in a place of its own."""
    workload = plan.workload
    clients = options.clients or workload.clients
    with ExitStack() as stack:
        dsn, system = stack.enter_context(place())
        conn = stack.enter_context(connected(dsn))
        channel = system.install(conn, workload)
        if wanted := workload.messages(plan.seconds):
            system.load(conn, workload, wanted)
        there = system.left(conn).free
        if workload.beside_snapshot:
            stack.enter_context(_snapshot(dsn))
        if channel is not None:
            stack.enter_context(_listening(dsn, channel))
        todo = script(system, workload, begin=options.begin)
        before = _wal(conn)
        sessions = with_setting(dsn, "synchronous_commit", plan.synchronous_commit)
        rounds = driver.run(sessions, todo, clients, plan.seconds, tick)
        wal = _wal(conn) - before
        left = system.left(conn)
    asked = len(rounds.ends) * workload.batch
    created = 0 if workload.consumes else asked
    messages = there + created - left.free - left.taken
    first, last = _ends(rounds, workload)
    return Run(
        workload=workload.name,
        system=plan.system,
        synchronous_commit=plan.synchronous_commit,
        repetition=plan.repetition,
        clients=clients,
        seconds=round(rounds.seconds, 3),
        messages=messages,
        per_second=round(messages / rounds.seconds, 1),
        missed=asked - messages - left.taken,
        lost=left.taken,
        wal_bytes=round(wal / max(messages, 1), 1),
        latency_ms=rounds.percentiles_ms(),
        steps_ms=rounds.steps_ms,
        first_per_second=first,
        last_per_second=last,
    )


def _ends(rounds: Rounds, workload: Workload) -> tuple[float | None, float | None]:
    if not workload.beside_snapshot:
        return None, None
    first, last = rounds.first_and_last(WINDOW)
    return round(first * workload.batch, 1), round(last * workload.batch, 1)


def schema_place(dsn: str, make: Callable[[str], System]) -> Place:
    """Schemas of our own in a database that is somebody else's; `make` is given the schema's name."""

    @contextmanager
    def place() -> Generator[tuple[str, System]]:
        schema = f"pylonny_bench_{os.getpid()}_{os.urandom(4).hex()}"
        name = sql.Identifier(schema)
        with connected(dsn) as conn:
            conn.execute(sql.SQL("CREATE SCHEMA {}").format(name))
        try:
            yield dsn, make(schema)
        finally:
            with connected(dsn) as conn:  # another one: the last may have been interrupted
                conn.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(name))

    return place


def user_places(dsn: str) -> dict[str, tuple[System, Place]]:
    """What `python -m pylonny bench` compares."""
    return {
        Floor.name: (Floor("x"), schema_place(dsn, Floor)),
        Queue.name: (Queue("x"), schema_place(dsn, Queue)),
    }


@contextmanager
def connected(dsn: str) -> Generator[Connection]:
    """A connection in autocommit mode, closed at the end."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET client_min_messages = warning")
        yield conn


def with_setting(dsn: str, name: str, value: str) -> str:
    """A connection string whose sessions have that setting."""
    options = conninfo_to_dict(dsn).get("options")
    return make_conninfo(dsn, options=f"{options or ''} -c {name}={value}".strip())


@contextmanager
def _snapshot(dsn: str) -> Generator[None]:
    """Hold a snapshot: no row that is deleted from now on can be removed."""
    with connected(dsn) as conn:
        conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SELECT count(*) FROM pg_catalog.pg_class")
        yield


@contextmanager
def _listening(dsn: str, channel: str) -> Generator[None]:
    """Listen to a channel and read what comes."""
    over = threading.Event()

    def read(conn: Connection) -> None:
        while not over.is_set():
            for _ in conn.notifies(timeout=0.1):
                pass

    with connected(dsn) as conn:
        conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        thread = threading.Thread(target=read, args=[conn], daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _wal(conn: Connection) -> int:
    row = execute(conn, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    return int(row[0]) if row else 0


@contextmanager
def stoppable() -> Generator[None]:
    """Let signals to end raise KeyboardInterrupt, once: a second one must not break off the cleaning."""
    signals = [
        each
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(each) is not signal.SIG_IGN  # as it is under nohup
    ]
    before = {each: signal.getsignal(each) for each in signals}

    def stop(_: int, __: FrameType | None) -> NoReturn:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in signals:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
