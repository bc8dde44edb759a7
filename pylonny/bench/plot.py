"""The plot, by matplotlib, which is in an extra."""

# pyright: reportUnknownMemberType=false
# (its methods take keyword arguments that have no types)

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pylonny.bench.report import Summary, check_output
from pylonny.bench.workloads import WORKLOADS
from pylonny.errors import Error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ENDINGS = (".pdf", ".png", ".svg")


def check_plot(path: Path | None) -> None:
    """Raise Error if no plot can be drawn there."""
    if path is None:
        return
    check_output(path)
    if path.suffix.lower() not in _ENDINGS:
        raise Error(f"{path} has none of the endings {', '.join(_ENDINGS)}", "name it plot.svg, say")
    if find_spec("matplotlib") is None:
        raise Error("a plot takes matplotlib", "pip install 'pylonny[bench]'")


def plot(path: Path, summaries: Sequence[Summary], title: str) -> None:
    """Bars of messages a second: a panel for each workload, a group for each synchronous_commit."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    workloads = list(dict.fromkeys(one.workload for one in summaries))
    colors = {system: f"C{n}" for n, system in enumerate(dict.fromkeys(one.system for one in summaries))}
    columns = min(4, len(workloads))
    rows = -(-len(workloads) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=9)
    for position, workload in enumerate(workloads, start=1):
        axes = figure.add_subplot(rows, columns, position)
        _bars(axes, [one for one in summaries if one.workload == workload], colors)
    bars = [Patch(color=color, label=system) for system, color in colors.items()]
    figure.legend(handles=bars, loc="outside lower center", ncols=len(bars), fontsize=8)
    figure.savefig(path)


def _bars(axes: Axes, summaries: Sequence[Summary], colors: dict[str, str]) -> None:
    """A bar a system, from the slowest to the fastest run a line, and above it its share."""
    systems = list(dict.fromkeys(one.system for one in summaries))
    commits = list(dict.fromkeys(one.synchronous_commit for one in summaries))
    width = 0.8 / len(systems)
    for one in summaries:
        at = commits.index(one.synchronous_commit) + systems.index(one.system) * width
        spread = [[one.per_second - one.slowest], [one.fastest - one.per_second]]
        axes.bar(
            at, one.per_second, width, color=colors[one.system], yerr=spread, error_kw={"linewidth": 0.8}
        )
        if one.share is not None and one.compared_with != one.system:
            axes.annotate(f"{one.share:.2f}", (at, one.fastest), ha="center", va="bottom", fontsize=7)
    axes.set_title(f"{summaries[0].workload}: {WORKLOADS[summaries[0].workload].title}", fontsize=8)
    ticks = [number + 0.4 - width / 2 for number in range(len(commits))]
    axes.set_xticks(ticks, [f"commit {commit}" for commit in commits], fontsize=7)
    axes.set_ylabel("messages/s", fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.12)
