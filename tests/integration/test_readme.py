"""The README's Python, run from top to bottom: each snippet may use what those before it have defined."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pylonny.migrate import install
from tests.support.clients import use_django

if TYPE_CHECKING:
    import pytest

    from tests.conftest import Connect

README = (Path(__file__).parents[2] / "README.md").read_text()
VARIABLES = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGDATABASE": "dbname"}


def snippets() -> list[str]:
    """The README's Python, each below so many empty lines that errors name its lines."""
    found = re.finditer(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return ["\n" * README.count("\n", 0, match.start(1)) + match[1] for match in found]


def stop_when_done(dsn: str, namespace: dict[str, Any], over: threading.Event) -> None:
    """Stop the consumers of the snippets when there is nothing left for them to do."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        while not over.wait(0.02):
            if conn.execute("SELECT FROM lonny.message WHERE status <> 'WAITING'").fetchone() is None:
                namespace.get("stop", threading.Event()).set()


def test_every_snippet_runs(
    connect: Connect,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    admin = connect()
    install(admin, "lonny", "lonny_events")
    for name, key in VARIABLES.items():
        monkeypatch.setenv(name, str(conninfo_to_dict(database)[key]))
    django = use_django("default", database)
    opened: list[psycopg.Connection[Any]] = []
    open_connection = psycopg.connect

    def connect_and_remember(*args: Any, **options: Any) -> psycopg.Connection[Any]:
        opened.append(open_connection(*args, **options))
        return opened[-1]

    monkeypatch.setattr(psycopg, "connect", connect_and_remember)
    namespace: dict[str, Any] = {}
    over = threading.Event()
    watch = threading.Thread(target=stop_when_done, args=(database, namespace, over))
    watch.start()
    try:
        for code in snippets():
            exec(compile(code, "README.md", "exec"), namespace)  # noqa: S102 - it is ours
    finally:
        over.set()
        watch.join()
        django.close()
        if "engine" in namespace:
            namespace["engine"].dispose()
        for conn in opened:
            conn.close()

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    printed = capsys.readouterr().out
    for lines in (
        "tenant-1 hello\n",
        "working on a\nworking on b\nworking on c\n",
        "1 False 2 True\nMESSAGE_STATE_INVALID MESSAGE_DELETED\n",
        "report of month 1\n",
        "can be had in 0 ms\n",
        "invalid lock_ms: -1 22023\n",
    ):
        assert lines in printed
    invoices = admin.execute("SELECT id, is_sent FROM invoice ORDER BY id").fetchall()
    assert invoices == [(42, True), (43, False)]
    left = admin.execute("SELECT convert_from(content, 'UTF8') FROM lonny.message ORDER BY id").fetchall()
    clients = ["from any client", "43", "from Django", "from asyncpg"]
    assert [text for (text,) in left] == ["monthly", "new", "1", "2", "3", "4", *clients]
