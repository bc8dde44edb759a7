"""A proxy between client and server, that cuts connections where it is told to.

with Proxy(server.root) as proxy, psycopg.connect(proxy.dsn(dsn)) as conn:
    proxy.cut("answer", 0.5, "reset")
    conn.execute("SELECT 1")  # OperationalError when half of the answer is there
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from random import Random
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar

from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

Where = Literal["request", "answer"]
How = Literal["reset", "blackhole"]
"""The other side is gone, or there is no sign of it any more."""

_T = TypeVar("_T")
_AT_ONCE = struct.pack("ii", 1, 0)  # of SO_LINGER: close with a reset
_DEADLINE = 10.0  # seconds


class Cut(NamedTuple):
    """How to end a connection: in the middle of what, after which part of it."""

    where: Where
    part: float
    how: How


class Proxy:
    """Listens on a port of this machine, for a server that listens on the socket in a folder.

    seed: given, so many of all packets are cut as `chance`, somewhere, somehow; what is in a black hole is
    then reset after `release_after` seconds, else by `release`.
    """

    def __init__(
        self, folder: Path, *, seed: int | None = None, chance: float = 0.0, release_after: float = 0.5
    ) -> None:
        self.num_cuts = 0
        self._folder = folder
        self._random = None if seed is None else Random(seed)  # noqa: S311 (nothing secret)
        self.chance = chance
        self._release_after = release_after
        self._next: Cut | None = None
        self._is_cut = threading.Event()
        self._open: list[_Connection] = []
        self._holes: list[_Connection] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self._port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def dsn(self, dsn: str) -> str:
        """The same database, through this proxy."""
        return make_conninfo(dsn, host="127.0.0.1", port=self._port, sslmode="disable", gssencmode="disable")

    def cut(self, where: Where, part: float, how: How) -> None:
        """Cut a connection in its next request, or answer, when that part of it (0 to 1) has passed."""
        self._is_cut.clear()
        self._next = Cut(where, part, how)

    def wait_until_cut(self) -> None:
        assert self._is_cut.wait(_DEADLINE), "nothing was cut"

    def release(self) -> None:
        """Let both sides of what is in a black hole know that the other one is gone."""

        async def release() -> None:
            for connection in self._holes:
                connection.reset()
            self._holes.clear()

        self._run(release())

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_DEADLINE)

    async def _end(self) -> None:
        self._server.close()
        for connection in self._open:
            connection.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_unix_connection(str(self._folder / ".s.PGSQL.5432"))
        except OSError:  # the server is down
            writer.transport.abort()
            return
        connection = _Connection(writer, there[1])
        self._open.append(connection)
        for where, source, target in (("request", reader, there[1]), ("answer", there[0], writer)):
            task = asyncio.create_task(self._pump(where, source, target, connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, where: str, source: asyncio.StreamReader, target: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        try:
            while not connection.is_cut and (data := await source.read(1 << 20)):
                if connection.is_cut:
                    return
                if cut := self._decide(where):
                    connection.is_cut = True
                    target.write(data[: int(len(data) * cut.part)])
                    await target.drain()
                    self.num_cuts += 1
                    self._is_cut.set()
                    if cut.how == "blackhole":
                        self._holes.append(connection)
                        if self._random is None:
                            return
                        await asyncio.sleep(self._release_after)
                    connection.reset()
                    return
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
        if not connection.is_cut:
            target.close()

    def _decide(self, where: str) -> Cut | None:
        if self._random is not None and self._random.random() < self.chance:
            how: How = "reset" if self._random.random() < 0.5 else "blackhole"
            return Cut("answer", self._random.random(), how)
        if self._next is not None and self._next.where == where:
            cut, self._next = self._next, None
            return cut
        return None


class _Connection:
    """Both of its ends."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.is_cut = False
        self._writers = writers

    def reset(self) -> None:
        for writer in self._writers:
            end = writer.get_extra_info("socket")
            if writer.is_closing():
                continue
            if end.family == socket.AF_INET:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            writer.transport.abort()
