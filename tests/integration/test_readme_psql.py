"""The README's SQL: what psql prints is what the README says it prints, and its grants are enough."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pylonny.migrate import install
from tests.support.sessions import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture
def app(connect: Connect) -> Iterator[str]:
    """A role that may log in and nothing else; what it is granted in the test's database goes with it."""
    conn = connect()
    conn.execute("CREATE ROLE readme_app LOGIN")
    yield "readme_app"
    conn.execute("DROP OWNED BY readme_app; DROP ROLE readme_app")


def test_the_grants_of_the_readme_are_enough_for_a_worker(connect: Connect, app: str) -> None:
    owner = connect()
    grants = re.findall(r"^GRANT .* TO app;$", README, re.MULTILINE)
    assert len(grants) == 4
    owner.execute("\n".join(grants).replace(" TO app;", f" TO {app};").encode())
    worker = connect(user=app)
    worker.execute("SELECT lonny.channel_policy_set('b', max_concurrency => 1, release_interval_ms => 1)")
    for channel in ("a", "b", "b", "a"):
        worker.execute("SELECT lonny.message_create(%s, 'hello', lock_ms => 0)", [channel])
    worker.execute("SELECT lonny.message_create_many(NULL, '{x}', '{0}', '{1}')")
    # In turns: without the right to see which lane was served last, each call would begin with the same one.
    assert len({dequeued(worker)[1] for _ in range(2)}) == 2
    with worker.transaction():
        id_, _, num_attempts = dequeued(worker)
    for query in (
        "SELECT lonny.message_heartbeat(%s, %s)",
        "SELECT lonny.message_defer(%s, %s)",
        "SELECT lonny.message_delete(%s, %s)",
        "SELECT lonny.message_delete_many(ARRAY [%s]::bigint[], ARRAY [%s]::integer[])",
    ):
        worker.execute(query, [id_, num_attempts])
    worker.execute("SELECT lonny.message_cancel(%s), lonny.message_status(ARRAY [%s::bigint])", [id_, id_])
    worker.execute("SELECT lonny.channel_policy_clear('b')")


def dequeued(conn: Connection) -> tuple[int, str, int]:
    """Id, channel and num_attempts of a message that is dequeued."""
    row = conn.execute("SELECT id, channel, num_attempts FROM lonny.message_dequeue()").fetchone()
    assert row is not None
    assert row[0] is not None
    return row
