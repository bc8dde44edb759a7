"""The table for the README: a row a system, a column a workload, shares of the bare table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pylonny.bench.report import Summary
from pylonny.bench.run import Json
from pylonny.bench.workloads import WORKLOADS
from pylonny.errors import Error

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


def section(
    head: Json, summaries: Sequence[Summary], versions: Mapping[str, str], command: str, note: str
) -> str:
    """What stands between the markers."""
    workloads = list(dict.fromkeys(one.workload for one in summaries))
    systems = list(dict.fromkeys(one.system for one in summaries))
    commits = head["options"]["synchronous_commit"]
    found = {(one.workload, one.system, one.synchronous_commit): one for one in summaries}
    floor = systems[0]

    def cell(workload: str, system: str) -> str:
        there = [found.get((workload, system, commit)) for commit in commits]
        return " / ".join(_figure(one, absolute=system == floor) for one in there) if any(there) else ""

    def wal(system: str) -> str:
        return next((f"{one.wal_bytes:,.0f}" for one in summaries if one.system == system), "")

    def lost(system: str) -> str:
        return f"{sum(one.lost for one in summaries if one.system == system):,}"

    def row(system: str) -> str:
        name = f"{system} {versions.get(system, '')}".rstrip()
        cells = [name, *(cell(workload, system) for workload in workloads), wal(system), lost(system)]
        return f"| {' | '.join(cells)} |"

    headings = [f"{name}: {WORKLOADS[name].title}" for name in workloads]
    lines = [
        f"| | {' | '.join(headings)} | WAL bytes, {workloads[0]} | lost |",
        f"|---|{'---|' * len(workloads)}---:|---:|",
        *(row(system) for system in systems),
    ]
    options, server = head["options"], head["server"]
    settings = ", ".join(f"{name} {value}" for name, value in server.items() if name != "server_version")
    clients = f"{options['clients'] or 8} clients, {options['clients'] or 4} in batches"
    runs = f"{options['repetitions']} interleaved runs of {options['seconds']} s"
    legend = (
        f"Measured on {head['date'][:10]} with `{command}`: PostgreSQL {server['server_version']},"
        f" {head['client']['driver']} on the same machine; {settings}; {clients}; {runs}"
        f" ({options['snapshot_seconds']} s beside a snapshot), of which the median counts;"
        f" synchronous_commit {' / '.join(commits)}. The {floor} is given in messages a second, the others as"
        " a share of it in the same run; with events or wake-ups, as a share of the same system's W1. Beside"
        " a held snapshot, it is the last seconds as a share of the first (and messages a second then);"
        " on a backlog of a million, a share of the same on a thousand."
        " Each system is asked by the statements that its own client sends. WAL is a message's. Lost is what"
        " was dequeued, and neither finished nor given back."
    )
    return "\n".join([*([f"**{note}**", ""] if note else []), *lines, "", legend])


def _figure(one: Summary | None, *, absolute: bool) -> str:
    if one is None:
        return "-"
    workload = WORKLOADS[one.workload]
    if absolute and not workload.beside_snapshot and not workload.base:
        return f"{one.per_second:,.0f}"
    if one.share is None:
        return "-"
    return f"{one.share:.2f}" + (f" ({one.per_second:,.0f})" if workload.beside_snapshot else "")


def insert(path: Path, text: str) -> None:
    """Put the text between the markers of a file."""
    whole = path.read_text()
    if whole.count(BEGIN) != 1 or whole.count(END) != 1:
        raise Error(f"{path} has no {BEGIN} and {END}", "put them, each once, where the table belongs")
    before, _, rest = whole.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
