"""The soak: a queue is used in every way, with every mishap, and has to keep its promises and its speed.

Producers and workers at 40 channels, policies that change, connections that are cut, processes and the server
killed, an old snapshot held now and then. All is written down, and held against the promises at the end.
"""

from __future__ import annotations

import argparse
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from pylonny.migrate import install
from pylonny.server import PrivateServer
from tests.support.chaos import policy_set
from tests.support.fleet import Fleet
from tests.support.journal import JOURNAL
from tests.support.load import CHANGING, CHANNELS, LIMITED
from tests.support.proxy import Proxy
from tests.support.queue import scalar
from tests.support.servers import DURABLE, kill, start
from tests.support.sessions import wait_until
from tests.support.steady import govern, kept, produce, work

if TYPE_CHECKING:
    from tests.support.fleet import Member
    from tests.support.sessions import Connection

QUIET = "quiet"  # a channel with a message a second, beside forty busy ones
_PRODUCERS, _WORKERS, _CUT_OFF = 3, 8, 2  # processes; of the workers so many have connections that are cut
_PAUSE = 0.1  # seconds at most between two batches of a producer: some 200 messages a second in all
_CHECK_EVERY, _KILL_EVERY, _CRASH_EVERY = 5, 5, 90  # seconds
_SNAPSHOT_EVERY, _SNAPSHOT_FOR = 60, 20  # seconds
_PATIENCE = 300.0  # seconds, for the end
_MOST_WAIT = 5.0  # seconds that a message of the quiet channel may wait while the server is up

_CHECK = "SELECT kind, channel, message_id, found FROM lonny.check()"
_SAMPLE = """
SELECT (SELECT count(*) FROM journal.creation),
       (SELECT count(*) FROM journal.ending e WHERE e.result IN ('MESSAGE_DELETED', 'MESSAGE_CANCELLED')),
       (SELECT count(*) FROM lonny.message),
       (SELECT sum(pg_table_size(s.relid)) FROM pg_stat_user_tables s WHERE s.schemaname = 'lonny'),
       (SELECT sum(pg_indexes_size(s.relid)) FROM pg_stat_user_tables s WHERE s.schemaname = 'lonny'),
       (SELECT sum(s.n_dead_tup) FROM pg_stat_user_tables s WHERE s.schemaname = 'lonny')
"""
_WAITS = """
SELECT extract(epoch FROM due_at)::float8, extract(epoch FROM locked_at)::float8 FROM journal.delivery
 WHERE channel = %s AND num_attempts = 1
"""
_HEADER = (
    "| minute | created/s | done/s | in the queue | tables MB | indexes MB | dead rows | longest wait ms |"
)


