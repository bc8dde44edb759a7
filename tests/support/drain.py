"""What has to be true of a queue whatever has happened: it is in order, and all that is in it can be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.queue import LOCK_MS, answer, delete, move_clock, scalar

if TYPE_CHECKING:
    from tests.support.sessions import Connection

_LIMIT = "SELECT max_concurrency FROM lonny._policy_in_force WHERE channel = 'a'"
_LOCKED = "SELECT count(*) FROM lonny.message WHERE channel = 'a' AND status = 'LOCKED'"


def assert_in_order(conn: Connection) -> None:
    assert conn.execute("SELECT kind, channel, message_id, found FROM lonny.check()").fetchall() == []


def drain(conn: Connection) -> None:
    """Take and delete everything, three at a time, under the limit of channel a; the clock is moved."""
    policy = conn.execute(_LIMIT).fetchone()
    if policy == (0,):
        conn.execute("SELECT lonny.channel_policy_clear('a')")
        policy = None
    limit = policy[0] if policy else None
    left = {id_ for (id_,) in conn.execute("SELECT id FROM lonny.message").fetchall()}
    for turn in range(100):
        taken, retry_ms = answer(conn, 3)
        assert limit is None or scalar(conn, _LOCKED) <= limit
        if taken:
            assert set(delete(conn, *taken)) == {"MESSAGE_DELETED"}
            left -= {message.id for message in taken}
        elif retry_ms is None:
            break
        else:
            # Not until the locks are over: where a delete was rolled back it is looked at each 200 ms.
            move_clock(conn, retry_ms if turn < 50 else LOCK_MS)
    assert left == set()
    assert scalar(conn, "SELECT count(*) FROM lonny.message") == 0
