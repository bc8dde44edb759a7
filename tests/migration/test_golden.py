"""The schema is the one that somebody has read and accepted."""

from __future__ import annotations

from pylonny.migrate import install
from pylonny.server import PrivateServer
from tests.support import golden
from tests.support.sessions import Connection


def test_the_schema_is_the_accepted_one(server: PrivateServer, empty: str, conn: Connection) -> None:
    install(conn)
    found = golden.dump(server, empty)
    assert found == golden.FILE.read_text(encoding="utf-8"), "read the difference, then: make ack"
    assert "CREATE TABLE lonny.message (" in found


def test_rights_are_in_it(server: PrivateServer, empty: str, conn: Connection) -> None:
    install(conn)
    before = golden.dump(server, empty)
    conn.execute("GRANT EXECUTE ON FUNCTION lonny.message_dequeue TO PUBLIC")
    assert golden.dump(server, empty) != before
