"""The workloads: how many sessions do what, on what is there already.

A session creates a message, dequeues one and deletes that, over and over, in three transactions. Where it
only consumes, all messages are there before. A batch is the same with many messages at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pylonny.errors import Error

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Workload:
    """One of them. `channels` 0: messages without a channel."""

    name: str
    title: str
    floor: str = ""
    """The workload that the bare table does for comparison; empty if this one is compared with another."""
    base: str = ""
    """The workload of the same system that this one is compared with."""
    clients: int = 8
    batch: int = 1
    channels: int = 0
    max_concurrency: int | None = None
    preloaded: int = 0
    consumes: bool = False
    """Messages are only dequeued and deleted. There are enough of them, at least `preloaded`."""
    beside_snapshot: bool = False
    """Another session holds a snapshot all the while; the end is compared with the beginning."""
    notify: Literal["", "events", "wake-ups"] = ""
    """What is sent with NOTIFY, to a listener."""

    def messages(self, seconds: int) -> int:
        """How many messages are there before it begins."""
        return max(self.preloaded, _MOST_A_SECOND * seconds) if self.consumes else self.preloaded


_MOST_A_SECOND = 40_000  # single messages consumed; what is preloaded must not run out

_ALL = [
    Workload("W1", "no channel", floor="W1"),
    Workload("W1T", "1,000 channels", floor="W1", channels=1000),
    Workload("W1H", "one channel", floor="W1", channels=1),
    Workload("W1L", "1,000 channels with a limit", floor="W1", channels=1000, max_concurrency=10),
    Workload("W1S", "on 1,000 standing messages", floor="W1S", preloaded=1000),
    Workload("W2", "consume only", floor="W2", preloaded=100_000, consumes=True),
    Workload("W5", "batches of 100", floor="W5", clients=4, batch=100),
    Workload("W5T", "batches of 100, 1,000 channels", floor="W5", clients=4, batch=100, channels=1000),
    Workload("W6", "beside a held snapshot", beside_snapshot=True),
    Workload("W6T", "the same, 1,000 channels", beside_snapshot=True, channels=1000),
    Workload("W6H", "the same, one channel", beside_snapshot=True, channels=1),
    Workload("W6L", "the same, 1,000 with a limit", beside_snapshot=True, channels=1000, max_concurrency=10),
    Workload("W6LH", "the same, one with a limit", beside_snapshot=True, channels=1, max_concurrency=10),
    Workload("W6M", "the same, 100,000 channels", beside_snapshot=True, channels=100_000),
    Workload("W6B", "the same, batches of 100", beside_snapshot=True, clients=4, batch=100),
    Workload("W7S", "on a backlog of 1,000", floor="W7S", preloaded=1000),
    Workload("W7", "on a backlog of a million", base="W7S", preloaded=MILLION),
    Workload("W7TS", "on 1,000 channels of one", floor="W7S", preloaded=1000, channels=1000),
    Workload("W7T", "on a million channels of one", base="W7TS", preloaded=MILLION, channels=MILLION),
    Workload("W8", "with events and a listener", base="W1", notify="events"),
    Workload("W8W", "with wake-ups and a listener", base="W1", notify="wake-ups"),
]
WORKLOADS = {workload.name: workload for workload in _ALL}
DEFAULT = ("W1", "W1T", "W1H", "W1L", "W1S", "W2", "W5", "W5T")


def chosen(names: Sequence[str]) -> list[Workload]:
    """Those of that name, and those that they are compared with, in the order of WORKLOADS."""
    for name in names:
        if name not in WORKLOADS:
            raise Error(f"there is no workload {name}", f"there are {', '.join(WORKLOADS)}")
    wanted = {*names, *(WORKLOADS[name].base for name in names)}
    return [workload for workload in WORKLOADS.values() if workload.name in wanted]
