"""What came of it: medians, a table, a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from pylonny.bench.run import Json, Run
from pylonny.bench.workloads import WORKLOADS, Workload
from pylonny.errors import Error

FORMAT = 1  # of the file; a reader should refuse a greater one


@dataclass(frozen=True, slots=True)
class Summary:
    """All repetitions of one system in one workload: medians, and sums of `missed` and `lost`."""

    workload: str
    synchronous_commit: str
    system: str
    per_second: float
    """Beside a held snapshot: in the last seconds."""
    slowest: float
    fastest: float
    compared_with: str
    """What the share is a share of."""
    share: float | None
    """None if what to compare with was not measured."""
    latency_ms: dict[str, float]
    steps_ms: dict[str, float]
    wal_bytes: float
    missed: int
    lost: int


def summarise(runs: Sequence[Run], floor: str) -> list[Summary]:
    """A summary for each that was measured, in the order in which they first were.

    floor: the system that others are compared with.
    """
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.workload, run.synchronous_commit, run.system), []).append(run)

    def rate(workload: str, synchronous_commit: str, system: str) -> float | None:
        found = groups.get((workload, synchronous_commit, system))
        return median(run.per_second for run in found) if found else None

    def compared(
        workload: Workload, synchronous_commit: str, system: str, found: list[Run]
    ) -> tuple[str, float | None]:
        if workload.beside_snapshot:
            first = median(run.first_per_second or 0 for run in found)
            return "its first seconds", _ratio(median(run.last_per_second or 0 for run in found), first)
        if workload.base:
            name, other = f"its {workload.base}", rate(workload.base, synchronous_commit, system)
        else:
            name, other = floor, rate(workload.floor, synchronous_commit, floor)
        return name, _ratio(median(run.per_second for run in found), other)

    summaries: list[Summary] = []
    for (workload, synchronous_commit, system), found in groups.items():
        name, share = compared(WORKLOADS[workload], synchronous_commit, system, found)
        rates = [run.per_second if run.last_per_second is None else run.last_per_second for run in found]
        summaries.append(
            Summary(
                workload,
                synchronous_commit,
                system,
                per_second=median(rates),
                slowest=min(rates),
                fastest=max(rates),
                compared_with=name,
                share=share,
                latency_ms=_medians([run.latency_ms for run in found]),
                steps_ms=_medians([run.steps_ms for run in found]),
                wal_bytes=median(run.wal_bytes for run in found),
                missed=sum(run.missed for run in found),
                lost=sum(run.lost for run in found),
            )
        )
    return summaries


def _ratio(value: float, other: float | None) -> float | None:
    return round(value / other, 3) if other else None


def _medians(values: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(median(value[name] for value in values), 3) for name in values[0]}


_COLUMNS: list[tuple[str, Callable[[Summary], str]]] = [
    ("messages/s", lambda one: f"{one.per_second:,.0f}"),
    ("share", lambda one: "" if one.share is None else f"{one.share:.2f}"),
    ("of", lambda one: one.compared_with),
    ("p50 ms", lambda one: f"{one.latency_ms['p50']:.2f}"),
    ("p99 ms", lambda one: f"{one.latency_ms['p99']:.2f}"),
    ("WAL bytes", lambda one: f"{one.wal_bytes:,.0f}"),
    ("missed", lambda one: f"{one.missed:,}"),
    ("lost", lambda one: f"{one.lost:,}"),
]
_LEFT = ("", "workload", "commit", "system", "of")  # columns of text; the others are numbers

LEGEND = """\
commit: synchronous_commit. messages/s: the median, of messages that were done; beside a held snapshot, in the
last seconds. p50, p99: of a round of the script. WAL bytes: a message, of all that the server wrote. missed:
how many more messages were asked for than came, as if there were none. lost: dequeued, but neither deleted
nor given back."""


def table(summaries: Sequence[Summary]) -> list[list[str]]:
    """The rows of a table, headings first."""
    rows = [["workload", "", "commit", "system", *(heading for heading, _ in _COLUMNS)]]
    last = ("", "")
    for one in summaries:
        key = (one.workload, one.synchronous_commit)
        again = key == last
        last = key
        title = WORKLOADS[one.workload].title
        head = ["", "", ""] if again else [one.workload, title, one.synchronous_commit]
        rows.append([*head, one.system, *(cell(one) for _, cell in _COLUMNS)])
    return rows


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """In columns, for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = [heading in _LEFT for heading in rows[0]]
    lines = [
        "  ".join(
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(row, widths, left, strict=True)
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """For a README."""
    rule = ["---" if heading in _LEFT else "---:" for heading in rows[0]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def to_json(head: Json, runs: Sequence[Run], summaries: Sequence[Summary]) -> Json:
    """All of it, for a program."""
    return {
        "format": FORMAT,
        **head,
        "runs": [run.to_json() for run in runs],
        "results": [asdict(one) for one in summaries],
    }


def write_json(path: Path, value: Json) -> None:
    """Write the file, in the place of one that is there."""
    path.write_text(json.dumps(value, indent=1) + "\n")


def check_output(path: Path | None) -> None:
    """Raise Error if a file cannot be written there: before the work, not after it."""
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        raise Error(f"{path} cannot be a file", "name one in a folder that is there")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Error(f"{path} may not be written", "name a file in a folder of yours")
