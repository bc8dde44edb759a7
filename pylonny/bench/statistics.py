"""The arithmetic: percentiles, rates over time, medians of repetitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rounds:
    """What one run of a driver saw: for each round when it ended, in seconds, and how long it took.

    `steps_ms`: of each step the mean time, in milliseconds.
    """

    ends: Sequence[float]
    durations: Sequence[float]
    steps_ms: dict[str, float]

    @property
    def begin(self) -> float:
        """When the first one began."""
        return min(end - duration for end, duration in zip(self.ends, self.durations, strict=True))

    @property
    def seconds(self) -> float:
        """From the first one's begin to the last one's end."""
        return max(self.ends) - self.begin

    def percentiles_ms(self) -> dict[str, float]:
        """Of the whole round, in milliseconds."""
        ordered = sorted(self.durations)
        return {f"p{percent}": round(1000 * percentile(ordered, percent), 3) for percent in (50, 95, 99)}

    def first_and_last(self, seconds: float) -> tuple[float, float]:
        """Rounds a second in the first and in the last so many seconds, each at most half of the time."""
        window = min(seconds, self.seconds / 2)
        begin, end = self.begin, max(self.ends)
        first = sum(1 for at in self.ends if at <= begin + window)
        last = sum(1 for at in self.ends if at > end - window)
        return first / window, last / window


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the values, which are in order, that so many per cent are not above (nearest rank)."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
