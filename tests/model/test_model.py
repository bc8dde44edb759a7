"""The queue beside its model: random operations, the same answers. `make proof` runs ten times as many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import QueueMachine, TransactionMachine
from tests.support.queue import stop_clock

if TYPE_CHECKING:
    from tests.conftest import Connect


@pytest.mark.timeout(3600)  # a failure is reduced before it is shown
@pytest.mark.parametrize(("machine", "share"), [(QueueMachine, 1), (TransactionMachine, 5)])
def test_the_queue_does_what_the_model_does(
    connect: Connect, machine: type[QueueMachine], share: int
) -> None:
    conn = connect()
    stop_clock(conn)
    machine.prepare(conn)
    run_state_machine_as_test(machine, settings=settings(max_examples=settings().max_examples // share))
