"""A load of all kinds: producers and workers in processes of their own, channels whose policies change."""

from __future__ import annotations

import time
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from tests.support.chaos import govern, policy_set, produce, work
from tests.support.journal import JOURNAL, STUCK, Journal, audit
from tests.support.queue import scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.support.chaos import Policy
    from tests.support.fleet import Fleet
    from tests.support.journal import Audit
    from tests.support.sessions import Connection

PRODUCERS = 3
WORKERS = 8
_DEADLINE = 120.0  # seconds, for what takes ten

_POLICIES: list[Policy] = [(1, None), (2, None), (5, None), (None, 15), (None, 40), (1, 25), (3, 10)]
LIMITED = {f"limited-{n}": policy for n, policy in enumerate(islice(cycle(_POLICIES), 28))}
FREE = [f"free-{n}" for n in range(7)]
# Lowered and raised; paused and resumed; set for the first time and cleared; one kind of limit for the other.
# The last of each lets the rest of the messages through.
CHANGING: dict[str, Sequence[Policy]] = {
    "lowered": [(5, None), (1, None), (3, None)],
    "paused": [(2, None), (0, None), (0, None), (2, None)],
    "cleared": [(1, None), (None, None)],
    "slowed": [(None, 60), (None, 5), (None, 20)],
    "mixed": [(4, None), (None, 30), (1, 10), (None, None), (2, 5)],
}
CHANNELS: list[str | None] = [*LIMITED, *FREE, *CHANGING, None]


def prepare(conn: Connection) -> None:
    """The journal, and the policies of the channels that keep theirs."""
    conn.execute(JOURNAL)
    for channel, policy in LIMITED.items():
        policy_set(conn, channel, policy)


class Run:
    """Processes at work on one queue, until so many messages are created and all are gone; what is noticed.

    conn: a connection of the test's own, to look with.
    pooled: their connections are a pooler's, on which nothing can be prepared.
    """

    def __init__(
        self, fleet: Fleet, conn: Connection, dsn: str, *, messages: int, pooled: bool = False
    ) -> None:
        self.num_crashes = 0
        self.stuck: list[tuple[Any, ...]] = []
        self._fleet = fleet
        self._conn = conn
        each = messages // PRODUCERS
        self._workers = [fleet.start(work, dsn, pooled) for _ in range(WORKERS)]
        self._producers = [fleet.start(produce, dsn, CHANNELS, each, pooled) for _ in range(PRODUCERS)]
        self._governor = fleet.start(govern, dsn, CHANGING, pooled)

    def finish(self) -> None:
        """Until all is created, and everything is done."""
        self._go_on(lambda: all(member.has_said for member in self._producers), "all messages are created")
        for member in self._producers:
            member.result()
        self._fleet.order("calm")
        self._go_on(lambda: self._governor.has_said, "the last policies are set")
        self._governor.result()
        left = "SELECT EXISTS (SELECT FROM lonny.message)"
        self._go_on(lambda: not scalar(self._conn, left), "the queue is empty")
        self._fleet.order("stop")
        for worker in self._workers:
            worker.result()

    def audit(self) -> Audit:
        """AssertionError if a promise was broken, or if there was too little to judge it by."""
        journal = Journal.read(self._conn)
        audited = audit(journal)
        num_redelivered = sum(delivery.num_attempts > 1 for delivery in journal.deliveries)
        print(
            f"{len(journal.created)} messages, {len(journal.deliveries)} deliveries,",
            f"{num_redelivered} of them not the first, {self.num_crashes} crashes,",
            f"{len(journal.versions)} policies, {audited.num_at_limit} up to a limit,",
            f"{audited.num_spaced} after an interval",
        )
        assert not audited.findings, lines(audited.findings)
        assert not self.stuck, lines(self.stuck)
        assert self._conn.execute("SELECT * FROM lonny.check()").fetchall() == []
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert scalar(self._conn, deadlocks) == 0
        assert self.num_crashes > 0
        assert num_redelivered > 0
        assert audited.num_at_limit > 0
        assert audited.num_spaced > 0
        return audited

    def _go_on(self, is_over: Callable[[], bool], what: str) -> None:
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


def lines(findings: Sequence[object]) -> str:
    """In full, which a comparison of lists does not show."""
    return "\n".join(str(finding) for finding in findings[:20])
