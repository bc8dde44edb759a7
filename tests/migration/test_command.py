"""The command against a server: what it prints, its exit status, and what it does."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pylonny import __version__, migrate, templates
from pylonny.cli import main
from pylonny.migrate import install, status
from pylonny.server import PrivateServer
from tests.migration.conftest import Connector, add_file, objects, until
from tests.support.databases import SETTINGS
from tests.support.sessions import Connection

PROG = "python -m pylonny"


@pytest.fixture(autouse=True)
def database_url(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    monkeypatch.setenv("DATABASE_URL", empty)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


class Run:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, what is printed on stdout, and on stderr, of which at most one line is allowed."""
        status = main(arguments)
        out, err = self._capsys.readouterr()
        assert len(err.splitlines()) <= 1
        return status, out.rstrip("\n"), err.rstrip("\n")


def test_a_life(run: Run, conn: Connection) -> None:
    database = conn.info.dbname
    where = f'schema "lonny" of database "{database}", version 1'
    before = objects(conn)
    assert run("status") == (0, f'No queue of pylonny in database "{database}".', "")
    assert run("install") == (0, f"Installed: {where}, no events.", "")
    assert run("install", "--event-channel", "e") == (0, f'Up to date: {where}, events on channel "e".', "")
    assert run("install") == (0, f'Up to date: {where}, events on channel "e".', "")
    installed = f'Installed: schema "My "Q"" of database "{database}", version 1, no events'
    assert run("install", "--schema", 'My "Q"', "--wake-channel", "w") == (
        0,
        f'{installed}, wake-ups on channel "w".',
        "",
    )
    assert run("status")[1].splitlines() == [
        "SCHEMA  VERSION  PYLONNY  EVENT CHANNEL  WAKE CHANNEL  OWNER",
        f'My "Q"  1        {__version__}    none           w             postgres',
        f"lonny   1        {__version__}    e              none          postgres",
    ]
    assert run("install", "--no-event-channel") == (0, f"Up to date: {where}, no events.", "")
    assert run("uninstall", "--yes", "--schema", 'My "Q"') == (0, 'Uninstalled: schema "My "Q"" is gone.', "")
    assert run("status", "--schema", "lonny")[1].splitlines()[1:] == [
        f"lonny   1        {__version__}    none           none          postgres"
    ]
    assert run("uninstall", "--yes") == (0, 'Uninstalled: schema "lonny" is gone.', "")
    assert objects(conn) == before


def test_dsn_and_libpqs_environment_name_the_database_too(
    run: Run, monkeypatch: pytest.MonkeyPatch, conn: Connection, empty: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "host=/nowhere")
    assert run("install", "--dsn", empty, "--schema", "one")[0] == 0
    monkeypatch.delenv("DATABASE_URL")
    for name, value in conninfo_to_dict(empty).items():
        monkeypatch.setenv({"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}"), str(value))
    assert run("install", "--schema", "two")[0] == 0
    assert [found.schema for found in status(conn)] == ["one", "two"]


