"""What a session sends over and over, whichever driver sends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One statement, in a transaction of its own.

    `:name` in it is a variable. `channel`, if the script has channels, is a random one's number. If a step
    `returns`, the columns of its row become variables; one that `needs` is left out unless the last such row
    had an `n` above 0.
    """

    name: str
    sql: str
    returns: bool = False
    needs: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """The steps of one round. begin: BEGIN before each and COMMIT after it."""

    steps: tuple[Step, ...]
    channels: int = 0
    begin: bool = False

    def to_json(self) -> Json:
        """For a process that is to run it."""
        steps = [[step.name, step.sql, step.returns, step.needs] for step in self.steps]
        return {"steps": steps, "channels": self.channels, "begin": self.begin}

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """The other way round."""
        return cls(tuple(Step(*step) for step in value["steps"]), value["channels"], value["begin"])
