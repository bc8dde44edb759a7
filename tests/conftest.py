"""Fixtures: one private server a session, one fresh database a test."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Protocol

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.support.databases import PgtapNotFoundError, before_drop, create_template, private_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg.errors import Diagnostic

    from pylonny.server import PrivateServer
    from tests.support.sessions import Connection

_numbers = itertools.count(1)

# An example is as slow as the server is. `make proof` chooses the second one with --hypothesis-profile.
settings.register_profile(
    "test",
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("proof", settings.get_profile("test"), max_examples=2000, stateful_step_count=50)
settings.load_profile("test")


def pytest_configure() -> None:
    """Take libpq's variables out of the environment: the tests talk to their own servers only."""
    for name in [name for name in os.environ if name.startswith("PG") and name != "PGTAP_SQL"]:
        del os.environ[name]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what is marked as `at_length` to make proof."""
    if config.getoption("--hypothesis-profile") != "proof":
        left = [item for item in items if item.get_closest_marker("at_length")]
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)


class Connect(Protocol):
    """Opens a connection to the test's database, autocommit unless told otherwise; closed after the test.

    A PostgreSQL WARNING on it fails the test; a test that wants one takes it out of `warnings`.
    """

    warnings: list[str]

    def __call__(self, *, autocommit: bool = True, **parameters: str) -> Connection: ...


class _Connections:
    def __init__(self, dsn: str) -> None:
        self.warnings: list[str] = []
        self._dsn = dsn
        self._opened: list[Connection] = []

    def __call__(self, *, autocommit: bool = True, **parameters: str) -> Connection:
        conn = psycopg.connect(make_conninfo(self._dsn, **parameters), autocommit=autocommit)
        conn.add_notice_handler(self._notice)
        self._opened.append(conn)
        return conn

    def close(self) -> None:
        for conn in self._opened:
            conn.close()

    def _notice(self, notice: Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self.warnings.append(
                f"{notice.sqlstate} {notice.message_primary}\n{notice.context or ''}".strip()
            )


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateServer]:
    """The server that all tests share. A test that stops one, or needs other settings, starts its own."""
    with private_server() as server:
        yield server


@pytest.fixture(scope="session")
def template(server: PrivateServer) -> str:
    """The name of the database that `database` copies: pgTAP in `tap`, pylonny in every schema of SCHEMAS."""
    try:
        return create_template(server)
    except PgtapNotFoundError as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture
def database(server: PrivateServer, template: str) -> Iterator[str]:
    """The DSN of a database of the test's own, dropped after it."""
    name = f"test_{next(_numbers)}"
    names = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**names))
        yield server.dsn(name)
        for look in before_drop:
            look(server.dsn(name))
        conn.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))


@pytest.fixture
def connect(database: str) -> Iterator[Connect]:
    """Opens connections to `database`; see Connect."""
    connections = _Connections(database)
    yield connections
    connections.close()
    assert connections.warnings == []


@pytest.fixture(scope="session")
def at_length(request: pytest.FixtureRequest) -> bool:
    """Whether this is `make proof`, which has the time for all that `make test` does a part of."""
    return bool(request.config.getoption("--hypothesis-profile") == "proof")


@pytest.fixture
def schema(request: pytest.FixtureRequest) -> str:
    """The queue's schema: `lonny`, unless the test is parametrised indirectly, with SCHEMAS for one."""
    return getattr(request, "param", "lonny")
