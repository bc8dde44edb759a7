"""check and explain on a million messages in all states: what they take at most."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.support.queue import limit, scalar

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection

MOST_CHECK, MOST_EXPLAIN = 5.0, 0.005  # seconds
HOUR = 3_600_000  # ms

# In batches: channels, how many a batch, batches, delay_ms.
_CREATE = """
SELECT count(*) FROM lonny.message_create_many(
  ARRAY (SELECT {} FROM generate_series(1, 10000) AS n), array_fill('x'::bytea, ARRAY[10000]),
  '{{3600000}}', ARRAY[{}])
"""
_MANY, _FEW, _ONE, _NONE = "'many-' || n % 10000", "'few-' || n % 10", "'one'", "NULL"
_LIMITED, _SLOW, _PAUSED = "'limited-' || n % 1000", "'slow-' || n % 100", "'paused'"
_BATCHES: list[tuple[str, int, int]] = [
    (_MANY, 20, 0),
    (_FEW, 10, 0),
    (_ONE, 5, 0),
    (_NONE, 10, 0),
    (_LIMITED, 20, 0),
    (_SLOW, 5, 0),
    (_PAUSED, 5, 0),
    (_MANY, 10, HOUR),
    (_LIMITED, 10, HOUR),
    (_NONE, 5, HOUR),
]
_EXAMPLES = """
SELECT id FROM (
  SELECT m.id, row_number() OVER (
           PARTITION BY m.status, left(m.channel, 4), m.dequeue_at > now() ORDER BY hashint8(m.id)) AS n
    FROM lonny.message m) x
 WHERE n <= 5
"""


@pytest.fixture
def million(connect: Connect) -> Connection:
    conn = connect()
    limit(conn, [f"limited-{n}" for n in range(1000)], 3)
    limit(conn, [f"slow-{n}" for n in range(100)], None, HOUR)
    limit(conn, "paused", 0)
    for channels, count, delay_ms in _BATCHES:
        for _ in range(count):
            conn.execute(_CREATE.format(channels, delay_ms).encode())
    for lock_ms in (HOUR, 0):
        for _ in range(50):
            conn.execute("SELECT count(*) FROM lonny.message_dequeue(500, %s)", [lock_ms])
    assert scalar(conn, "SELECT count(*) FROM lonny.message") == 1_000_000
    assert scalar(conn, "SELECT count(DISTINCT status) FROM lonny.message") == 3
    return conn


def seconds(conn: Connection, query: LiteralString, *values: object) -> float:
    """What a call takes: the best of five, since others may use the machine too."""
    times: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        conn.execute(query, values, prepare=True).fetchall()
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.at_length
@pytest.mark.timeout(900)
@pytest.mark.parametrize("is_analyzed", [False, True], ids=["new", "analyzed"])
def test_a_million_messages_are_checked_in_seconds_and_one_is_explained_in_milliseconds(
    million: Connection, is_analyzed: bool
) -> None:
    if is_analyzed:
        million.execute("VACUUM ANALYZE")
    ids = [id_ for (id_,) in million.execute(_EXAMPLES).fetchall()]
    channels = [
        *(f"{name}-{n}" for name in ("many", "few", "limited", "slow") for n in range(5)),
        "one",
        "paused",
    ]
    assert len(ids) > 50
    check = seconds(million, "SELECT * FROM lonny.check()")
    messages = {id_: seconds(million, "SELECT * FROM lonny.message_explain(%s)", id_) for id_ in ids}
    named = {name: seconds(million, "SELECT * FROM lonny.channel_explain(%s)", name) for name in channels}
    slowest, slowest_channel = max(messages, key=messages.__getitem__), max(named, key=named.__getitem__)
    print(
        f"check {check:.2f} s, message_explain up to {messages[slowest] * 1000:.1f} ms,"
        f" channel_explain up to {named[slowest_channel] * 1000:.1f} ms"
    )
    assert million.execute("SELECT kind, found FROM lonny.check()").fetchall() == []
    assert check < MOST_CHECK
    what = million.execute("SELECT * FROM lonny.message_explain(%s)", [slowest]).fetchall()
    assert messages[slowest] < MOST_EXPLAIN, what
    assert named[slowest_channel] < MOST_EXPLAIN, slowest_channel
