"""What a call through the layer costs above the driver's: an executor that does nothing stands in for it."""

from __future__ import annotations

import timeit
from collections.abc import Sequence

from pylonny import Queue
from pylonny.operations import Rows, Statement

LIMIT = 30e-6  # seconds a call
CALLS = 1000


class Nothing:
    """An executor that answers at once."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def execute(self, _statement: Statement, _parameters: Sequence[object]) -> Rows:
        return self._rows


QUEUE = Queue(adapter=Nothing)


def cheapest(call: str) -> float:
    """Seconds a call, of the best of a few runs: others use the machine too."""
    return min(timeit.repeat(call, globals=globals(), number=CALLS, repeat=5)) / CALLS


CREATED: Rows = [(1,)]
DEQUEUED: Rows = [("MESSAGE_DEQUEUED", 1, "a", b"content", b"state", 1, False, 1_700_000_000_000_000, None)]


def test_a_create_costs_less_than_30_microseconds() -> None:
    assert cheapest("QUEUE.channel('a').message.create(CREATED, content='x', lock_ms=1)") < LIMIT


def test_a_dequeue_costs_less_than_30_microseconds() -> None:
    assert cheapest("QUEUE.dequeue(DEQUEUED)") < LIMIT
