"""What the model has found, reduced to a few calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.model.machine import GENERATIONS, NEXT_GENERATION
from tests.support.queue import create, dequeue, move_clock, scalar, stop_clock

if TYPE_CHECKING:
    from tests.conftest import Connect


def test_after_a_batch_in_generations_the_turn_is_that_of_the_next_lane(connect: Connect) -> None:
    """It was that of the highest lane that the batch had taken of: others had two turns to its one."""
    conn = connect()
    stop_clock(conn)
    # The highest lane comes first after 0, which is that of messages without a channel, and those come last.
    names = sorted("abcdefgh", key=lambda name: int(scalar(conn, "SELECT lonny._lane(%s)", [name])))
    for name in names:
        create(conn, name, 2)
    create(conn, None, 2)
    conn.execute(GENERATIONS)
    turns = len(names) + 1
    first = [message.channel for message in dequeue(conn, turns)]
    assert len(set(first)) == turns
    assert scalar(conn, "SELECT pg_sequence_last_value('lonny.rotation')") == 0
    assert [message.channel for message in dequeue(conn, turns - 1)] == first[:-1]


@pytest.mark.parametrize("max_messages", [1, 3])
def test_an_earlier_message_of_the_younger_generation_goes_first(connect: Connect, max_messages: int) -> None:
    """A single dequeue took all that the channel had in the older one before."""
    conn = connect()
    stop_clock(conn)
    late = create(conn, "a", 3)
    conn.execute(GENERATIONS)
    conn.execute(NEXT_GENERATION)
    (early,) = create(conn, "a", delay_ms=-50)
    move_clock(conn, 1000)
    taken = [message.id for _ in range(3 // max_messages) for message in dequeue(conn, max_messages)]
    assert taken == [early, *late[:2]]
