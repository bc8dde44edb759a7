"""plpgsql_check on every function: it checks each statement, whether a test runs it or not.

It comes as a binary for Debian's PostgreSQL, so it is that server, not the one of the other tests.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from pylonny import migrate
from tests.support.databases import private_server

# Not performance_warnings: they advise STABLE where a function only reads, and a STABLE one would read with
# its caller's snapshot, older than the lock that the caller took. Nor its advice against a composite OUT
# argument beside others: SELECT INTO cannot fill one, but that fails at once.
_CHECK = """
SELECT p.proname, c.lineno, c.level, c.sqlstate, c.message, c.detail
FROM pg_proc AS p
JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
LEFT JOIN plpgsql_check_function_tb(
    p.oid,
    fatal_errors => false,
    other_warnings => true,
    extra_warnings => true,
    security_warnings => true,
    compatibility_warnings => true
) AS c ON c.message NOT LIKE 'composite OUT variable %'
WHERE p.pronamespace = 'lonny'::regnamespace
ORDER BY p.proname, c.lineno
"""


def _binaries() -> Path:
    libraries = list(Path("/usr/lib/postgresql").glob("*/lib/plpgsql_check.so"))
    if not libraries:
        pytest.fail(
            "plpgsql_check not found: apt-get install postgresql-15-plpgsql-check, or of another version"
        )
    return max(libraries, key=lambda path: int(path.parts[4])).parents[1] / "bin"


def test_plpgsql_check_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYLONNY_PG_BIN", str(_binaries()))
    with private_server() as server, psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("CREATE EXTENSION plpgsql_check")
        migrate.install(conn, "lonny", event_channel="lonny_events")
        rows = conn.execute(_CHECK).fetchall()
    assert {"message_dequeue", "_channel_advance"} <= {name for name, *_ in rows}, "it checked the functions"
    assert [row for row in rows if row[2] is not None] == []
