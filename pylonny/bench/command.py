"""The command `bench`: what was asked for, measured, shown and written."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from psycopg.conninfo import make_conninfo

from pylonny import __version__
from pylonny.bench import plot, report
from pylonny.bench.drivers import Driver, open_driver
from pylonny.bench.progress import open_progress
from pylonny.bench.run import (
    Json,
    Options,
    Place,
    Run,
    measure,
    plans,
    stoppable,
    user_places,
    with_setting,
)
from pylonny.bench.systems import Connection, Floor, System, execute
from pylonny.errors import Error

_SETTINGS = [
    *("server_version", "shared_buffers", "fsync", "full_page_writes", "wal_level", "max_wal_size"),
    *("checkpoint_timeout", "autovacuum", "max_connections"),
]


def run(
    conn: Connection,
    options: Options,
    driver: str = "auto",
    json: Path | None = None,
    image: Path | None = None,
) -> None:
    """Measure the server that the connection goes to, print the result, and write the files."""
    report.check_output(json)
    plot.check_plot(image)
    sender = open_driver(driver)
    dsn = make_conninfo(conn.info.dsn, password=conn.info.password, application_name="pylonny bench")
    # Notices of the server may not end up among what pgbench prints.
    dsn = with_setting(dsn, "client_min_messages", "warning")
    check_server(conn, options)
    with stoppable():
        runs = measure_all(user_places(dsn), options, sender, [Floor.name])
    summaries = report.summarise(runs, Floor.name)
    print(report.text_table(report.table(summaries)))
    print(report.LEGEND)
    head = describe(conn, options, sender)
    if json is not None:
        report.write_json(json, report.to_json(head, runs, summaries))
    if image is not None:
        plot.plot(image, summaries, headline(head))


def check_server(conn: Connection, options: Options) -> None:
    """Raise Error if this server, or this role, is none to measure with."""
    checked = execute(
        conn,
        "SELECT pg_is_in_recovery(), has_database_privilege(current_database(), 'CREATE'),"
        " current_setting('max_connections')::integer"
        " - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')",
    ).fetchone()
    in_recovery, may_create, free = checked or (False, True, 0)
    clients = max(options.clients or workload.clients for workload in options.workloads)
    if in_recovery:
        raise Error("this server is a standby", "measure the one that it follows")
    if not may_create:
        raise Error(
            f'role "{conn.info.user}" may not create schemas in database "{conn.info.dbname}"',
            "GRANT CREATE ON DATABASE, or measure in another database",
        )
    if free < clients + 3:
        raise Error(f"the server has {free} connections left", "take fewer with --clients")


def measure_all(
    places: Mapping[str, tuple[System, Place]], options: Options, driver: Driver, floors: Sequence[str]
) -> list[Run]:
    """Do all runs, and show how far it is."""
    todo = plans(options, [system for system, _ in places.values()], floors)
    runs: list[Run] = []
    with open_progress(todo) as progress:
        for plan in todo:
            progress.begin(plan)
            _, place = places[plan.system]
            runs.append(measure(place, plan, driver, options, progress.tick))
            progress.end(runs[-1])
    return runs


def describe(conn: Connection, options: Options, driver: Driver) -> Json:
    """When, where and how it was measured."""
    rows = execute(
        conn,
        "SELECT name, current_setting(name) FROM pg_catalog.pg_settings WHERE name = ANY (%s)",
        _SETTINGS,
    ).fetchall()
    settings = dict(rows)
    return {
        "pylonny": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "server": {name: settings[name] for name in _SETTINGS},
        "client": {"driver": driver.name, "system": platform.platform(terse=True)},
        "options": {
            "workloads": [workload.name for workload in options.workloads],
            "seconds": options.seconds,
            "snapshot_seconds": options.snapshot_seconds,
            "repetitions": options.repetitions,
            "clients": options.clients,
            "begin": options.begin,
            "synchronous_commit": list(options.synchronous_commit),
        },
    }


def headline(head: Json) -> str:
    """The description in one line."""
    server, client = head["server"]["server_version"], head["client"]["driver"]
    return f"pylonny {head['pylonny']}, PostgreSQL {server}, {client}, {head['date'][:10]}"
