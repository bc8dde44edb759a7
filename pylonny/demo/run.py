"""The course of the demo, from the server's start to the verdict."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from shlex import join, quote
from typing import Any

import psycopg

from pylonny import migrate
from pylonny.demo import tables
from pylonny.demo.check import Killed, Rules, check
from pylonny.demo.files import File, find_files
from pylonny.demo.processes import Child, DemoError
from pylonny.demo.screen import Screen
from pylonny.demo.tables import Tenant
from pylonny.demo.worker import session_name
from pylonny.queue import Queue
from pylonny.server import PrivateServer

SCHEMA = "lonny"

_LEAST_TENANTS = 3  # one that is free, one with a limit, one with an interval
_LIMITED_FILES, _SPACED_FILES = 40, 20  # about what the channels with a rule should have
_INTERVAL_MS = 200
_SPACED_MS = 8000  # how long the one with an interval may take in all
_VICTIM = 1  # the number of the worker that is killed
_LOOK_SECONDS = 0.2  # between two looks at the queue
_MOMENT_SECONDS = 0.01  # between two looks at what is about to happen
_STUCK_SECONDS = 30.0  # without a new result, though nothing takes as long: what is not done is lost
_SLOWEST = 5e6  # bytes a second that a worker hashes at least

_Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose. lock_ms is short, so that what the killed worker held comes back soon."""

    root: Path | None = None
    workers: int = 4
    batch: int = 10
    lock_ms: int = 3000
    keep: bool = False


def run(options: Options, screen: Screen) -> bool:
    """Run the demo once; True if all was seen to be as promised.

    In the end nothing is left of it, but for the server if it is to be kept. Raises DemoError, ServerError,
    Error or psycopg.Error if it could not be carried through.
    """
    screen.say(
        "pylonny is a message queue that is nothing but PostgreSQL. Here it does a real job.\n", "bold"
    )
    server = PrivateServer()
    kept = False
    try:
        screen.say("Starting a private PostgreSQL ...")
        server.start()
        good = perform(options, server, screen)
        if options.keep:
            server.keep()
            kept = True
            screen.say(
                f"\nThe server is still up. Look into the queue's tables {SCHEMA}.* and the demo's demo.*:\n"
                f"  {join([str(server.bin / 'psql'), server.dsn()])}\n"
                "Stop it and remove what it wrote:\n"
                f"  {server.stop_command()}\n"
                f"  rm -r {quote(str(server.root))}"
            )
        return good
    finally:
        if not kept:
            server.destroy()


def perform(options: Options, server: PrivateServer, screen: Screen) -> bool:
    """Do the job on a server that runs, and report on it."""
    with ExitStack() as stack:
        conn = stack.enter_context(psycopg.connect(server.dsn(), autocommit=True))
        migrate.install(conn, SCHEMA)
        conn.execute(tables.TABLES)
        version = conn.info.parameter_status("server_version")
        screen.say(f"PostgreSQL {version} runs in {server.root}, the queue in its schema {SCHEMA}.\n")
        files = find_files(options.root, without=server.root)
        tenants, rules = set_rules(conn, files)
        explain(screen, options, tenants, rules)
        producer, workers = start(stack, options, server, len(files))
        with screen:
            killed = Course(conn, screen, options, files, tenants).follow(producer, workers)
        for worker in workers.values():
            worker.finish()
        screen.say("\nDone. Comparing every hash with a direct computation ...\n")
        report = check(conn, SCHEMA, files, rules, killed)
        screen.summarise(report.claims, report.problems)
        if report.problems:
            screen.say("\nNot all is as promised.", "bold red")
        else:
            screen.say("\nAll is as promised.", "bold green")
        return not report.problems


