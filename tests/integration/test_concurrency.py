"""Producers and workers in processes of their own do all that they may do, and the queue keeps its promises.

What they do follows from a seed, which a failure shows; PYLONNY_SEED=<number> in the environment has them
do the same again, as far as the system that runs them lets them. What they were given, and when, is in a
journal, which is held against the promises at the end. Nothing is judged by how long it took: a slow
machine makes a run longer, and gives it more locks that expire.
"""

from __future__ import annotations

import os
import secrets
import time
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.conninfo import make_conninfo

from tests.support.chaos import govern, policy_set, produce, work
from tests.support.fleet import Fleet
from tests.support.journal import JOURNAL, STUCK, Journal, audit
from tests.support.queue import scalar
from tests.support.waits import OPTIONS as LOG_WAITS
from tests.support.waits import logged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pylonny.server import PrivateServer
    from tests.conftest import Connect
    from tests.support.chaos import Policy
    from tests.support.fleet import Member
    from tests.support.sessions import Connection
    from tests.support.waits import Wait

_PRODUCERS = 3
_WORKERS = 8
_MESSAGES = 600  # of each producer, about
_DEADLINE = 120.0  # seconds, for what takes ten

_POLICIES: list[Policy] = [(1, None), (2, None), (5, None), (None, 15), (None, 40), (1, 25), (3, 10)]
_LIMITED = {f"limited-{n}": policy for n, policy in enumerate(islice(cycle(_POLICIES), 28))}
_FREE = [f"free-{n}" for n in range(7)]
# Lowered and raised; paused and resumed; set for the first time and cleared; one kind of limit for the other.
# The last of each lets the rest of the messages through.
_CHANGING: dict[str, Sequence[Policy]] = {
    "lowered": [(5, None), (1, None), (3, None)],
    "paused": [(2, None), (0, None), (0, None), (2, None)],
    "cleared": [(1, None), (None, None)],
    "slowed": [(None, 60), (None, 5), (None, 20)],
    "mixed": [(4, None), (None, 30), (1, 10), (None, None), (2, 5)],
}
_CHANNELS: list[str | None] = [*_LIMITED, *_FREE, *_CHANGING, None]


class _Run:
    """The workers of a run, and what was noticed meanwhile."""

    def __init__(self, fleet: Fleet, conn: Connection, workers: list[Member]) -> None:
        self.num_crashes = 0
        self.stuck: list[tuple[Any, ...]] = []
        self._fleet = fleet
        self._conn = conn
        self._workers = workers

    def go_on(self, is_over: Callable[[], bool], what: str) -> None:
        """Replace those that crash, and look for what is stuck, until it is over; AssertionError if never."""
        deadline = time.monotonic() + _DEADLINE
        while not is_over():
            assert time.monotonic() < deadline, f"not within {_DEADLINE} s: {what}"
            self._fleet.listen(0.05)
            for n, worker in enumerate(self._workers):
                if worker.is_killed:
                    self.num_crashes += 1
                    self._workers[n] = self._fleet.replace(worker)
            self.stuck += self._conn.execute(STUCK).fetchall()

    def end(self) -> None:
        self._fleet.order("stop")
        for worker in self._workers:
            worker.result()


@pytest.mark.timeout(400)
def test_nothing_is_lost_doubled_stuck_or_over_a_limit_whatever_producers_and_workers_do(
    server: PrivateServer, database: str, connect: Connect
) -> None:
    seed = int(os.environ.get("PYLONNY_SEED") or secrets.randbelow(10**6))
    print(f"PYLONNY_SEED={seed}")
    conn = connect()
    conn.execute(JOURNAL)
    for channel, policy in _LIMITED.items():
        policy_set(conn, channel, policy)
    dsn = make_conninfo(database, options=LOG_WAITS)
    log_offset = server.log.stat().st_size

    with Fleet(seed) as fleet:
        workers = [fleet.start(work, dsn) for _ in range(_WORKERS)]
        producers = [fleet.start(produce, dsn, _CHANNELS, _MESSAGES) for _ in range(_PRODUCERS)]
        governor = fleet.start(govern, dsn, _CHANGING)
        run = _Run(fleet, conn, workers)
        run.go_on(lambda: all(member.has_said for member in producers), "all messages are created")
        for member in producers:
            member.result()
        fleet.order("calm")
        run.go_on(lambda: governor.has_said, "the last policies are set")
        governor.result()
        run.go_on(lambda: not scalar(conn, "SELECT EXISTS (SELECT FROM lonny.message)"), "the queue is empty")
        run.end()

    journal = Journal.read(conn)
    audited = audit(journal)
    with server.log.open("rb") as log:
        log.seek(log_offset)
        waits = logged(log.read().decode(errors="replace"))
    num_redelivered = sum(delivery.num_attempts > 1 for delivery in journal.deliveries)
    print(
        f"{len(journal.created)} messages, {len(journal.deliveries)} deliveries,",
        f"{num_redelivered} of them not the first,",
        f"{run.num_crashes} crashes, {len(journal.versions)} policies, {audited.num_at_limit} up to a limit,",
        f"{audited.num_spaced} after an interval, {len(waits)} waits for one and the same message",
    )
    assert not audited.findings, _lines(audited.findings)
    assert not run.stuck, _lines(run.stuck)
    others = [wait for wait in waits if not _is_for_one_message(wait)]
    assert not others, _lines(others)
    assert scalar(conn, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    # The run was worth judging.
    assert run.num_crashes > 0
    assert num_redelivered > 0
    assert audited.num_at_limit > 0
    assert audited.num_spaced > 0


def _lines(findings: Sequence[object]) -> str:
    """In full, which a comparison of lists does not show."""
    return "\n".join(str(finding) for finding in findings[:20])


def _is_for_one_message(wait: Wait) -> bool:
    """Whether it waited for another that was deleting, deferring, cancelling or taking the same message."""
    enders = ("journal.delete", "journal.defer", "journal.cancel")
    return wait.kind in ("transaction", "tuple") and any(ender in wait.query for ender in enders)
