"""Producers and workers that outlive their server, and remember what it has acknowledged.

What an error tells them is that something was not done, or may not have been: they connect again and go on.
That something was done they are told by an answer, and that has to be true for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from tests.support.chaos import policy_set
from tests.support.journal import Journal, audit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.support.chaos import Policy
    from tests.support.fleet import Orders
    from tests.support.sessions import Connection

_CREATE = "SELECT journal.create(%s::text, %s::integer, %s::bigint, %s::bigint)"
_DEQUEUE = (
    "SELECT id, num_attempts, is_unlocked, state, retry_ms FROM lonny.message_dequeue(%s::integer, 800)"
)
_RECEIPT = "INSERT INTO journal.receipt VALUES (%s, %s, %s, %s)"
_DELETE = "SELECT journal.delete(%s::bigint, %s::integer)"
_DEFER = "SELECT journal.defer(%s::bigint, %s::integer, %s::bigint, %s::bytea)"
_HEARTBEAT = "SELECT journal.heartbeat(%s::bigint, %s::integer, NULL)"


@dataclass
class Acknowledged:
    """What one process was told to be done."""

    created: list[int] = field(default_factory=list[int])
    ended: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])
    """id, num_attempts and the answer of each delete and defer."""
    num_errors: int = 0
    """How often it was told that something has failed, or was cut off."""


def produce(orders: Orders, dsn: str, channels: Sequence[str | None], pause: float = 0.02) -> Acknowledged:
    """Create messages until it is calm, with a pause of up to so many seconds after each one or ten."""
    told = Acknowledged()

    def create(conn: Connection) -> None:
        random = orders.random
        count, delay_ms = random.choice([1, 1, 1, 10]), random.choice([0, 0, 0, 100])
        values = [random.choice(channels), count, 1000, delay_ms]
        told.created += [id_ for (id_,) in conn.execute(_CREATE, values).fetchall()]
        orders.rest(random.uniform(0.0, pause))

    _go_on(orders, dsn, told, create, lambda: orders.calm)
    return told


def work(orders: Orders, dsn: str) -> Acknowledged:
    """Take messages, delete or defer most of them and forget some, until it is to stop."""
    told = Acknowledged()

    def take(conn: Connection) -> None:
        random = orders.random
        rows = conn.execute(_DEQUEUE, [random.choice([1, 1, 5])]).fetchall()
        if rows[0][0] is None:
            retry_ms = rows[0][4]
            orders.rest(0.1 if retry_ms is None else min(retry_ms / 1000, 0.1))
            return
        for row in rows:
            conn.execute(_RECEIPT, row[:4])
        for id_, num_attempts, *_ in rows:
            if orders.chance(0.05):
                continue  # forgotten, until its lock is over
            if orders.chance(0.1):
                conn.execute(_HEARTBEAT, [id_, num_attempts])
            if orders.chance(0.2):
                query, values = _DEFER, [id_, num_attempts, random.choice([0, 50]), b"again"]
            else:
                query, values = _DELETE, [id_, num_attempts]
            for (result,) in conn.execute(query, values).fetchall():
                told.ended.append((id_, num_attempts, result))

    _go_on(orders, dsn, told, take, lambda: False)
    return told


def govern(orders: Orders, dsn: str, changing: dict[str, Sequence[Policy]]) -> Acknowledged:
    """Change policies, each channel to the next of its list, until it is calm; then to the last ones."""
    told = Acknowledged()
    turns = dict.fromkeys(changing, 0)
    settling = list(changing)

    def change(conn: Connection) -> None:
        channel = orders.random.choice(list(changing))
        turns[channel] += 1
        policy_set(conn, channel, changing[channel][turns[channel] % len(changing[channel])])
        orders.rest(orders.random.uniform(0.0, 1.0))

    def settle(conn: Connection) -> None:
        policy_set(conn, settling[-1], changing[settling[-1]][-1])
        settling.pop()

    _go_on(orders, dsn, told, change, lambda: orders.calm)
    _go_on(orders, dsn, told, settle, lambda: not settling)
    return told


def _go_on(
    orders: Orders,
    dsn: str,
    told: Acknowledged,
    act: Callable[[Connection], None],
    is_over: Callable[[], bool],
) -> None:
    while not (orders.stop or is_over()):
        try:
            with psycopg.connect(dsn, autocommit=True) as conn:
                while not (orders.stop or is_over()):
                    act(conn)
        # The server or the connection is gone, or comes back; the disk is full; or the like.
        except psycopg.OperationalError:
            told.num_errors += 1
            orders.rest(0.05)


def kept(conn: Connection, told: Sequence[Acknowledged]) -> tuple[int, int]:
    """AssertionError unless all that was acknowledged is in the journal, and no promise was broken.

    Returns how many messages were created, and how often one was delivered. The queue has to be empty.
    """
    journal = Journal.read(conn)
    lost = {id_ for one in told for id_ in one.created} - set(journal.created)
    assert not lost, f"acknowledged, and lost: {sorted(lost)[:20]}"
    endings = {(ending.id, ending.num_attempts, ending.result) for ending in journal.endings}
    undone = {ended for one in told for ended in one.ended} - endings
    assert not undone, f"acknowledged, and undone: {sorted(undone)[:20]}"
    findings = audit(journal, with_crashes=True).findings
    assert not findings, "\n".join(findings[:20])
    return len(journal.created), len(journal.deliveries)