@pytest.mark.parametrize("answer", ["y\n", "yes\n", " YES \n", "y"])
def test_an_uninstall_asks(run: Run, monkeypatch: pytest.MonkeyPatch, conn: Connection, answer: str) -> None:
    install(conn)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    question = (
        f'Drop the queue in schema "lonny" of database "{conn.info.dbname}", with all its messages? [y/N]'
    )
    assert run("uninstall") == (0, 'Uninstalled: schema "lonny" is gone.', f"{question} ".strip("\n"))
    assert status(conn) == []


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "no\n", "yesterday\n"])
def test_an_uninstall_takes_only_yes_for_an_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, conn: Connection, answer: str
) -> None:
    install(conn)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert main(["uninstall"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f"{PROG} uninstall: nothing was dropped; answer y, or give --yes\n")
    assert [found.schema for found in status(conn)] == ["lonny"]


def test_an_uninstall_says_what_keeps_the_schema(run: Run, conn: Connection) -> None:
    conn.execute("CREATE SCHEMA before")
    install(conn, "before")
    install(conn, "lonny")
    conn.execute("CREATE TABLE lonny.mine (); CREATE TYPE lonny.own AS ENUM ()")
    assert run("uninstall", "--yes", "--schema", "before")[:2] == (
        0,
        'Uninstalled: schema "before" stays, install did not create it. It is empty.',
    )
    assert run("uninstall", "--yes")[:2] == (
        0,
        'Uninstalled: schema "lonny" stays, others live in it: table lonny.mine, type lonny.own.',
    )


def test_check_shows_what_is_wrong_and_mends_it(run: Run, conn: Connection) -> None:
    missing = (
        'there is no queue of pylonny in schema "My Q"; see what is installed with python -m pylonny status'
    )
    assert run("check", "--schema", "My Q") == (1, "", f"{PROG} check: {missing}")
    install(conn, "My Q")
    well = (0, 'Nothing is wrong with the queue in schema "My Q".', "")
    assert run("check", "--schema", "My Q") == well
    conn.execute("""SELECT "My Q".channel_policy_set('a\nb', 1), "My Q".message_create('a\nb', 'x', 1000)""")
    conn.execute('DELETE FROM "My Q".wake')
    header, fault = "FAULT              CHANNEL  MESSAGE  FOUND", "MESSAGE_FORGOTTEN  a b      1        1 due"
    for _ in range(2):
        code, out, err = run("check", "--schema", "My Q")
        assert (code, err) == (1, "")
        assert [line.startswith(text) for line, text in zip(out.splitlines(), (header, fault), strict=True)]
        assert out.endswith("  repair() wakes the channel.")
    code, out, err = run("check", "--schema", "My Q", "--repair")
    assert (code, out.splitlines()[1].endswith("  The channel is woken."), err) == (0, True, "")
    assert run("check", "--schema", "My Q") == well
    conn.execute('DROP INDEX "My Q".wake_due_idx')
    assert run("check", "--schema", "My Q", "--repair")[0] == 1


def test_an_uninstall_is_refused_in_one_line(run: Run, conn: Connection) -> None:
    missing = (
        'there is no queue of pylonny in schema "lonny"; see what is installed with python -m pylonny status'
    )
    assert run("uninstall", "--yes") == (1, "", f"{PROG} uninstall: {missing}")
    assert run("uninstall") == (1, "", f"{PROG} uninstall: {missing}")
    assert run("status", "--schema", "lonny") == (1, "", f"{PROG} status: {missing}")
    install(conn)
    conn.execute("CREATE VIEW v AS TABLE lonny.message")
    needed = "something else needs this queue: view public.v depends on table lonny.message; drop that first"
    assert run("uninstall", "--yes") == (1, "", f"{PROG} uninstall: {needed}")


def test_an_install_is_refused_in_one_line(
    run: Run, conn: Connection, empty: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("CREATE SCHEMA theirs CREATE TABLE mine ()")
    theirs = (
        'schema "theirs" is not empty and not a queue of pylonny; choose another schema, or empty this one'
    )
    assert run("install", "--schema", "theirs") == (1, "", f"{PROG} install: {theirs}")
    code, out, err = run("install", "--dsn", make_conninfo(empty, user=role), "--schema", "new\nline")
    assert (code, out) == (1, "")
    assert err.startswith(f'{PROG} install: role "{role}" may not create schema "new line" in database')
    monkeypatch.setattr(templates, "OPENING", templates.OPENING.replace("150000", "990000"))
    code, out, err = run("install")
    assert (code, out) == (1, "")
    assert err.startswith(f"{PROG} install: PostgreSQL 15 or newer is needed, this server is ")


@pytest.mark.parametrize("user", ["nobody_at_all", 'no"body'])
def test_a_role_that_does_not_exist_is_one_line(run: Run, empty: str, user: str) -> None:
    code, out, err = run("status", "--dsn", make_conninfo(empty, user=user))
    assert (code, out) == (1, "")
    assert f'role "{user}" does not exist' in err


def test_a_database_that_does_not_exist_is_one_line(run: Run, server: PrivateServer) -> None:
    code, out, err = run("install", "--dsn", server.dsn("nowhere"))
    assert (code, out) == (1, "")
    assert 'database "nowhere" does not exist' in err


def test_a_wrong_password_is_one_line_that_does_not_repeat_it(run: Run) -> None:
    with PrivateServer(settings=SETTINGS) as server:
        server.run("psql", "--command=CREATE ROLE app LOGIN PASSWORD 'right'")
        server.stop()
        rules = server.data / "pg_hba.conf"
        rules.write_text(f"local all app scram-sha-256\n{rules.read_text()}")
        server.start()
        dsn = make_conninfo(server.dsn(), user="app")
        for login, reason in (
            (f"{dsn} password=s3cret", 'password authentication failed for user "app"'),
            (dsn, "no password supplied"),
        ):
            code, out, err = run("status", "--dsn", login)
            assert (code, out) == (1, "")
            assert err.startswith(f"{PROG} status: cannot connect: ")
            assert reason in err
            assert "s3cret" not in err
        assert run("status", "--dsn", f"{dsn} password=right")[0] == 0


def test_the_roles_settings_do_not_matter(run: Run, conn: Connection, empty: str, role: str) -> None:
    for setting in (
        "default_transaction_isolation = serializable",
        "search_path = nowhere",
        "client_encoding = latin1",
    ):
        conn.execute(sql.SQL("ALTER ROLE {} SET {}").format(sql.Identifier(role), sql.SQL(setting)))
    conn.execute(
        sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(sql.Identifier("шина"), sql.Identifier(role))
    )
    assert run("install", "--dsn", make_conninfo(empty, user=role), "--schema", "шина")[0] == 0
    assert [(found.schema, found.owner) for found in status(conn)] == [("шина", role)]


def test_what_one_may_not_read_is_shown_as_such(run: Run, conn: Connection, empty: str, role: str) -> None:
    install(conn, "lonny", "events")
    assert run("status", "--dsn", make_conninfo(empty, user=role))[1].splitlines()[1:] == [
        "lonny   ?        ?        ? (this role may not read it)  ?             postgres"
    ]


def test_an_interrupt_ends_what_the_server_is_doing(
    run: Run, monkeypatch: pytest.MonkeyPatch, conn: Connection
) -> None:
    activity = "SELECT wait_event FROM pg_stat_activity WHERE application_name = 'pylonny'"

    def interrupted(theirs: Connection) -> None:
        # As by a Ctrl-C that comes between the sending of a statement and the waiting for it. A cancel that
        # comes before the server has begun is lost.
        theirs.pgconn.send_query(b"SELECT pg_sleep(3600)")
        until(lambda: conn.execute(activity).fetchall() == [("PgSleep",)])
        raise KeyboardInterrupt

    monkeypatch.setattr(migrate, "status", interrupted)
    monkeypatch.setattr("pylonny.cli._discard_output", bool)  # it is the tests' output too
    assert run("status") == (130, "", f"{PROG} status: interrupted")
    until(lambda: not conn.execute(activity).fetchall())


def test_an_install_that_is_interrupted_leaves_nothing(
    conn: Connection, open_as: Connector, empty: str
) -> None:
    first = open_as(autocommit=False)
    first.execute("SELECT 1")
    before = objects(conn)
    install(first)
    with subprocess.Popen(
        [sys.executable, "-m", "pylonny", "install", "--dsn", empty],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            # It waits for the install before it.
            sessions = "SELECT wait_event FROM pg_stat_activity WHERE application_name = 'pylonny'"
            until(lambda: conn.execute(sessions).fetchall() == [("advisory",)])
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, err.decode()) == (130, b"", f"{PROG} install: interrupted\n")
    # Its session does not wait on, though the lock is still held.
    until(lambda: not conn.execute(sessions).fetchall())
    first.rollback()
    assert objects(conn) == before


@pytest.mark.parametrize("stdin", ["<&-", "< /dev/null"])
def test_an_uninstall_that_nobody_can_answer_drops_nothing(conn: Connection, stdin: str) -> None:
    install(conn)
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m pylonny uninstall {stdin}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    question, refusal = done.stderr.splitlines()
    assert question.endswith("with all its messages? [y/N] ")
    assert refusal == f"{PROG} uninstall: nothing was dropped; answer y, or give --yes"
    assert [found.schema for found in status(conn)] == ["lonny"]


def test_a_terminal_that_has_not_all_letters_is_no_obstacle(conn: Connection) -> None:
    install(conn, "\u0448\u0438\u043d\u0430")
    done = subprocess.run(
        [sys.executable, "-m", "pylonny", "status"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith(r"\u0448\u0438\u043d\u0430 ")


def test_a_dry_run_prints_the_plan_and_does_nothing(run: Run, conn: Connection) -> None:
    before = objects(conn)
    place = f'schema "lonny" of database "{conn.info.dbname}"'
    code, out, err = run("install", "--dry-run", "--event-channel", "e")
    first, *lines = out.splitlines()
    assert (code, first, err) == (0, f'{place}: no queue yet, events on channel "e" afterwards.', "")
    assert lines[:2] == ["  run      migrations/0001_initial.sql", "  replace  functions/_clock.sql"]
    assert lines[-1] == "  replace  grants.sql"
    assert objects(conn) == before
    install(conn)
    assert run("install", "--dry-run")[1].splitlines() == [
        f"{place}: version 1, no events afterwards.",
        "Nothing is new: functions and rights would be made anew.",
    ]
    conn.execute("DELETE FROM lonny.template WHERE path = 'functions/_clock.sql'")
    lines = run("install", "--dry-run")[1].splitlines()
    assert lines[1:] == ["  replace  functions/_clock.sql"]
    code, out, err = run("install", "--dry-run", "--to", "2")
    assert (code, out) == (1, "")
    assert 'schema "lonny" would have migration 1 then, not 2' in err


def test_a_newer_queue_is_left_as_it_is_with_a_warning(run: Run, conn: Connection) -> None:
    install(conn)
    conn.execute("INSERT INTO lonny.migration VALUES (9, 'later', 'x', '9.8.7', false, now())")
    place = f'schema "lonny" of database "{conn.info.dbname}"'
    left = f"Left as it is: {place} has a queue of pylonny 9.8.7; this is {__version__}; upgrade pylonny."
    assert run("install") == (0, "", left)
    assert run("install", "--dry-run") == (0, left, "")


def test_status_tells_what_is_pending_and_what_somebody_has_changed(run: Run, conn: Connection) -> None:
    install(conn)
    conn.execute("DROP INDEX lonny.wake_due_idx; DELETE FROM lonny.migration")
    assert run("status")[1].splitlines()[2:] == [
        "lonny: pending: migrations/0001_initial.sql",
        "lonny: table wake: index wake_due_idx is missing",
    ]


def test_an_install_that_is_not_let_in_says_by_whom(
    run: Run, conn: Connection, open_as: Connector, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(conn)
    add_file(root, "migrations/0002_second.sql", "SELECT 1;\n")
    monkeypatch.setattr(templates, "find", lambda: root)
    working = open_as(autocommit=False, application_name="worker")
    working.execute("SELECT lonny.message_create('a', 'content', 1000)")
    before = objects(conn)
    code, out, err = run("install", "--lock-timeout", "0.05", "--attempts", "2")
    assert (code, out) == (1, "")
    pid = working.info.backend_pid
    assert re.fullmatch(
        f'{PROG} install: the queue in schema "lonny" was in use whenever it was to be changed, 2 times in'
        rf' 0.05 s each; now it is by session {pid} of role "postgres" \(worker\), idle in transaction, in a'
        r" transaction for \d+ s; end that transaction, or give more time with --lock-timeout, and try again",
        err,
    )
    assert objects(conn) == before


@pytest.mark.parametrize("timeout", ["0", "-1", "3601", "nan", "x"])
def test_a_lock_timeout_is_some_seconds(capsys: pytest.CaptureFixture[str], timeout: str) -> None:
    with pytest.raises(SystemExit):
        main(["install", f"--lock-timeout={timeout}"])
    assert "must be seconds, from 0.001 to 3600" in capsys.readouterr().err


@pytest.mark.parametrize(("what", "given"), [("event", []), ("wake", ["--event-channel", "e"])])
def test_the_rendering_of_an_upgrade_has_to_say_where_it_notifies(
    run: Run, what: str, given: list[str]
) -> None:
    refused = (
        f"{PROG} render: an upgrade sets the {what} channel anew;"
        f" give --{what}-channel CHANNEL or --no-{what}-channel"
    )
    assert run("render", "--from", "1", *given) == (2, "", refused)