@dataclass
class Soak:
    """One run, and what it did."""

    server: PrivateServer
    fleet: Fleet
    producers: list[Member]
    workers: list[Member]
    governor: Member
    num_killed: int = 0
    num_snapshots: int = 0
    down: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """From when to when the server was down, in seconds since 1970."""
    findings: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    snapshot: Connection | None = None
    sampled: tuple[float, int, int] = (0.0, 0, 0)
    """Minute, created and done of the last line of the table."""

    def tick(self, second: int) -> None:
        """What happens in this second of the run."""
        if second % _CRASH_EVERY == _CRASH_EVERY - 1:
            self.drop_snapshot()
            began = time.time()
            kill(self.server)
            start(self.server)
            self.down.append((began, time.time()))
        if second % _SNAPSHOT_EVERY == _SNAPSHOT_EVERY // 3:
            self.snapshot = psycopg.connect(self.server.dsn(), isolation_level=None)
            self.snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            self.snapshot.execute("SELECT FROM lonny.message LIMIT 1")
            self.num_snapshots += 1
        elif second % _SNAPSHOT_EVERY == _SNAPSHOT_EVERY // 3 + _SNAPSHOT_FOR:
            self.drop_snapshot()
        if second % _KILL_EVERY == 0:
            members = self.workers if second % 2 else self.producers
            place = second // _KILL_EVERY % len(members)
            members[place].process.kill()
            members[place] = self.fleet.replace(members[place])
            self.num_killed += 1
        with psycopg.connect(self.server.dsn(), autocommit=True) as conn:
            conn.execute("SELECT journal.create(%s, 1, 1000, 0)", [QUIET])
            if second % _CHECK_EVERY == 0:
                self.findings += conn.execute(_CHECK).fetchall()
        for member in [*self.producers, *self.workers, self.governor]:
            if not member.is_killed and member.has_said:
                member.result()
                raise AssertionError("one has ended before its time")

    def drop_snapshot(self) -> None:
        if self.snapshot is not None:
            with suppress(psycopg.OperationalError):
                self.snapshot.close()
            self.snapshot = None

    def sample(self, conn: Connection, minute: float) -> None:
        """Print a line of the table."""
        counts = conn.execute(_SAMPLE).fetchall()[0]
        created, done, left, tables, indexes, dead = counts
        before, self.sampled = self.sampled, (minute, created, done)
        seconds = (minute - before[0]) * 60
        cells = [
            f"{minute:.1f}",
            f"{(created - before[1]) / seconds:.0f}",
            f"{(done - before[2]) / seconds:.0f}",
            f"{left}",
            f"{float(tables) / 1e6:.1f}",
            f"{float(indexes) / 1e6:.1f}",
            f"{dead}",
            f"{self.longest_wait(conn) * 1000:.0f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)

    def longest_wait(self, conn: Connection) -> float:
        """Of a message of the quiet channel, in seconds, those left out in which the server was down."""
        longest = 0.0
        for due_at, locked_at in conn.execute(_WAITS, [QUIET]).fetchall():
            down = sum(max(0.0, min(up, locked_at) - max(down, due_at)) for down, up in self.down)
            longest = max(longest, locked_at - due_at - down)
        return longest


def prepare(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        install(conn, "lonny")
        conn.execute("CREATE EXTENSION amcheck")
        conn.execute(JOURNAL)
        conn.execute("CREATE INDEX ON journal.delivery (channel, num_attempts)")
        for channel, policy in LIMITED.items():
            policy_set(conn, channel, policy)


def soak(minutes: float, seed: int) -> None:
    """Run it, print its table and its summary; AssertionError if a promise was broken."""
    with (
        PrivateServer(settings=DURABLE) as server,
        Proxy(server.root, seed=seed, chance=0.01) as proxy,
        Fleet(seed) as fleet,
    ):
        dsn = server.dsn()
        prepare(dsn)
        dsns = [proxy.dsn(dsn) if n < _CUT_OFF else dsn for n in range(_WORKERS)]
        run = Soak(
            server,
            fleet,
            producers=[fleet.start(produce, dsn, CHANNELS, _PAUSE) for _ in range(_PRODUCERS)],
            workers=[fleet.start(work, worker_dsn) for worker_dsn in dsns],
            governor=fleet.start(govern, dsn, CHANGING),
        )
        print(_HEADER + "\n" + "|---" * _HEADER.count(" | ") + "|---|", flush=True)
        began, second = time.monotonic(), 0
        while (passed := time.monotonic() - began) < minutes * 60:
            fleet.listen(max(0.0, second - passed))
            second = int(time.monotonic() - began) + 1
            run.tick(second)
            if second / 60 - run.sampled[0] >= max(0.5, minutes / 30):
                with psycopg.connect(dsn, autocommit=True) as conn:
                    run.sample(conn, second / 60)
        finish(run, dsn, proxy, minutes)


def finish(run: Soak, dsn: str, proxy: Proxy, minutes: float) -> None:
    """Let everything be done, and judge."""
    run.drop_snapshot()
    proxy.chance = 0.0
    run.fleet.order("calm")
    told = [member.result() for member in [*run.producers, run.governor]]
    with psycopg.connect(dsn, autocommit=True) as conn:
        left = "SELECT count(*) FROM lonny.message"
        wait_until(lambda: scalar(conn, left) == 0, "the queue is empty", _PATIENCE)
        run.fleet.order("stop")
        told += [worker.result() for worker in run.workers]
        run.findings += conn.execute(_CHECK).fetchall()
        assert not run.findings, "\n".join(str(finding) for finding in run.findings[:20])
        run.server.run("pg_amcheck", "--heapallindexed", "postgres")
        created, delivered = kept(conn, told)
        waited = run.longest_wait(conn)
    print(
        f"\n{minutes:g} minutes: {created} messages, {delivered} deliveries, {run.num_killed} processes and"
        f" {len(run.down)} times the server killed, {proxy.num_cuts} connections cut, {run.num_snapshots} old"
        f" snapshots; the longest wait in a quiet channel {waited * 1000:.0f} ms while the server was up."
        " All promises were kept."
    )
    assert waited < _MOST_WAIT


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="for how long (default: 30)")
    parser.add_argument("--seed", type=int, help="for the same mishaps again, as far as the system lets them")
    given = parser.parse_args()
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    print(f"--seed {seed}\n", flush=True)
    soak(given.minutes, seed)


if __name__ == "__main__":
    main()
