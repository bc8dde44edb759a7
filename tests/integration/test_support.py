"""The tests' own tools: what they must notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import pgtap
from tests.support.plans import capture_plans
from tests.support.sessions import background

if TYPE_CHECKING:
    from pathlib import Path

    from pylonny.server import PrivateServer
    from tests.conftest import Connect

_TWO = "BEGIN;\nSELECT plan(2);\nSELECT pass('one');\n"
_END = "SELECT * FROM finish();\nROLLBACK;\n"


@pytest.mark.parametrize(
    ("program", "wrong"),
    [
        (_TWO + "SELECT pass('two');\n" + _END, []),
        (_TWO + "SELECT fail('two');\n" + _END, ["failed: 2 - two"]),
        (_TWO + _END, ["1 tests, not the 2 that were planned"]),
        (_TWO, ["1 tests, not the 2 that were planned"]),
        ("SELECT 1;\n", ["no plan"]),
        ("", ["no plan"]),
        (_TWO + "SELECT skip('not today', 1);\n" + _END, ["skipped: 2 # SKIP not today"]),
        (_TWO + "SELECT todo('later', 1);\nSELECT fail('two');\n" + _END, ["failed: 2 - two # TODO later"]),
        (_TWO + "SELECT 1 / 0;\n" + _END, ["file.sql:4: ERROR:  division by zero"]),
        (
            _TWO + "DO $$BEGIN RAISE WARNING 'look'; END$$;\nSELECT pass('two');\n" + _END,
            ["file.sql:4: WARNING:  look"],
        ),
    ],
    ids=["passed", "failed", "too few", "aborted", "other", "empty", "skipped", "todo", "error", "warning"],
)
def test_pgtap_runner_notices(
    server: PrivateServer, database: str, tmp_path: Path, program: str, wrong: list[str]
) -> None:
    file = tmp_path / "file.sql"
    file.write_text(program)
    output, found = pgtap.run(server, database, "lonny", file)
    assert found[: len(wrong)] == wrong, output
    assert bool(found) == bool(wrong), output


def test_background_sees_a_blocked_statement_and_its_blocker(connect: Connect) -> None:
    first, second = connect(autocommit=False), connect()
    first.execute("SELECT pg_advisory_xact_lock(1)")
    with background(second, "SELECT pg_advisory_xact_lock(1), 42") as step:
        assert step.blocked_by() == [first.info.backend_pid]
        with pytest.raises(TimeoutError, match="not ended"):
            step.result(timeout=0.01)
        first.commit()
        assert step.blocked_by() == []
        assert step.result() == [("", 42)]


def test_background_raises_the_error_of_a_statement_that_nobody_asked_for(connect: Connect) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero), background(connect(), "SELECT 1 / 0") as step:
        assert step.blocked_by() == []


def test_background_cancels_the_statement_of_a_test_that_failed(connect: Connect) -> None:
    conn = connect()
    with pytest.raises(ZeroDivisionError), background(conn, "SELECT pg_sleep(3600)"):
        _ = 1 / 0
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_capture_plans_sees_statements_inside_functions(connect: Connect) -> None:
    conn = connect()
    conn.execute("CREATE TABLE number (value integer PRIMARY KEY)")
    conn.execute(
        "CREATE FUNCTION first() RETURNS integer LANGUAGE plpgsql AS"
        " $$BEGIN RETURN (SELECT value FROM number ORDER BY value LIMIT 1); END$$"
    )
    with capture_plans(conn) as plans:
        conn.execute("SELECT first()")
    inner, outer = plans
    assert outer.query == "SELECT first()"
    assert inner.scans() == {("Index Only Scan", "number_pkey")}
    assert inner.buffers() > 0
    conn.execute("SELECT first()")
    assert len(plans) == 2


def test_a_warning_is_recorded(connect: Connect) -> None:
    connect().execute("DO $$BEGIN RAISE WARNING 'look'; RAISE NOTICE 'no matter'; END$$")
    assert [warning.splitlines()[0] for warning in connect.warnings] == ["01000 look"]
    connect.warnings.clear()
