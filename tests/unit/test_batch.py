"""A batch takes one round trip a kind, whatever is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylonny import Queue
from pylonny.operations import statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylonny.operations import Rows, Statement


class Recorder:
    """An executor that writes down what it is to run."""

    def __init__(self, ran: list[Statement]) -> None:
        self._ran = ran

    def execute(self, statement: Statement, _parameters: Sequence[object], /) -> Rows:
        self._ran.append(statement)
        return [(1,)]


def test_policies_go_together_and_before_the_messages() -> None:
    batch = Queue(adapter=Recorder).batch()
    for number in range(10):
        channel = batch.channel(f"channel {number}")
        channel.message.create("x", lock_ms=1)
        channel.policy.set(max_concurrency=number)
        channel.message.create("y", lock_ms=1)
    ran: list[Statement] = []
    batch.execute(ran)
    assert ran == [statements("lonny").policy_many, statements("lonny").create_many]
