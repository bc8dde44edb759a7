"""Which statements wait for locks of others: seen in the server's views, again and again, and in its log."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import psycopg

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

# For the sessions that are watched: in the log from a millisecond on.
OPTIONS = "-c log_lock_waits=on -c deadlock_timeout=1ms"

# What no statement should wait for: the locks that transactions and functions take. Not here: that a table is
# being extended by another session, or locked by a vacuum that gives pages back, whatever the statement.
_SEEN = """
SELECT a.query, a.wait_event, l.relation::regclass::text
  FROM pg_stat_activity a LEFT JOIN pg_locks l ON l.pid = a.pid AND NOT l.granted
 WHERE a.wait_event_type = 'Lock' AND a.datname = current_database()
   AND a.wait_event IN ('transactionid', 'virtualxid', 'tuple', 'object', 'advisory', 'spectoken', 'userlock')
"""
_KINDS = r"transaction|virtual transaction|tuple|object|advisory lock|speculative token|user lock"
_ENTRY = re.compile(
    r"^\S+ \S+ \S+ \[(\d+)\] (LOG|ERROR|FATAL|DETAIL|HINT|CONTEXT|STATEMENT):  ", re.MULTILINE
)
_STILL_WAITING = re.compile(rf"process \d+ still waiting for \w+ on ({_KINDS}) ")


class Wait(NamedTuple):
    """A statement that waited."""

    query: str
    kind: str
    what: str
    """The relation or, from the log, the context: where in the statement it waited."""


@contextmanager
def watched(dsn: str, log: Path) -> Generator[list[Wait]]:
    """Collect the waits in a database while the block runs; the list is complete after the block."""
    waits: list[Wait] = []
    failures: list[Exception] = []
    over = threading.Event()
    offset = log.stat().st_size

    def sample() -> None:
        try:
            with psycopg.connect(dsn, autocommit=True) as conn:
                while not over.wait(0.005):
                    waits.extend(Wait(*row) for row in conn.execute(_SEEN).fetchall())
        except Exception as failure:  # noqa: BLE001 (raised below)
            failures.append(failure)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield waits
    finally:
        over.set()
        sampler.join()
    for failure in failures:
        raise failure
    with log.open("rb") as file:
        file.seek(offset)
        waits.extend(logged(file.read().decode(errors="replace")))


def logged(text: str) -> list[Wait]:
    """The waits that a server's log tells of."""
    waits: list[Wait] = []
    entries = _ENTRY.split(text)[1:]
    for i in range(0, len(entries), 3):
        pid, _, message = entries[i : i + 3]
        if found := _STILL_WAITING.match(message):
            # What belongs to it follows under the same pid, at once.
            told: dict[str, str] = {}
            for j in range(i + 3, len(entries), 3):
                if entries[j] != pid or entries[j + 1] in ("LOG", "ERROR", "FATAL"):
                    break
                told[entries[j + 1]] = entries[j + 2].strip()
            waits.append(Wait(told.get("STATEMENT", ""), found[1], told.get("CONTEXT", "")))
    return waits
