"""Which statements of the PL/pgSQL the tests execute: a plugin for pytest, and the gate.

`make coverage` runs some of the tests with it, on a server that has plpgsql_check, whose profiler counts; and
then fails if less than 95 % of the statements were executed, or one that refuses something was not.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

from pylonny.templates import Templates
from tests.support import databases

if TYPE_CHECKING:
    from collections.abc import Generator

LEAST = 0.95

_BODY = re.compile(r"AS \$function\$(.*)\$function\$;", re.DOTALL)
_COUNTS = """
SELECT p.proname, p.prosrc, s.stmtid, s.lineno, s.stmtname, s.exec_stmts + s.exec_stmts_err
FROM pg_proc p
JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
CROSS JOIN LATERAL tap.plpgsql_profiler_function_statements_tb(p.oid) s
WHERE p.pronamespace = to_regnamespace('lonny')
"""
_OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class Statement(NamedTuple):
    """One statement of a function; `line` is that of the body, whose first is 1."""

    function: str
    number: int
    line: int
    kind: str


class Coverage:
    """What was counted, and the plugin that counts."""

    def __init__(self) -> None:
        self.bodies = {
            template.name: found[1]
            for template in Templates().files
            if (found := _BODY.search(Templates().file(template)))
        }
        self.counts: Counter[Statement] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Function) -> Generator[None, object, object]:
        """Look before roles are dropped too: that changes functions, which then count as others."""
        for name in ("database", "empty"):
            if name in item.funcargs:
                self.collect(str(item.funcargs[name]), is_over=False)
        return (yield)

    def collect(self, dsn: str, *, is_over: bool = True) -> None:
        """Add what the profiler has, of functions that no test has replaced."""
        with psycopg.connect(dsn, autocommit=True) as conn:
            end = time.monotonic() + 10
            while is_over and conn.execute(_OTHERS).fetchone() != (0,):  # a session tells the rest at its end
                assert time.monotonic() < end, "a test has left a session"
            conn.execute("SET client_min_messages = error")
            conn.execute("CREATE SCHEMA IF NOT EXISTS tap")
            conn.execute("CREATE EXTENSION IF NOT EXISTS plpgsql_check SCHEMA tap")
            for function, body, number, line, kind, count in conn.execute(_COUNTS).fetchall():
                if self.bodies.get(function) == body:
                    self.counts[Statement(function, number, line, kind)] += count
            conn.execute("SELECT tap.plpgsql_profiler_reset_all()")

    def missing(self) -> list[Statement]:
        """The statements that were not executed. Blocks of statements are none by themselves."""
        return sorted(statement for statement, count in self.counts.items() if not count)

    def source(self, statement: Statement) -> str:
        """Its first line."""
        return self.bodies[statement.function].split("\n")[statement.line - 1].strip()

    def refuses(self, statement: Statement) -> bool:
        """Whether it raises an error that a caller sees: not one that only undoes what was tried."""
        source = self.source(statement)
        return "_raise_invalid(" in source or (statement.kind == "RAISE" and "PYUND" not in source)

    def share(self) -> float:
        """The share of the statements that were executed."""
        return 1 - len(self.missing()) / len(self.counts) if self.counts else 0.0

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say it, and what is missing."""
        terminalreporter.section("coverage of the PL/pgSQL")
        for statement in self.missing():
            mark = "REFUSAL  " if self.refuses(statement) else ""
            place = f"{statement.function}, line {statement.line}"
            terminalreporter.write_line(f"{mark}{place}: {self.source(statement)}")
        terminalreporter.write_line(
            f"{self.share():.1%} of {len(self.counts)} statements, {LEAST:.0%} needed"
        )

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail where it is too little."""
        if self.share() < LEAST or any(map(self.refuses, self.missing())):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    """Have the profiler on in the tests' servers."""
    databases.SETTINGS |= {"shared_preload_libraries": "plpgsql_check", "plpgsql_check.profiler": "on"}
    coverage = Coverage()
    config.pluginmanager.register(coverage)
    databases.before_drop.append(coverage.collect)
