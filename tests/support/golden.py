"""tests/expected/schema.sql: the schema as pg_dump shows it, for those who read what a change comes to.

Without the bodies of functions, which stand in sql/. `make ack` writes it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from pylonny.migrate import install
from tests.support.databases import private_server

if TYPE_CHECKING:
    from pylonny.server import PrivateServer

FILE = Path(__file__).parents[1] / "expected" / "schema.sql"
# What says of which version of PostgreSQL server and pg_dump are.
_VARIES = re.compile(r"^(?:--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(?:un)?restrict .*)\n", re.MULTILINE)
_BODY = re.compile(r"(?<=AS )(\$\w*\$).*?\1(?=;)", re.DOTALL)
_VIEW = re.compile(r"^CREATE VIEW .*?;", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"\b[a-z]\.(?=\w)")  # before a column, where some versions leave it out


def dump(server: PrivateServer, dsn: str) -> str:
    """The definitions of the queue in the schema `lonny`, the same for all versions of PostgreSQL."""
    text = server.run("pg_dump", "--schema-only", "--no-owner", "--schema=lonny", f"--dbname={dsn}")
    text = _BODY.sub("...", _VARIES.sub("", text))
    text = _VIEW.sub(lambda view: _TABLE.sub("", view[0]), text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def main() -> None:
    """Write it."""
    with private_server() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            install(conn)
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(dump(server, server.dsn()), encoding="utf-8")


if __name__ == "__main__":
    main()
