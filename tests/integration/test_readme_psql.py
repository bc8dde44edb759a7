"""The README's SQL: what psql prints is what the README says it prints, and its grants are enough."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from psycopg.errors import InsufficientPrivilege

from pylonny.cli import main
from pylonny.migrate import install

if TYPE_CHECKING:
    from pylonny.server import PrivateServer
    from tests.conftest import Connect

README = (Path(__file__).parents[2] / "README.md").read_text()
# What is not the same each time: milliseconds until a delay is over, which process has notified.
VARIES = [(r"(?<=MESSAGE_NOT_AVAILABLE \|  )35\d{5}$", "MS"), (r"(?<=with PID )\d+", "PID")]


def session() -> str:
    """All that the README shows of psql: the blocks of a section without a language."""
    section = README.split("## Five minutes in psql\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


def comparable(text: str) -> list[str]:
    """The lines that are not empty, without what varies."""
    for pattern, name in VARIES:
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_psql_prints_what_the_readme_says(server: PrivateServer, connect: Connect) -> None:
    conn = connect()
    install(conn, "lonny", "lonny_events")
    written = session()
    statements = [line for line in written.splitlines() if line.endswith(";")]
    assert len(statements) > 10
    options = ["--no-psqlrc", "--echo-queries", f"--dbname={conn.info.dbname}"]
    printed = server.run("psql", *options, stdin="\n".join(statements))
    assert comparable(printed) == comparable(written)


def test_the_grants_of_the_readme_are_enough(connect: Connect, capsys: pytest.CaptureFixture[str]) -> None:
    owner = connect()
    commands = re.findall(r"^python -m pylonny ((?:grant|revoke) .*)$", README, re.MULTILINE)
    assert len(commands) == 4
    roles = sorted({command.split()[1] for command in commands})
    owner.execute("".join(f"CREATE ROLE {role} LOGIN;" for role in roles).encode())
    try:
        for command in commands:
            assert main([*command.split(), "--dsn", owner.info.dsn]) == 0, capsys.readouterr().err
        tenant, worker = connect(user="tenant_1"), connect(user="worker")
        tenant.execute("SELECT lonny.message_create('tenant-1/a', 'hello', lock_ms => 0)")
        with pytest.raises(InsufficientPrivilege):
            tenant.execute("SELECT lonny.message_create('tenant-2/a', 'hello', lock_ms => 0)")
        with pytest.raises(InsufficientPrivilege):
            connect(user="shop").execute("SELECT lonny.message_create('a', 'hello', lock_ms => 0)")
        rows = worker.execute("SELECT channel FROM lonny.message_dequeue()").fetchall()
        assert rows == [("tenant-1/a",)]
    finally:
        owner.execute("".join(f"DROP OWNED BY {role}; DROP ROLE {role};" for role in roles).encode())
