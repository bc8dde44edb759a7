"""The benchmark where no server is needed: arithmetic, scripts, what is compared, arguments, tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pylonny.bench import plot, report
from pylonny.bench.drivers import pgbench_commands
from pylonny.bench.run import Options, Run, plans, with_setting
from pylonny.bench.scripts import Script
from pylonny.bench.session import placeholders
from pylonny.bench.statistics import Rounds, percentile
from pylonny.bench.systems import Floor, Queue, System, script
from pylonny.bench.workloads import DEFAULT, WORKLOADS, chosen
from pylonny.cli import main, parser
from pylonny.errors import Error
from tests.bench import __main__ as bench
from tests.bench import markdown
from tests.bench.peers import PEERS, collected, for_pgbench, replaced

SYSTEMS: list[System] = [Floor("floor"), Queue("queue")]
RUN = Run(
    workload="W1",
    system="bare table",
    synchronous_commit="on",
    repetition=1,
    clients=8,
    seconds=1.0,
    messages=1000,
    per_second=1000.0,
    missed=1,
    lost=0,
    wal_bytes=500.0,
    latency_ms={"p50": 1.0, "p95": 2.0, "p99": 3.0},
    steps_ms={"create": 0.5},
    first_per_second=None,
    last_per_second=None,
)


# Arithmetic


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1.0), (25, 1.0), (26, 2.0), (50, 2.0), (75, 3.0), (99, 4.0), (100, 4.0)]
)
def test_a_percentile_is_one_of_the_values(percent: float, value: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == value


def test_rounds_last_from_the_first_begin_to_the_last_end() -> None:
    rounds = Rounds([11.0, 12.0, 14.0], [2.0, 1.0, 1.0], {})
    assert (rounds.begin, rounds.seconds) == (9.0, 5.0)
    assert rounds.percentiles_ms() == {"p50": 1000.0, "p95": 2000.0, "p99": 2000.0}


def test_first_and_last_seconds_are_rates_and_do_not_overlap() -> None:
    rounds = Rounds([0.5, 1.0, 1.5, 2.0, 9.0, 20.0], [0.5] * 6, {})
    assert rounds.first_and_last(10) == (0.5, 0.1)
    assert rounds.first_and_last(2) == (2.0, 0.5)


def test_a_summary_has_medians_and_sums() -> None:
    runs = [replace(RUN, per_second=rate, missed=1, lost=2) for rate in (900.0, 1000.0, 5000.0)]
    runs += [replace(run, system="pylonny", per_second=run.per_second / 2) for run in runs]
    floor, queue = report.summarise(runs, "bare table")
    assert (floor.per_second, floor.slowest, floor.fastest) == (1000, 900, 5000)
    assert (queue.share, queue.compared_with) == (0.5, "bare table")
    assert (queue.missed, queue.lost) == (3, 6)


def test_a_share_is_of_the_floor_of_the_own_base_or_of_the_first_seconds() -> None:
    runs = [
        RUN,
        replace(RUN, workload="W1T", system="pylonny", per_second=800.0),
        replace(RUN, workload="W7S", system="pylonny", per_second=400.0),
        replace(RUN, workload="W7", system="pylonny", per_second=300.0),
        replace(RUN, workload="W6", system="pylonny", first_per_second=200.0, last_per_second=150.0),
    ]
    found = {one.workload: (one.share, one.compared_with) for one in report.summarise(runs, "bare table")}
    assert found == {
        "W1": (1.0, "bare table"),
        "W1T": (0.8, "bare table"),
        "W7S": (None, "bare table"),
        "W7": (0.75, "its W7S"),
        "W6": (0.75, "its first seconds"),
    }
    assert report.summarise(runs, "bare table")[-1].per_second == 150.0  # how fast it is in the end


# What is sent


def test_a_pgbench_script_deletes_only_what_it_dequeued() -> None:
    texts = [text for _, text in pgbench_commands(script(Floor("f"), WORKLOADS["W1"], begin=False))]
    assert texts[0].startswith('INSERT INTO "f".message')
    assert texts[1] == "\\set n 0"
    assert texts[2].endswith(" \\aset")
    assert texts[3] == "\\if :n > 0"
    assert texts[4] == 'DELETE FROM "f".message WHERE id = :id::bigint;'
    assert texts[5:] == ["\\endif"]


def test_begin_makes_a_transaction_of_every_step() -> None:
    commands = pgbench_commands(script(Queue("q"), WORKLOADS["W1T"], begin=True))
    assert commands[0] == ("", "\\set channel random(1, 1000)")
    assert [step for step, text in commands if text == "BEGIN;"] == ["create", "dequeue", "delete"]
    assert [step for step, text in commands if text == "COMMIT;"] == ["create", "dequeue", "delete"]


def test_a_workload_that_consumes_creates_nothing() -> None:
    steps = script(Queue("q"), WORKLOADS["W2"], begin=False).steps
    assert [step.name for step in steps] == ["dequeue", "delete"]


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_a_script_is_the_same_in_another_process(system: System, name: str) -> None:
    sent = script(system, WORKLOADS[name], begin=True)
    assert Script.from_json(sent.to_json()) == sent


def test_variables_become_placeholders_and_casts_do_not() -> None:
    assert (
        placeholders("SELECT :id::bigint, :ids::x[], 'a' || :n, 1 % 2")
        == "SELECT %(id)s::bigint, %(ids)s::x[], 'a' || %(n)s, 1 %% 2"
    )


def test_a_setting_is_added_to_the_options_that_are_there() -> None:
    dsn = with_setting("host=h options='-c a=b'", "synchronous_commit", "off")
    assert dsn == "host=h options='-c a=b -c synchronous_commit=off'"


# What is measured


def test_a_workload_brings_what_it_is_compared_with() -> None:
    assert [workload.name for workload in chosen(["W8", "W7"])] == ["W1", "W7S", "W7", "W8"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_is_compared_with_one_thing(name: str) -> None:
    workload = WORKLOADS[name]
    assert [bool(workload.floor), bool(workload.base), workload.beside_snapshot].count(True) == 1
    assert all(Floor("f").supports(WORKLOADS[floor]) for floor in {workload.floor} - {""})


def test_runs_are_interleaved() -> None:
    options = Options(tuple(chosen(["W1", "W1T"])), repetitions=2, synchronous_commit=("on",))
    order = [(p.repetition, p.workload.name, p.system) for p in plans(options, SYSTEMS, [Floor.name])]
    once = [("W1", "bare table"), ("W1", "pylonny"), ("W1T", "pylonny")]
    assert order == [(repetition, *each) for repetition in (1, 2) for each in once]


def test_nothing_runs_dry_while_it_is_only_consumed() -> None:
    assert WORKLOADS["W2"].messages(1) == 100_000
    assert WORKLOADS["W2"].messages(10) == 400_000
    assert WORKLOADS["W1S"].messages(10) == 1000


# The command


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--duration", "0"], "must be a whole number, 1 or more, not '0'"),
        (["--repetitions", "x"], "must be a whole number, 1 or more, not 'x'"),
        (["--clients", "-1"], "argument --clients"),
        (["--driver", "jdbc"], "invalid choice: 'jdbc'"),
        (["--synchronous-commit", "local"], "invalid choice: 'local'"),
        (["--schema", "lonny"], "unrecognized arguments: --schema lonny"),
    ],
)
def test_wrong_usage_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["bench", *arguments])
    assert exit_.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert reason in line


def test_an_unknown_workload_is_told_before_anything_is_connected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "--dsn", "host=/nowhere", "--workload", "W1,W99"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m pylonny bench: there is no workload W99; there are W1, ")


def test_help_names_every_workload() -> None:
    text = parser().parse_args(["bench"])
    assert text.workload is None
    assert set(DEFAULT) <= set(WORKLOADS)


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    report.check_output(None)
    report.check_output(tmp_path / "new.json")
    with pytest.raises(Error, match="cannot be a file"):
        report.check_output(tmp_path)
    with pytest.raises(Error, match="cannot be a file"):
        report.check_output(tmp_path / "missing" / "new.json")
    with pytest.raises(Error, match="none of the endings"):
        plot.check_plot(tmp_path / "plot.txt")


# Tables


def test_a_table_names_a_workload_once() -> None:
    rows = report.table(report.summarise([RUN, replace(RUN, system="pylonny")], "bare table"))
    assert [row[:4] for row in rows[1:]] == [
        ["W1", "no channel", "on", "bare table"],
        ["", "", "", "pylonny"],
    ]
    assert len({len(line) for line in report.text_table(rows).splitlines()}) == 1


def test_the_section_of_the_readme_is_replaced(tmp_path: Path) -> None:
    head = {
        "date": "2030-01-01T00:00:00+00:00",
        "server": {"server_version": "18.1", "fsync": "on"},
        "client": {"driver": "pgbench 18.1"},
        "options": {
            "clients": None,
            "repetitions": 3,
            "seconds": 5,
            "snapshot_seconds": 120,
            "synchronous_commit": ["on", "off"],
        },
    }
    runs = [RUN, replace(RUN, system="pylonny", per_second=700.0, lost=1)]
    text = markdown.section(
        head, report.summarise(runs, "bare table"), {"pylonny": "1.0"}, "make bench", "Noisy."
    )
    assert text.splitlines()[:6] == [
        "**Noisy.**",
        "",
        "| | W1: no channel | WAL bytes, W1 | lost |",
        "|---|---|---:|---:|",
        "| bare table | 1,000 / - | 500 | 0 |",
        "| pylonny 1.0 | 0.70 / - | 500 | 1 |",
    ]
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")
    markdown.insert(readme, text)
    markdown.insert(readme, text)
    assert readme.read_text() == f"before\n<!-- bench -->\n{text}\n<!-- /bench -->\nafter\n"
    readme.write_text("no markers")
    with pytest.raises(Error, match="has no <!-- bench -->"):
        markdown.insert(readme, text)


def test_the_command_says_what_is_measured_and_not_where_it_is_written() -> None:
    arguments = ["--workload", "W1", "--begin", "--json", "/mine/figures.json", "--note", "noisy"]
    assert bench.command(bench.parser().parse_args(arguments)) == 'make bench ARGS="--workload W1 --begin"'
    assert bench.command(bench.parser().parse_args([])) == "make bench"
    assert bench.command(bench.parser().parse_args(["--peers", ""])) == "make bench ARGS=\"--peers ''\""


# The peers' statements


def test_json_is_not_taken_for_a_variable() -> None:
    assert for_pgbench('SELECT \'{"a":null,"b":1}\'::json;\n') == 'SELECT \'{"a": null,"b":1}\'::json'


def test_a_dequeue_of_many_answers_in_one_row() -> None:
    pgmq, boss = (next(peer for peer in PEERS if peer.name == name) for name in ("pgmq", "pg-boss"))
    assert (
        collected("SELECT msg_id FROM read();", pgmq) == "WITH taken AS (SELECT msg_id FROM read())"
        " SELECT count(*) AS n, array_agg(msg_id) AS ids FROM taken"
    )
    assert (
        collected("WITH next AS (SELECT 1) UPDATE pgboss.job j SET x = 1 RETURNING j.id", boss)
        == "WITH next AS (SELECT 1), taken AS (UPDATE pgboss.job j SET x = 1 RETURNING j.id)"
        " SELECT count(*) AS n, array_agg(id) AS ids FROM taken"
    )


def test_a_client_that_sends_something_else_is_noticed() -> None:
    pgmq = PEERS[0]
    with pytest.raises(Error, match="is not once in"):
        replaced("SELECT x", *pgmq.found)
    with pytest.raises(Error, match="is not in what pgmq sends"):
        collected("SELECT x", pgmq)
