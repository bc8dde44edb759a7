"""Through PgBouncer in transaction mode: everything but listening."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pylonny import AsyncMessage, AsyncQueue, DeleteResult, ListenError, Queue
from pylonny.adapters import Asyncpg
from tests.support.clients import asyncpg, keywords
from tests.support.fleet import Fleet
from tests.support.load import Run, prepare
from tests.support.sessions import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylonny.server import PrivateServer
    from tests.conftest import Connect

QUEUE = Queue()
_PORT = 6432  # of its socket's name
_SETTINGS = """
[databases]
* = host={root} port=5432 user=postgres

[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {root}
auth_type = any
auth_file = {root}/pgbouncer.users
pidfile = {root}/pgbouncer.pid
logfile = {root}/pgbouncer.log
pool_mode = transaction
default_pool_size = {size}
"""


# For each test a pool: as small as it can be where one session is to serve two clients in turn.
SMALL, LARGE = 2, 6


@pytest.fixture(params=[SMALL])
def pooled(request: pytest.FixtureRequest, server: PrivateServer, database: str) -> Iterator[str]:
    """The DSN of the test's database, through PgBouncer."""
    program = shutil.which("pgbouncer", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    assert program is not None, "pgbouncer not found: install it (Debian: apt-get install pgbouncer)"
    (server.root / "pgbouncer.users").write_text('"postgres" ""\n')
    settings = server.root / "pgbouncer.ini"
    settings.write_text(_SETTINGS.format(root=server.root, port=_PORT, size=request.param))
    dsn = make_conninfo(database, port=_PORT)
    server.run(program, "--quiet", "--daemon", str(settings))
    pid_file = server.root / "pgbouncer.pid"
    wait_until(lambda: pid_file.exists() and can_connect(dsn), "PgBouncer answers")
    yield dsn
    os.kill(int(pid_file.read_text()), signal.SIGINT)
    wait_until(lambda: not pid_file.exists(), "PgBouncer has ended")


def can_connect(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_consumer_works_and_says_that_it_cannot_listen(pooled: str) -> None:
    assert conninfo_to_dict(pooled)["port"] == str(_PORT)
    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as conn:
        with pytest.raises(ListenError, match="pooler"):
            next(QUEUE.consume(pooled, listen="lonny_events"))
        with pytest.raises(ListenError, match="pooler"):
            next(QUEUE.events(conn, event_channel="lonny_events"))
        batch, stop = QUEUE.batch(), threading.Event()
        for _ in range(20):
            batch.message.create(b"", lock_ms=60_000)
        left = set(batch.execute(conn))
        for message in QUEUE.consume(pooled, stop=stop):
            with message, conn.transaction():
                message.delete(conn)
            left.discard(message.id)
            if not left:
                stop.set()


def test_asyncpg_works_if_it_prepares_nothing(pooled: str) -> None:
    queue = AsyncQueue(adapter=Asyncpg)

    async def use() -> None:
        conn = await asyncpg.connect(**keywords(pooled), statement_cache_size=0)
        await work(conn)
        with psycopg.connect(pooled) as other:
            other.execute("SELECT")  # from now on in a transaction, over the connection that served so far
            await work(conn)
        await conn.close()

    async def work(conn: Any) -> None:
        await queue.message.create(conn, content=b"", lock_ms=60_000)
        async with conn.transaction():
            message = await queue.dequeue(conn)
            assert isinstance(message, AsyncMessage)
            assert await message.delete(conn) is DeleteResult.MESSAGE_DELETED

    asyncio.run(use())


@pytest.mark.parametrize("pooled", [LARGE], indirect=True)
def test_a_load_of_all_kinds_keeps_all_promises(pooled: str, connect: Connect, at_length: bool) -> None:
    conn = connect()
    prepare(conn)
    with Fleet(seed=0) as fleet:
        # Twelve clients, so that transactions have to wait for each other's sessions.
        run = Run(fleet, conn, pooled, messages=6000 if at_length else 600, pooled=True)
        run.finish()
    run.audit()
