"""The benchmark on a server: it measures, writes what it measured, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from pylonny.bench.session import placeholders
from pylonny.bench.systems import Left
from pylonny.bench.workloads import WORKLOADS
from tests.bench.ceilings import CEILINGS, Ceiling, Leases
from tests.support.sessions import IMPATIENT, wait_until

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection

MINUTE = 60
OURS = r"SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'pylonny\_bench\_%'"
SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def command(database: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pylonny", "bench", "--dsn", database, *arguments]


def bench(
    database: str, *arguments: str, timeout: float = MINUTE, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(database, *arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ | environment,
    )


def schemas(conn: Connection) -> list[str]:
    return [name for (name,) in conn.execute(OURS).fetchall()]


@pytest.mark.parametrize("ceiling", CEILINGS)
def test_a_ceiling_hands_each_message_to_one(connect: Connect, ceiling: type[Ceiling]) -> None:
    conn, other = connect(), connect(options=IMPATIENT)
    conn.execute("CREATE SCHEMA bench")
    system, workload = ceiling("bench"), WORKLOADS["W1"]
    system.install(conn, workload)
    system.load(conn, workload, 1)
    create, dequeue, delete = (placeholders(step.sql).encode() for step in system.steps(workload))
    conn.execute(create)
    assert system.left(conn) == Left(free=2, taken=0)

    with conn.transaction():
        taken = [one.cursor(row_factory=dict_row).execute(dequeue).fetchall() for one in (conn, other)]
        assert [[(row["n"], row["id"]) for row in rows] for rows in taken] == [[(1, 1)], [(1, 2)]]
        assert conn.execute(dequeue).fetchall() == []
    assert system.left(conn) == Left(free=0, taken=2)
    for (row,) in taken:
        if ceiling is Leases:
            assert conn.execute(delete, row | {"num_attempts": 2}).fetchone() == (False,)
        assert conn.execute(delete, row).fetchone() == (True,)
    assert system.left(conn) == Left(free=0, taken=0)


def test_an_older_pgbench_knows_all_that_it_is_given(database: str, tmp_path: Path) -> None:
    folder = Path(sys.prefix, "postgresql-15", "bin")
    assert (folder / "pgbench").exists(), "get it: make .venv/postgresql-15"
    options = ["--workload", "W1", "--duration", "1", "--repetitions", "1", "--clients", "1"]
    options += ["--synchronous-commit", "off", "--json", str(tmp_path / "figures.json")]
    done = bench(database, *options, PYLONNY_PG_BIN=str(folder))
    assert (done.returncode, "rror" in done.stderr) == (0, False), done.stderr
    figures: dict[str, Any] = json.loads((tmp_path / "figures.json").read_text())
    assert figures["client"]["driver"].startswith("pgbench 15")


@pytest.mark.parametrize("driver", ["pgbench", "psycopg"])
def test_it_measures_and_leaves_nothing_behind(
    connect: Connect, database: str, tmp_path: Path, driver: str
) -> None:
    conn = connect()
    conn.execute("SELECT lonny.message_create('mine', 'x', 1000)")
    out, image = tmp_path / "figures.json", tmp_path / "figures.svg"
    workloads = "W1,W1T,W5T" if driver == "psycopg" else "W1,W1L,W5T,W6,W8"
    options = ["--workload", workloads, "--duration", "1", "--snapshot-duration", "2", "--repetitions", "1"]
    options += ["--clients", "2", "--synchronous-commit", "off", "--driver", driver]
    done = bench(database, *options, "--json", str(out), "--plot", str(image), timeout=2 * MINUTE)
    assert (done.returncode, "rror" in done.stderr) == (0, False), done.stderr
    assert schemas(conn) == []
    assert conn.execute("SELECT channel FROM lonny.message").fetchall() == [("mine",)]
    wait_until(lambda: conn.execute(SESSIONS).fetchone() == (0,), "its sessions end")

    figures: dict[str, Any] = json.loads(out.read_text())
    assert figures["format"] == 1
    assert figures["client"]["driver"].startswith(driver)
    assert figures["options"]["workloads"] == workloads.split(",")
    assert figures["server"]["server_version"]
    measured = {(run["workload"], run["system"]) for run in figures["runs"]}
    names = workloads.split(",")
    floors = {("W1", "bare table"), ("W6", "bare table")} & {(name, "bare table") for name in names}
    assert measured == {(name, "pylonny") for name in names} | floors
    for run in figures["runs"]:
        assert run["messages"] > 0
        assert run["per_second"] > 0
        assert run["lost"] == 0
        assert run["wal_bytes"] > 0
        assert run["latency_ms"]["p50"] <= run["latency_ms"]["p95"] <= run["latency_ms"]["p99"]
        assert set(run["steps_ms"]) == {"create", "dequeue", "delete"}
        assert (run["first_per_second"] is not None) == (run["workload"] == "W6")
    assert {result["workload"] for result in figures["results"]} == set(names)
    assert "<svg" in image.read_text()
    for name in names:
        assert name in done.stdout


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("driver", ["pgbench", "psycopg"])
def test_interrupted_it_cleans_up(connect: Connect, database: str, driver: str, sent: signal.Signals) -> None:
    conn = connect()
    options = ["--workload", "W6", "--driver", driver, "--clients", "2"]
    with subprocess.Popen(command(database, *options), stderr=subprocess.PIPE, text=True) as process:
        # That of the command, that of the run, the one that holds the snapshot, and the clients.
        wait_until(lambda: conn.execute(SESSIONS).fetchone() == (5,), "it measures")
        assert len(schemas(conn)) == 1
        process.send_signal(sent)
        _, said = process.communicate(timeout=MINUTE)
    assert (process.returncode, said) == (130, "python -m pylonny bench: interrupted\n")
    assert schemas(conn) == []
    wait_until(lambda: conn.execute(SESSIONS).fetchone() == (0,), "its sessions end")


def test_a_role_that_may_not_create_a_schema_is_told(connect: Connect, database: str) -> None:
    conn = connect()
    role = f"poor_{conn.info.backend_pid}"
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    try:
        done = bench(make_conninfo(database, user=role))
    finally:
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f'role "{role}" may not create schemas' in line


def test_what_a_session_complains_about_is_one_line(connect: Connect, database: str) -> None:
    conn = connect()
    limit = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 4").format(sql.Identifier(conn.info.dbname))
    role = f"limited_{conn.info.backend_pid}"
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    conn.execute(
        sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
            sql.Identifier(conn.info.dbname), sql.Identifier(role)
        )
    )
    conn.execute(limit)
    try:
        for driver in ("pgbench", "psycopg"):
            done = bench(make_conninfo(database, user=role), "--workload", "W1", "--driver", driver)
            assert done.returncode == 1
            [line] = done.stderr.splitlines()
            assert "too many connections for database" in line
        assert schemas(conn) == []
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        command(f"host={tmp_path}"), capture_output=True, text=True, timeout=MINUTE, check=False
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("python -m pylonny bench: cannot connect: ")
