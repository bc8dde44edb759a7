"""`make bench`: measure pylonny and its peers on one private server."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

from pylonny import __version__
from pylonny.bench import plot, report
from pylonny.bench.command import describe, headline, measure_all
from pylonny.bench.drivers import open_driver
from pylonny.bench.run import Options, Place, connected, stoppable
from pylonny.bench.systems import Floor, Queue, System
from pylonny.bench.workloads import DEFAULT, chosen
from pylonny.errors import Error
from pylonny.server import PrivateServer
from tests.bench import markdown, peers
from tests.bench.ceilings import CEILINGS

# As durable as PostgreSQL is; so large that no checkpoint falls into one run and not the other.
SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "max_connections": 50,
    "log_min_messages": "error",
}
_SCHEMA = "bench"


def main(arguments: Sequence[str]) -> int:
    """Run it; 0 if all went well."""
    options = parser().parse_args(arguments)
    try:
        with stoppable():
            bench(options)
    except (Error, psycopg.Error) as error:
        print(f"bench: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    known = ",".join(peer.name for peer in peers.PEERS)
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--peers", default=known, help="which (default: %(default)s; '' for none)")
    parser.add_argument(
        "--ceilings",
        action="store_true",
        help="two bare tables behind functions too: what calls and leases alone cost",
    )
    parser.add_argument("--workload", default=",".join(DEFAULT), help="which (default: %(default)s)")
    parser.add_argument("--duration", type=int, default=5, help="seconds of a run (default: %(default)s)")
    parser.add_argument("--snapshot-duration", type=int, default=120, help="beside a snapshot (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=3, help="of each run (default: %(default)s)")
    parser.add_argument("--synchronous-commit", choices=["on", "off", "both"], default="both")
    parser.add_argument("--begin", action="store_true", help="BEGIN and COMMIT around every call")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--plot", type=Path, help="draw them")
    parser.add_argument("--readme", type=Path, help="write the table between the markers of this file")
    parser.add_argument("--note", default="", help="a sentence above the table")
    return parser


def command(options: argparse.Namespace) -> str:
    """What to type for the same measurement again."""
    told = (
        "peers",
        "ceilings",
        "workload",
        "duration",
        "snapshot_duration",
        "repetitions",
        "synchronous_commit",
        "begin",
    )
    defaults = parser().parse_args([])
    arguments: list[str] = []
    for name in told:
        value = getattr(options, name)
        if value != getattr(defaults, name):
            arguments += [
                "--" + name.replace("_", "-"),
                *([] if value is True else [shlex.quote(str(value))]),
            ]
    return f'make bench ARGS="{" ".join(arguments)}"' if arguments else "make bench"


def bench(options: argparse.Namespace) -> None:
    """Fetch, install, measure, tell."""
    wanted = [name for name in options.peers.split(",") if name]
    found = [peer for peer in peers.PEERS if peer.name in wanted]
    if len(found) != len(wanted):
        raise Error(f"there is a peer unknown among {options.peers}")
    report.check_output(options.json)
    plot.check_plot(options.plot)
    commit = options.synchronous_commit
    how = Options(
        workloads=tuple(chosen(options.workload.split(","))),
        seconds=options.duration,
        snapshot_seconds=options.snapshot_duration,
        repetitions=options.repetitions,
        begin=options.begin,
        synchronous_commit=("on", "off") if commit == "both" else (commit,),
    )
    driver = open_driver("pgbench")
    peers.fetch(found)
    with PrivateServer(settings=SETTINGS) as server:
        numbers = count(1)
        places: dict[str, tuple[System, Place]] = {}
        ceilings = [ceiling(_SCHEMA) for ceiling in CEILINGS] if options.ceilings else []
        for own in (Floor(_SCHEMA), *ceilings, Queue(_SCHEMA)):
            places[own.name] = (own, _place(server, "template1", own, numbers.__next__))
        versions = {Queue.name: __version__}
        for peer in found:
            template = f"template_{peer.name}"
            system = peers.install(server, peer, template)
            places[peer.name] = (system, _place(server, template, system, numbers.__next__))
            versions[peer.name] = system.version
        runs = measure_all(places, how, driver, [Floor.name])
        with connected(server.dsn()) as conn:
            head = describe(conn, how, driver)
    summaries = report.summarise(runs, Floor.name)
    print(report.text_table(report.table(summaries)))
    print(report.LEGEND)
    if options.json is not None:
        report.write_json(options.json, report.to_json({**head, "versions": versions}, runs, summaries))
    if options.plot is not None:
        plot.plot(options.plot, summaries, headline(head))
    if options.readme is not None:
        text = markdown.section(head, summaries, versions, command(options), options.note)
        markdown.insert(options.readme, text)


def _place(server: PrivateServer, template: str, system: System, number: Callable[[], int]) -> Place:
    """Databases that are copies of a template, each for one run."""

    @contextmanager
    def place() -> Generator[tuple[str, System]]:
        name = f"bench_{number()}"
        names = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
        with connected(server.dsn()) as conn:
            conn.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**names))
        with connected(server.dsn(name)) as conn:
            conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(_SCHEMA)))
            conn.execute("CHECKPOINT")
        yield server.dsn(name), system
        with connected(server.dsn()) as conn:
            conn.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))

    return place


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
