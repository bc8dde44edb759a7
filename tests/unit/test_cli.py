"""The command where no database is needed: usage, help, render, and databases that cannot be reached."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pylonny import __version__, cli, templates
from pylonny.cli import main
from pylonny.templates import render_install

PROG = "python -m pylonny"
COMMANDS = ["install", "uninstall", "status", "grant", "revoke", "check", "render", "extension", "bench"]


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No server is where the environment says."""
    for name in [name for name in os.environ if name.startswith("PG") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGHOST", str(tmp_path))


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit status of a command that fails, and the one line that it must say why in."""
    return main(arguments), one_line(capsys)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1, err
    return err.strip()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], f"{PROG}: the following arguments are required: COMMAND; see {PROG} --help"),
        (["instal"], "invalid choice: 'instal'"),
        (["install", "lonny"], "unrecognized arguments: lonny"),
        (
            ["install", "--schema"],
            f"{PROG} install: argument --schema: expected one argument; see {PROG} install --help",
        ),
        (["install", "--sch", "x"], "unrecognized arguments: --sch x"),
        (
            ["install", "--schema", ""],
            "argument --schema: an empty name is none; give a name of 1 to 63 bytes",
        ),
        (["install", "--schema", "pg_q"], 'argument --schema: "pg_q" cannot be the name of a schema'),
        (["render", "--schema", "x" * 64], "is too long for a name in PostgreSQL: 64 bytes"),
        (["install", "--event-channel", ""], "argument --event-channel: an empty name is none"),
        (["install", "--event-channel", "ü" * 32], "argument --event-channel:"),
        (["render", "--event-channel", "a\nb" * 40], "argument --event-channel:"),
        (["install", "--event-channel", "e", "--no-event-channel"], "not allowed with argument"),
        (["uninstall", "--event-channel", "e"], "unrecognized arguments"),
        (["render", "--dsn", "dbname=x"], "unrecognized arguments"),
        (["extension"], "the following arguments are required: --out"),
        (["extension", "--out", "x", "--schema", "lonny"], "unrecognized arguments: --schema lonny"),
        (["status", "--yes"], "unrecognized arguments: --yes"),
        (["grant", "app"], "the following arguments are required: --as"),
        (["grant", "--as", "producer"], "the following arguments are required: ROLE"),
        (["grant", "app", "--as", "owner"], "argument --as: invalid choice: 'owner'"),
        (["revoke", "app", "--as", "producer", "--channel-prefix", "a"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    line = one_line(capsys)
    assert reason in line
    assert line.startswith(PROG)
    assert line.endswith("--help")


@pytest.mark.parametrize(
    "dsn", ["postgresql+psycopg://u:s3cret@host/app", "host=x secret s3cret", "host='s3cret"]
)
@pytest.mark.parametrize("source", ["--dsn", "DATABASE_URL"])
def test_a_bad_connection_string_is_refused_without_repeating_its_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, source: str, dsn: str
) -> None:
    if source == "DATABASE_URL":
        monkeypatch.setenv("DATABASE_URL", dsn)
        status, line = failure(capsys, "status")
    else:
        status, line = failure(capsys, "status", "--dsn", dsn)
    assert status == 2
    assert f"{source} is no connection string that libpq understands" in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    "command",
    [
        ["install"],
        ["uninstall", "--yes"],
        ["uninstall"],
        ["status"],
        ["check"],
        ["grant", "app", "--as", "producer"],
        ["revoke", "app", "--as", "producer"],
    ],
)
def test_no_server_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    status, line = failure(capsys, *command)
    assert status == 1
    assert line.startswith(f"{PROG} {command[0]}: cannot connect: ")
    assert str(tmp_path) in line
    assert line.endswith(
        "; check that the server runs, and --dsn, DATABASE_URL or PGHOST, PGDATABASE and PGUSER"
    )


def test_dsn_goes_before_database_url_and_that_before_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hosts = [tmp_path / name for name in ("dsn", "url", "environment")]
    monkeypatch.setenv("PGHOST", str(hosts[2]))
    assert str(hosts[2]) in failure(capsys, "status")[1]
    monkeypatch.setenv("DATABASE_URL", "")
    assert str(hosts[2]) in failure(capsys, "status")[1]
    monkeypatch.setenv("DATABASE_URL", f"host={hosts[1]}")
    assert str(hosts[1]) in failure(capsys, "status")[1]
    assert str(hosts[0]) in failure(capsys, "status", "--dsn", f"host={hosts[0]}")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_parse(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 110
    examples = [line.strip() for line in text.splitlines() if line.strip().startswith(f"{PROG} {command}")]
    assert len(examples) >= 2
    for example in examples:
        arguments = example.removeprefix(PROG).partition("  ")[0].partition("|")[0].split()
        cli.parser().parse_args(arguments)


def test_help_names_the_commands_and_where_the_database_comes_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in [*COMMANDS, "DATABASE_URL", "PGHOST", "Exit status"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"pylonny {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "schema", "event_channel"),
    [
        ([], "lonny", None),
        (["--no-event-channel"], "lonny", None),
        (["--schema", 'My "Q" ü', "--event-channel", "it's"], 'My "Q" ü', "it's"),
    ],
)
def test_render_prints_the_script(
    capsysbinary: pytest.CaptureFixture[bytes], arguments: list[str], schema: str, event_channel: str | None
) -> None:
    assert main(["render", *arguments]) == 0
    out, err = capsysbinary.readouterr()
    assert out.decode() == render_install(schema, event_channel)
    assert err == b""


def test_templates_that_are_missing_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(templates, "__file__", str(tmp_path / "pylonny" / "templates.py"))
    status, line = failure(capsys, "render")
    assert status == 1
    assert (
        line
        == f"{PROG} render: the SQL templates are missing from this installation of pylonny; install it again"
    )


def test_a_driver_without_libpq_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    status, line = failure(capsys, "status")
    assert status == 1
    assert line.startswith(f"{PROG} status: psycopg does not start: ")
    assert "pip install 'pylonny[binary]'" in line


def rendering() -> subprocess.Popen[bytes]:
    """`render` into a pipe that is too small for it, so that it cannot end before it is read."""
    return subprocess.Popen(
        [sys.executable, "-m", "pylonny", "render"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pipesize=4096,
        # Unbuffered, Python takes a write that the end of the reader cut short for a whole one.
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )


def test_interrupted_is_one_line_and_status_130() -> None:
    with rendering() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b"-"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().decode() == f"{PROG} render: interrupted\n"
    assert process.returncode == 130


def test_a_reader_that_has_had_enough_sees_no_traceback() -> None:
    with rendering() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("redirection", "status", "reason"),
    [(">&-", 0, ""), ("> /dev/full", 1, f"{PROG} render: [Errno 28] No space left on device\n")],
)
def test_an_output_that_takes_nothing_is_no_traceback(redirection: str, status: int, reason: str) -> None:
    command = f'exec "$0" -m pylonny render {redirection}'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable], stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (status, reason)
