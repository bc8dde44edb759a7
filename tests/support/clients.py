"""Every client that pylonny has an adapter for, behind one face, so that one suite of tests serves them all.

A test calls `client(queue.dequeue(client.conn))`: what is to be awaited is awaited, on the client's own loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import psycopg
import psycopg_pool

from pylonny import AsyncQueue, Queue


@dataclass
class Client:
    """A connection of one kind, and what makes a queue for it."""

    conn: Any
    make_queue: Callable[[str], Any]
    transaction: Any
    """Begins a transaction that is committed, or rolled back by an exception; None for a pool."""
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def __call__(self, result: Any) -> Any:
        """The result of a call, awaited if need be."""
        return self.loop.run_until_complete(result) if inspect.iscoroutine(result) else result

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


def psycopg_sync(dsn: str) -> Generator[Client]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Client(conn, Queue, conn.transaction)


def pool_psycopg(dsn: str) -> Generator[Client]:
    with psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=2, open=True) as pool:
        yield Client(pool, Queue, None)


def psycopg_async(dsn: str) -> Generator[Client]:
    client = Client(None, AsyncQueue, None)
    with client.within(client(psycopg.AsyncConnection.connect(dsn, autocommit=True))) as conn:
        client.conn, client.transaction = conn, conn.transaction
        yield client


def pool_psycopg_async(dsn: str) -> Generator[Client]:
    client = Client(None, AsyncQueue, None)
    with client.within(psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=2, open=False)) as pool:
        client.conn = pool
        yield client


CLIENTS: dict[str, Callable[[str], Generator[Client]]] = {
    "psycopg": psycopg_sync,
    "psycopg_async": psycopg_async,
    "pool_psycopg": pool_psycopg,
    "pool_psycopg_async": pool_psycopg_async,
}


@contextmanager
def connected(kind: str, dsn: str) -> Generator[Client]:
    """A client of that kind, connected to a database."""
    with contextmanager(cast("Any", CLIENTS[kind]))(dsn) as client:
        try:
            yield client
        finally:
            client.loop.run_until_complete(client.loop.shutdown_asyncgens())
    client.loop.close()
