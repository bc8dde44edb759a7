"""The specs, from a table of operations: each with each, in every order.

A spec has one first operation, in an open transaction, and in each permutation another second one. It ends
with a look at what check finds. The state that both find is made by the procedure `prepare`, with the clock
standing still, so that every answer is known. (A brace ends a step's SQL, so arrays are written without.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

# Channel a may have seven out: 1 to 4 are locked, 1 and 2 by the first session, 3 and 4 by the second one
# (the lock of 1 is the shortest); 5 and 6 wait for an hour; four are due. Channel b has two.
PREPARE: LiteralString = """
CREATE PROCEDURE public.prepare(p_passed_ms integer DEFAULT 0) LANGUAGE plpgsql AS $$
BEGIN
  TRUNCATE lonny.message, lonny.channel_policy, lonny.wake RESTART IDENTITY;
  ALTER SEQUENCE lonny.rotation RESTART;
  ALTER SEQUENCE lonny.wake_rotation RESTART;
  UPDATE public.clock SET at = '2030-01-01 00:00:00+00';
  PERFORM lonny.message_create('a', 'x', 60000);
  PERFORM lonny.message_create('a', 'x', 3600000) FROM generate_series(2, 4);
  PERFORM lonny.message_dequeue(4);
  PERFORM lonny.channel_policy_set('a', 7);
  PERFORM lonny.message_create('a', 'x', 3600000, 3600000) FROM generate_series(5, 6);
  PERFORM lonny.message_create('a', 'x', 3600000) FROM generate_series(7, 10);
  PERFORM lonny.message_create('b', 'x', 3600000) FROM generate_series(11, 12);
  UPDATE public.clock SET at = at + p_passed_ms * interval '1 ms';
END $$;
"""


@dataclass(frozen=True, slots=True)
class Family:
    """Specs about one thing: who does what with it, and in what order it is committed or not."""

    passed_ms: int
    """How long after the dequeue of messages 1 to 4 it is."""
    operations: dict[str, tuple[str, str]]
    """What the first session does, and what the second one does."""
    orders: list[str]


def _both(query: str, first: object = "", second: object = "") -> tuple[str, str]:
    return query.format(first), query.format(second)


_CHANNEL = {
    "create": _both("SELECT lonny.message_create('a', 'x', 60000) > 12 AS created"),
    "create_many": _both(
        "SELECT count(*) FROM lonny.message_create_many(ARRAY['a','b'], ARRAY['x','x']::bytea[], ARRAY[9000])"
    ),
    "dequeue": _both("SELECT id, channel FROM lonny.message_dequeue(3)"),
    "delete": _both("SELECT lonny.message_delete({}, 1)", 1, 3),
    "delete_many": _both("SELECT * FROM lonny.message_delete_many(ARRAY[{}], ARRAY[1,1])", "1,2", "3,4"),
    "defer": _both("SELECT lonny.message_defer({}, 1)", 1, 3),
    "heartbeat": _both("SELECT lonny.message_heartbeat({}, 1)", 1, 3),
    "cancel": _both("SELECT lonny.message_cancel({})", 5, 6),
    "policy_set": _both("SELECT lonny.channel_policy_set('a', {})", 5, 6),
    "policy_clear": _both("SELECT lonny.channel_policy_clear('a')"),
    "status": _both("SELECT count(*) FROM lonny.message_status(ARRAY[1,2,3,4,5,6,7])"),
}
_MESSAGE = {
    "delete": _both("SELECT lonny.message_delete(1, 1)"),
    "delete_many": _both("SELECT * FROM lonny.message_delete_many(ARRAY[{}], ARRAY[1,1])", "1,2", "2,1"),
    "defer": _both("SELECT lonny.message_defer(1, 1)"),
    "heartbeat": _both("SELECT lonny.message_heartbeat(1, 1)"),
    "cancel": _both("SELECT lonny.message_cancel(1)"),
    "dequeue": _both("SELECT id FROM lonny.message_dequeue(7) ORDER BY id"),
    "status": _both("SELECT status, num_attempts FROM lonny.message_status(ARRAY[1])"),
}

# What waits cannot be committed first.
WAITERS = {"delete", "delete_many", "defer", "cancel"}

FAMILIES = {
    "channel": Family(0, _CHANNEL, ["{first} {second} c1 c2", "{first} {second} c2 c1"]),
    "message_locked": Family(0, _MESSAGE, ["{first} {second} c1 c2", "{first} {second} r1 c2"]),
    "message_lock_over": Family(60_000, _MESSAGE, ["{first} {second} c1 c2", "{first} {second} r1 c2"]),
}


def specs() -> dict[str, str]:
    """The text of each spec, by its name."""
    return {
        f"{name}_{first}": _spec(family, first)
        for name, family in FAMILIES.items()
        for first in family.operations
    }


def _spec(family: Family, first: str) -> str:
    lines = [
        f"setup {{ CALL public.prepare({family.passed_ms}); }}",
        "session one",
        "setup { BEGIN; }",
        f"step first_{first} {{ {family.operations[first][0]}; }}",
        "step c1 { COMMIT; }",
    ]
    if any("r1" in order for order in family.orders):
        lines.append("step r1 { ROLLBACK; }")
    lines += ["session two", "setup { BEGIN; }"]
    lines += [f"step {name} {{ {queries[1]}; }}" for name, queries in family.operations.items()]
    lines += [
        "step c2 { COMMIT; }",
        "session three",
        "step check { SELECT kind, message_id, found FROM lonny.check(); }",
    ]
    lines += [
        f"permutation {order.format(first=f'first_{first}', second=second)} check"
        for second in family.operations
        for order in family.orders
    ]
    return "\n".join(lines) + "\n"
