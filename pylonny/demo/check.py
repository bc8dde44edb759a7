"""What the demo claims at its end: each claim computed from the files and from the recorded deliveries."""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_high
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from pylonny.demo.files import File, shown
from pylonny.demo.tables import returned_from

_MANY = 20  # a channel with fewer files is over before its share means anything
_EXAMPLES = 3  # how many of the things that are wrong a problem names

_Connection = psycopg.Connection[Any]
_Query = LiteralString | sql.Composed
_Values = Sequence[object] | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Rules:
    """The two channels with a policy, and what it is."""

    limited: str
    max_concurrency: int
    spaced: str
    interval_ms: int


@dataclass(frozen=True, slots=True)
class Killed:
    """The worker that was killed, and what it held: num_attempts by the message's id."""

    worker: int
    held: dict[int, int]


@dataclass(slots=True)
class Report:
    """What was found: claims that hold, as (title, text), and problems, each a sentence."""

    claims: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    problems: list[str] = field(default_factory=list[str])

    def add(self, title: str, claim: str, problems: Iterable[str]) -> None:
        """Add the claim, or what contradicts it. Empty problems are none."""
        found = [problem for problem in problems if problem]
        self.problems += found
        if not found:
            self.claims.append((title, claim))


def check(
    conn: _Connection, schema: str, files: Sequence[File], rules: Rules, killed: Killed | None
) -> Report:
    """Verify the whole run; changes nothing."""
    report = Report()
    _measure(report, conn, files)
    _check_results(report, conn, schema, files)
    _check_deliveries(report, conn, killed)
    _check_limit(report, conn, rules)
    _check_interval(report, conn, rules)
    _compare_shares(report, conn, rules)
    return report


def _measure(report: Report, conn: _Connection, files: Sequence[File]) -> None:
    """Files, bytes, and the time from the first delivery to the last result."""
    channels = len({file.channel for file in files})
    size = sum(file.size for file in files)
    report.add("files", f"{len(files):,} in {channels:,} channels, {size:,} bytes", [])
    [(seconds,)] = _rows(
        conn,
        """
        SELECT extract(epoch FROM max(r.done_at) - (SELECT min(d.locked_at) FROM demo.delivery d))::float8
        FROM demo.result r
        """,
    )
    if seconds:
        report.add("speed", f"{seconds:.1f} seconds, {len(files) / seconds:,.0f} messages a second", [])


def _check_results(report: Report, conn: _Connection, schema: str, files: Sequence[File]) -> None:
    """Each file has one message, which is gone, and one result, which is the file's SHA-256."""
    expected = {shown(file.path): file for file in files}
    messages = Counter(_column(conn, "SELECT path FROM demo.file"))
    results: dict[str | None, list[tuple[bytes | None, str | None]]] = {}
    for path, digest, error in _rows(
        conn, "SELECT f.path, r.sha256, r.error FROM demo.result r LEFT JOIN demo.file f USING (message_id)"
    ):
        results.setdefault(path, []).append((digest, error))
    left = _column(conn, sql.SQL("SELECT id FROM {}.message ORDER BY id").format(sql.Identifier(schema)))
    report.add(
        "messages",
        "every file was done exactly once, none lost, none twice; the queue is empty",
        [
            _problem("file never had a message", [path for path in expected if not messages[path]]),
            _problem("file had more than one message", [path for path, n in messages.items() if n > 1]),
            _problem("file was lost", [path for path in expected if messages[path] and path not in results]),
            _problem(
                "file was done more than once", [path for path, each in results.items() if len(each) > 1]
            ),
            _problem("result belongs to no file", [path for path in results if path not in expected]),
            _problem("message is still in the queue", left),
        ],
    )
    errors = [f"{path}: {error}" for path, each in results.items() for _, error in each if error]
    wrong: list[str] = []
    with ThreadPoolExecutor() as pool:
        for path, right in zip(expected, pool.map(_sha256, expected.values()), strict=True):
            if any(digest != right for digest, error in results.get(path, []) if not error):
                wrong.append(path)
    report.add(
        "hashes",
        f"all {len(files):,} are those of a direct computation",
        [
            _problem("file could not be read", errors),
            _problem("hash is not that of the file (or the file has changed meanwhile)", wrong),
        ],
    )


def _check_deliveries(report: Report, conn: _Connection, killed: Killed | None) -> None:
    """What the killed worker held came back, as unlocked, and nothing else claims to have been unlocked."""
    if killed is None or not killed.held:
        report.problems.append("no worker was killed while it held messages")
        return
    back = returned_from(conn, killed.worker, killed.held)
    [(redelivered,)] = _rows(conn, "SELECT count(*) FROM demo.delivery WHERE num_attempts > 1")
    odd = _column(
        conn,
        """
        SELECT message_id FROM demo.delivery GROUP BY message_id
        HAVING count(*) <> max(num_attempts) OR count(*) <> count(DISTINCT num_attempts)
            OR bool_or(is_unlocked <> (num_attempts > 1))
        """,
    )
    others = redelivered - len(back)
    report.add(
        "redelivered",
        f"{redelivered:,} in all, {len(back):,} of them held by worker {killed.worker} when it was killed"
        + (f", {others:,} by workers that were too slow" if others else ""),
        [
            _problem("message of the killed worker did not come back", sorted(set(killed.held) - back)),
            _problem("message was not delivered as 1st, 2nd, ... and unlocked from the 2nd on", odd),
        ],
    )