def set_rules(conn: _Connection, files: Sequence[File]) -> tuple[list[Tenant], Rules]:
    """The tenants, the largest first, and a policy for two small ones, where it does not hold up the demo."""
    sizes = Counter(file.channel for file in files).most_common()
    if len(sizes) < _LEAST_TENANTS:
        raise DemoError(
            f"{len(sizes)} top-level packages are too few, it takes {_LEAST_TENANTS}: choose another --root"
        )
    small = sizes[1:]
    spaced, size = min(small, key=lambda each: abs(each[1] - _SPACED_FILES))
    limited, _ = min(
        (each for each in small if each[0] != spaced), key=lambda each: abs(each[1] - _LIMITED_FILES)
    )
    rules = Rules(limited, 1, spaced, max(1, min(_INTERVAL_MS, _SPACED_MS // size)))
    queue = Queue(SCHEMA)
    queue.channel(limited).policy.set(conn, max_concurrency=rules.max_concurrency)
    queue.channel(spaced).policy.set(conn, release_interval_ms=rules.interval_ms)
    marks = {limited: f"{rules.max_concurrency} at a time", spaced: f"every {rules.interval_ms} ms"}
    return [Tenant(name, total, marks.get(name, "")) for name, total in sizes], rules


def explain(screen: Screen, options: Options, tenants: Sequence[Tenant], rules: Rules) -> None:
    """Say what is about to happen."""
    where = f"under {options.root}" if options.root else "of this Python installation"
    total = sum(tenant.total for tenant in tenants)
    single = sum(tenant.total == 1 for tenant in tenants)
    screen.say(
        f"The job: the SHA-256 of all {total:,} files {where}. Each of the {len(tenants):,} top-level"
        f" packages is a tenant with a channel of its own: {tenants[0].name} has {tenants[0].total:,} files,"
        f" {single:,} have just one."
    )
    screen.say(
        f"The rules: {rules.limited} {rules.max_concurrency} at a time; {rules.spaced} one every"
        f" {rules.interval_ms} ms; all others as fast as it goes, each in its turn."
    )
    screen.say(
        f"The workers: {options.workers} processes. Each takes up to {options.batch} messages at a time, and"
        " stores a file's hash in the transaction that deletes its message."
        f" Worker {_VICTIM} will be killed on the way.\n"
    )


def start(
    stack: ExitStack, options: Options, server: PrivateServer, total: int
) -> tuple[Child, dict[int, Child]]:
    """The producer process and the workers by number, ready to begin. The stack ends them if need be."""

    def child(name: str, module: str, *arguments: object) -> Child:
        common = ("--dsn", server.dsn(), "--schema", SCHEMA, "--lock-ms", options.lock_ms)
        started = Child(name, module, [str(argument) for argument in (*common, *arguments)])
        stack.callback(started.kill)
        return started

    # The victim works for the first third or so. Of a small job it might not get that much.
    third = total // options.workers // 3
    stall = ("--stall-after", third if third >= 10 * options.batch else 0)
    producer = child("producer", "pylonny.demo.producer")
    workers: dict[int, Child] = {}
    for number in range(1, options.workers + 1):
        arguments = ("--number", number, "--batch", options.batch, *(stall if number == _VICTIM else ()))
        workers[number] = child(f"worker {number}", "pylonny.demo.worker", *arguments)
    for each in (producer, *workers.values()):
        each.expect_ready()
    return producer, workers


class Course:
    """What happens between the start and the last result, and telling of it."""

    def __init__(
        self,
        conn: _Connection,
        screen: Screen,
        options: Options,
        files: Sequence[File],
        tenants: Sequence[Tenant],
    ) -> None:
        self.conn = conn
        self.screen = screen
        self.options = options
        self.files = files
        self.tenants = tenants
        self.seconds = 0.0

    def follow(self, producer: Child, workers: dict[int, Child]) -> Killed | None:
        """Let all begin, and look on until every file has a result, or none comes any more.

        Returns the worker that was killed on the way, and takes it out of `workers`. Raises DemoError if
        another process fails.
        """
        victim = workers[_VICTIM]
        others = [worker for worker in workers.values() if worker is not victim]
        waiting = True
        killed: Killed | None = None
        returned = False
        done, changed = 0, 0.0
        patience = _STUCK_SECONDS + self.options.lock_ms / 1000 + max(f.size for f in self.files) / _SLOWEST
        began = time.monotonic()
        victim.begin()
        producer.begin(json.dumps(self.files))
        while True:
            self.seconds = time.monotonic() - began
            look = tables.look(self.conn, SCHEMA, self.seconds, self.tenants)
            self.screen.show(look)
            if look.all().done != done:
                done, changed = look.all().done, self.seconds
            if waiting and tables.any_delivery(self.conn):
                # The victim goes first: so there is something for it to hold, however small the job is.
                waiting = False
                for worker in others:
                    worker.begin()
            if killed is None and victim.has_said("holding"):
                killed = self.kill(workers.pop(_VICTIM))
            elif killed and not returned:
                returned = self.tell_return(killed)
            producing = producer.is_running()
            if not all(worker.is_running() for worker in workers.values()):
                raise DemoError("a worker ended before its time")
            if (done == len(self.files) and not producing) or self.seconds - changed > patience:
                return killed
            time.sleep(_MOMENT_SECONDS if waiting else _LOOK_SECONDS)

    def kill(self, victim: Child) -> Killed:
        """Kill the worker, and see what it held once the server has noticed: then nothing can change it."""
        victim.kill()
        while tables.has_session(self.conn, session_name(_VICTIM)):
            time.sleep(_MOMENT_SECONDS)
        killed = Killed(_VICTIM, tables.held_by(self.conn, _VICTIM))
        self.screen.print(
            f"{self.seconds:5.1f} s  Killed worker {killed.worker} (SIGKILL) while it held {len(killed.held)}"
            f" messages, locked for {self.options.lock_ms / 1000:g} s."
        )
        return killed

    def tell_return(self, killed: Killed) -> bool:
        """Whether all that the killed worker held was given to others."""
        back = tables.returned_from(self.conn, killed.worker, killed.held)
        if len(back) < len(killed.held):
            return False
        self.screen.print(f"{self.seconds:5.1f} s  All {len(back)} came back and went to other workers.")
        return True
