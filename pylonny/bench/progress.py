"""What is seen while it runs: a bar on a terminal, a line a run anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pylonny.bench.run import Plan, Run
from pylonny.bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class Progress:
    """Lines on standard error, where they are in nobody's way."""

    def begin(self, plan: Plan) -> None:
        """A run begins."""

    def tick(self, seconds: float) -> None:
        """It has been measured for so long."""

    def end(self, run: Run) -> None:
        """It is over."""
        print(_line(run), file=sys.stderr, flush=True)


class _BarProgress(Progress):
    def __init__(self, bar: Bar, task: TaskID) -> None:
        self._bar = bar
        self._task = task
        self._done = 0.0
        self._seconds = 0.0

    def begin(self, plan: Plan) -> None:
        self._seconds = plan.seconds
        what = f"{plan.workload.name} {plan.system}, commit {plan.synchronous_commit}"
        self._bar.update(self._task, description=what)

    def tick(self, seconds: float) -> None:
        self._bar.update(self._task, completed=self._done + min(seconds, self._seconds))

    def end(self, run: Run) -> None:
        self._done += self._seconds
        self._bar.update(self._task, completed=self._done)
        self._bar.console.print(_line(run), markup=False, highlight=False)


@contextmanager
def open_progress(plans: Sequence[Plan]) -> Generator[Progress]:
    """A bar where there is a terminal that can show it, and rich to draw it."""
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
        except ImportError:  # it comes with an extra
            yield Progress()
            return
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("s"), TimeRemainingColumn())
        with Bar(
            TextColumn("{task.description}"), *columns, console=Console(stderr=True), transient=True
        ) as bar:
            yield _BarProgress(bar, bar.add_task("", total=sum(plan.seconds for plan in plans)))
    else:
        yield Progress()


def _line(run: Run) -> str:
    title = WORKLOADS[run.workload].title
    return (
        f"{run.repetition}  {run.workload:<4} {title:<29} commit {run.synchronous_commit:<3} "
        f" {run.system:<14}{run.per_second:>9,.0f} messages/s"
    )