def _check_limit(report: Report, conn: _Connection, rules: Rules) -> None:
    # A message is out from its dequeue until its result is stored or its lock runs out. (Rather until the
    # commit, and a lock may be extended: this can overlook a moment, but what it finds is wrong for sure.)
    [(deliveries, most)] = _rows(
        conn,
        """
        WITH delivery AS (
            SELECT d.locked_at, least(d.unlock_at, r.done_at) AS end_at
            FROM demo.delivery d LEFT JOIN demo.result r USING (message_id, num_attempts)
            WHERE d.channel = %s)
        SELECT count(*), max(
            (SELECT count(*) FROM delivery o WHERE o.locked_at <= d.locked_at AND o.end_at > d.locked_at))
        FROM delivery d
        """,
        [rules.limited],
    )
    exceeded = f"{rules.limited} had {most} messages out at once, it may have {rules.max_concurrency}"
    report.add(
        "limit",
        f"{rules.limited}: {deliveries:,} deliveries, never more than {rules.max_concurrency} at a time",
        [exceeded if (most or 0) > rules.max_concurrency else ""],
    )


def _check_interval(report: Report, conn: _Connection, rules: Rules) -> None:
    [(deliveries, gap_ms)] = _rows(
        conn,
        """
        SELECT count(*), 1000 * extract(epoch FROM min(gap))::float8
        FROM (
            SELECT locked_at - lag(locked_at) OVER (ORDER BY locked_at) AS gap
            FROM demo.delivery WHERE channel = %s) d
        """,
        [rules.spaced],
    )
    claim = f"{rules.spaced}: {deliveries:,} deliveries, at least {rules.interval_ms} ms apart"
    if gap_ms is None:
        report.add("interval", claim, [])
        return
    short = f"{rules.spaced} had two deliveries {gap_ms:.3f} ms apart, {rules.interval_ms} ms is the least"
    report.add(
        "interval", f"{claim} (the least: {gap_ms:.1f} ms)", [short if gap_ms < rules.interval_ms else ""]
    )


def _compare_shares(report: Report, conn: _Connection, rules: Rules) -> None:
    """How the largest channel and small ones were served while both had work. Not those with a policy."""
    sizes = _rows(
        conn,
        """
        SELECT channel, count(*) FROM demo.file WHERE channel <> ALL (%s)
        GROUP BY channel ORDER BY count(*) DESC, channel
        """,
        [[rules.limited, rules.spaced]],
    )
    if len(sizes) > 1:
        (largest, files), *others = sizes
        if small := [(name, few) for name, few in others if few >= _MANY]:
            _compare_turns(report, conn, largest, files, *small[-1])
        _compare_waiting(report, conn, largest, others[-1][1], rules)


def _compare_turns(
    report: Report, conn: _Connection, largest: str, files: int, smallest: str, few: int
) -> None:
    """First deliveries of two channels, from when both had one until one had its last."""
    [(ours, theirs)] = _rows(
        conn,
        """
        WITH delivery AS (
            SELECT channel, locked_at FROM demo.delivery
            WHERE channel IN (%(largest)s, %(smallest)s) AND num_attempts = 1),
        work AS (
            SELECT max(from_at) AS from_at, min(to_at) AS to_at
            FROM (SELECT min(locked_at) AS from_at, max(locked_at) AS to_at FROM delivery GROUP BY channel) c)
        SELECT count(*) FILTER (WHERE channel = %(largest)s), count(*) FILTER (WHERE channel = %(smallest)s)
        FROM delivery, work WHERE locked_at BETWEEN from_at AND to_at
        """,
        {"largest": largest, "smallest": smallest},
    )
    shares = (
        f"while both had work, {largest} ({files:,} files) was served {ours:,} times"
        f" and {smallest} ({few:,} files) {theirs:,} times"
    )
    unfair = max(ours, theirs) >= _MANY and max(ours, theirs) > 2 * min(ours, theirs)
    report.add("shares", shares, [shares if unfair else ""])


def _compare_waiting(report: Report, conn: _Connection, largest: str, few: int, rules: Rules) -> None:
    """What was in line before a file of the smallest channels, and how little of it was served before it."""
    queued = _column(conn, "SELECT created_at FROM demo.file WHERE channel = %s ORDER BY 1", [largest])
    served = _column(conn, "SELECT locked_at FROM demo.delivery WHERE channel = %s ORDER BY 1", [largest])
    waits = _rows(
        conn,
        """
        WITH smallest AS (
            SELECT channel FROM demo.file WHERE channel <> ALL (%s) GROUP BY channel HAVING count(*) = %s)
        SELECT f.created_at, d.locked_at
        FROM demo.file f JOIN smallest USING (channel) JOIN demo.delivery d USING (message_id)
        WHERE d.num_attempts = 1
        """,
        [[largest, rules.limited, rules.spaced], few],
    )
    if waits:
        in_line = median_high(bisect(queued, since) - bisect(served, since) for since, _ in waits)
        passed = median_high(bisect(served, until) - bisect(served, since) for since, until in waits)
        report.add(
            "waiting",
            f"a file of the smallest channels, with {few:,} each, found {in_line:,} of {largest} in line"
            f" and waited for {passed:,} of them (medians)",
            [],
        )


def _sha256(file: File) -> bytes | None:
    try:
        with Path(file.path).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return None


def _problem(what: str, things: Sequence[object]) -> str:
    """A problem that several things have, with a few examples; empty if there are none."""
    if not things:
        return ""
    examples = ", ".join(str(thing) for thing in things[:_EXAMPLES])
    more = f" and {len(things) - _EXAMPLES:,} more" if len(things) > _EXAMPLES else ""
    return f"{what}: {examples}{more}"


def _rows(conn: _Connection, query: _Query, values: _Values | None = None) -> list[Any]:
    return conn.execute(query, values).fetchall()


def _column(conn: _Connection, query: _Query, values: _Values | None = None) -> list[Any]:
    return [value for (value,) in _rows(conn, query, values)]
