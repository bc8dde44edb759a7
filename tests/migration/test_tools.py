"""Alembic and Django, run with what the README shows, leave what `install` does, to the byte."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pylonny.migrate import install, status
from pylonny.server import PrivateServer
from tests.migration.conftest import add_file, dump
from tests.migration.test_render import ledger, psql

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

# Whose statements a migration of the tool runs: the install, then an upgrade to a made-up next version.
FIRST = "Queue({schema!r}).migrations({channel!r})"
SECOND = "Templates({schema!r}, {channel!r}, Path({root!r})).statements(from_version=1)"
IMPORTS = """\
from pathlib import Path
from pylonny import Queue
from pylonny.templates import Templates
"""

ENV = """\
import os
from alembic import context
from sqlalchemy import create_engine

url = os.environ["URL"]
if context.is_offline_mode():
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(url).connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""
SETTINGS = """\
import os

parameters = dict(item.split("=", 1) for item in os.environ["DATABASE"].split("\\n"))
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", **parameters}}
INSTALLED_APPS = ["app"]
USE_TZ = True
"""


def snippet(what: str) -> str:
    """The README's Python that has this in it."""
    snippets: list[str] = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    [found] = [code for code in snippets if what in code]
    assert found.count('Queue("jobs").migrations()') == 1
    return IMPORTS + found


def run(folder: Path, *command: str, **environment: str) -> str:
    """What the tool prints; it has to succeed."""
    path = os.pathsep.join([str(ROOT), str(folder)])
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Alembic:
    """A project of Alembic, with a revision for each of these."""

    def __init__(self, folder: Path, dsn: str, statements: list[str]) -> None:
        parameters = conninfo_to_dict(dsn)
        self.folder = folder
        self.url = (
            f"postgresql+psycopg://{parameters['user']}@/{parameters['dbname']}"
            f"?host={parameters['host']}&port={parameters['port']}"
        )
        (folder / "versions").mkdir(parents=True)
        (folder / "env.py").write_text(ENV)
        (folder / "alembic.ini").write_text("[alembic]\nscript_location = .\n")
        for number, expression in enumerate(statements, start=1):
            head = f"revision = 'r{number}'\ndown_revision = {f'r{number - 1}' if number > 1 else None!r}\n"
            code = snippet("from alembic").replace('Queue("jobs").migrations()', expression)
            (folder / "versions" / f"r{number}.py").write_text(head + code)

    def upgrade(self, *arguments: str) -> str:
        return run(self.folder, "alembic", "upgrade", "head", *arguments, URL=self.url)


class Django:
    """A project of Django, with a migration for each of these."""

    def __init__(self, folder: Path, dsn: str, statements: list[str]) -> None:
        parameters = conninfo_to_dict(dsn)
        names = {"NAME": "dbname", "USER": "user", "HOST": "host", "PORT": "port"}
        self.folder = folder
        self.database = "\n".join(f"{name}={parameters[key]}" for name, key in names.items())
        package = folder / "app" / "migrations"
        package.mkdir(parents=True)
        for init in (folder / "app" / "__init__.py", package / "__init__.py"):
            init.touch()
        (folder / "settings.py").write_text(SETTINGS)
        for number, expression in enumerate(statements, start=1):
            code = snippet("migrations.RunSQL").replace('Queue("jobs").migrations()', expression)
            if number > 1:
                code = code.replace("initial = True", f"dependencies = [('app', 'm{number - 1}')]")
            (package / f"m{number}.py").write_text(code)

    def upgrade(self) -> str:
        return run(
            self.folder, "django", "migrate", DATABASE=self.database, DJANGO_SETTINGS_MODULE="settings"
        )


@pytest.fixture
def next_root(root: Path) -> Path:
    """Templates of a next version."""
    add_file(root, "migrations/0002_second.sql", "ALTER TABLE {{ schema }}.message ADD second text;\n")
    return root


NAMES = pytest.mark.parametrize(
    ("schema", "channel"), [("lonny", None), ('My "Queue" 1', "100%:a %s \\:b 'c'")]
)


def dumped(server: PrivateServer, dsn: str) -> str:
    """The dump without the tools' own tables."""
    with psycopg.connect(dsn) as conn:
        conn.execute("DROP TABLE IF EXISTS alembic_version, django_migrations")
    return dump(server, dsn)


@NAMES
@pytest.mark.parametrize("tool", [Alembic, Django])
def test_a_tool_and_install_leave_the_same_state(
    server: PrivateServer,
    make_database: Callable[[], str],
    tmp_path: Path,
    next_root: Path,
    tool: type[Alembic | Django],
    schema: str,
    channel: str | None,
) -> None:
    installed, migrated = make_database(), make_database()
    names = {"schema": schema, "channel": channel, "root": str(next_root)}
    for number, statements in enumerate(([FIRST], [FIRST, SECOND])):
        with psycopg.connect(installed) as conn:
            install(conn, schema, channel, root=next_root if number else None)
        expressions = [expression.format(**names) for expression in statements]
        tool(tmp_path / str(number), migrated, expressions).upgrade()
        with psycopg.connect(migrated) as conn:
            [found] = status(conn, root=next_root if number else None)
            assert (found.version, found.event_channel, found.drift) == (number + 1, channel, ())
            assert found.pending == ()
        assert ledger(migrated, schema) == ledger(installed, schema)
        table = "alembic_version" if tool is Alembic else "django_migrations"
        with psycopg.connect(migrated) as conn:
            assert conn.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone() == (True,)
    assert dumped(server, migrated) == dumped(server, installed)


@NAMES
def test_what_alembic_prints_leaves_the_same_state(
    server: PrivateServer,
    make_database: Callable[[], str],
    tmp_path: Path,
    schema: str,
    channel: str | None,
) -> None:
    installed, printed = make_database(), make_database()
    with psycopg.connect(installed) as conn:
        install(conn, schema, channel)
    expression = FIRST.format(schema=schema, channel=channel)
    script = Alembic(tmp_path / "alembic", printed, [expression]).upgrade("--sql")
    psql(server, printed, script)
    assert ledger(printed, schema) == ledger(installed, schema)
    assert dumped(server, printed) == dumped(server, installed)
