"""Every client that pylonny has an adapter for, behind one face, so that one suite of tests serves them all.

A test calls `client(queue.dequeue(client.conn))`: what is to be awaited is awaited, on the client's own loop.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import psycopg
import psycopg_pool
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pylonny import AsyncQueue, Queue
from pylonny.adapters import Asyncpg, AsyncSQLAlchemy, Django, SQLAlchemy

# They have no types.
asyncpg: Any = import_module("asyncpg")
django_conf: Any = import_module("django.conf")
django_db: Any = import_module("django.db")

_aliases = (f"client_{number}" for number in itertools.count(1))


@dataclass
class Client:
    """A connection of one kind, and what makes a queue for it."""

    conn: Any
    make_queue: Callable[[str], Any]
    transaction: Any
    """Begins a transaction that is committed, or rolled back by an exception; None for a pool."""
    rollback: Any = None
    """Ends the transaction that calls begin by themselves; None if they do not."""
    loop: Any = None

    def __call__(self, result: Any) -> Any:
        """The result of a call, awaited if need be."""
        return self.loop.run_until_complete(result) if inspect.isawaitable(result) else result

    @contextmanager
    def within(self, manager: Any) -> Generator[Any]:
        """A context manager of either kind."""
        if hasattr(manager, "__enter__"):
            with manager as entered:
                yield entered
            return
        entered = self(manager.__aenter__())
        try:
            yield entered
        except BaseException as error:
            if not self(manager.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self(manager.__aexit__(None, None, None))


@contextmanager
def of_psycopg(dsn: str) -> Generator[Client]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Client(conn, Queue, conn.transaction)


@contextmanager
def of_psycopg_pool(dsn: str) -> Generator[Client]:
    with psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=2, open=True) as pool:
        yield Client(pool, Queue, None)


@contextmanager
def of_sqlalchemy_session(dsn: str) -> Generator[Client]:
    engine = sqlalchemy.create_engine(_url(dsn, "psycopg"))
    with Session(engine) as session:
        yield Client(session, _sqlalchemy, partial(_begun, session), session.rollback)
    engine.dispose()


@contextmanager
def of_sqlalchemy_connection(dsn: str) -> Generator[Client]:
    engine = sqlalchemy.create_engine(_url(dsn, "psycopg"))
    with engine.connect() as conn:
        yield Client(conn, _sqlalchemy, partial(_begun, conn), conn.rollback)
    engine.dispose()


def use_django(alias: str, dsn: str) -> Any:
    """Django's connection of that name, for a database."""
    if not django_conf.settings.configured:
        django_conf.settings.configure(DATABASES={}, USE_TZ=False, TIME_ZONE="America/St_Johns")
        import_module("django").setup()
    parameters = conninfo_to_dict(dsn)
    names = {"NAME": "dbname", "USER": "user", "HOST": "host", "PORT": "port"}
    settings = {name: str(parameters[key]) for name, key in names.items()}
    settings["ENGINE"] = "django.db.backends.postgresql"
    connections = django_db.connections
    connections.settings.update(connections.configure_settings({"default": {}, alias: settings}))
    return connections[alias]


@contextmanager
def of_django(dsn: str) -> Generator[Client]:
    alias = next(_aliases)
    conn = use_django(alias, dsn)
    yield Client(conn, _django, partial(django_db.transaction.atomic, using=alias))
    conn.close()


@asynccontextmanager
async def of_psycopg_async(dsn: str) -> AsyncGenerator[Client]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        yield Client(conn, AsyncQueue, conn.transaction)


@asynccontextmanager
async def of_psycopg_pool_async(dsn: str) -> AsyncGenerator[Client]:
    async with psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=2, open=False) as pool:
        yield Client(pool, AsyncQueue, None)


@asynccontextmanager
async def of_asyncpg(dsn: str) -> AsyncGenerator[Client]:
    conn = await asyncpg.connect(**keywords(dsn))
    yield Client(conn, _asyncpg, conn.transaction)
    await conn.close()


@asynccontextmanager
async def of_asyncpg_pool(dsn: str) -> AsyncGenerator[Client]:
    async with asyncpg.create_pool(**keywords(dsn), min_size=1, max_size=2) as pool:
        yield Client(pool, _asyncpg, None)


@asynccontextmanager
async def of_sqlalchemy_async_session(dsn: str, driver: str) -> AsyncGenerator[Client]:
    engine = create_async_engine(_url(dsn, driver))
    async with AsyncSession(engine) as session:
        yield Client(session, _sqlalchemy_async, partial(_begun_async, session), session.rollback)
    await engine.dispose()


@asynccontextmanager
async def of_sqlalchemy_async_connection(dsn: str, driver: str) -> AsyncGenerator[Client]:
    engine: AsyncEngine = create_async_engine(_url(dsn, driver))
    async with engine.connect() as conn:
        yield Client(conn, _sqlalchemy_async, partial(_begun_async, conn), conn.rollback)
    await engine.dispose()


CLIENTS: dict[str, Callable[[str], Any]] = {
    "psycopg": of_psycopg,
    "psycopg async": of_psycopg_async,
    "asyncpg": of_asyncpg,
    "SQLAlchemy Session": of_sqlalchemy_session,
    "SQLAlchemy Connection": of_sqlalchemy_connection,
    "SQLAlchemy AsyncSession, asyncpg": partial(of_sqlalchemy_async_session, driver="asyncpg"),
    "SQLAlchemy AsyncConnection, psycopg": partial(of_sqlalchemy_async_connection, driver="psycopg"),
    "Django": of_django,
}
# Their calls are transactions of their own.
POOLS: dict[str, Callable[[str], Any]] = {
    "psycopg pool": of_psycopg_pool,
    "psycopg async pool": of_psycopg_pool_async,
    "asyncpg pool": of_asyncpg_pool,
}


@contextmanager
def connected(kind: str, dsn: str) -> Generator[Client]:
    """A client of that kind, connected to a database."""
    manager = (CLIENTS | POOLS)[kind](dsn)
    loop = asyncio.new_event_loop()
    try:
        with Client(None, Queue, None, loop=loop).within(manager) as client:
            client.loop = loop
            yield client
    finally:
        loop.close()


def _sqlalchemy(schema: str) -> Any:
    return Queue(schema, adapter=SQLAlchemy)


def _sqlalchemy_async(schema: str) -> Any:
    return AsyncQueue(schema, adapter=AsyncSQLAlchemy)


def _asyncpg(schema: str) -> Any:
    return AsyncQueue(schema, adapter=Asyncpg)


def _django(schema: str) -> Any:
    return Queue(schema, adapter=Django)


def _begun(conn: Session | sqlalchemy.Connection) -> Any:
    conn.rollback()
    return conn.begin()


@asynccontextmanager
async def _begun_async(conn: AsyncSession | AsyncConnection) -> AsyncGenerator[None]:
    await conn.rollback()
    async with conn.begin():
        yield


def keywords(dsn: str) -> dict[str, Any]:
    """A DSN as asyncpg has it."""
    given = conninfo_to_dict(dsn)
    return {"host": given["host"], "port": given["port"], "user": given["user"], "database": given["dbname"]}


def _url(dsn: str, driver: str) -> sqlalchemy.URL:
    given = conninfo_to_dict(dsn)
    query = {"host": str(given["host"]), "port": str(given["port"])}
    user, database = str(given["user"]), str(given["dbname"])
    return sqlalchemy.URL.create(f"postgresql+{driver}", user, database=database, query=query)
