"""`make layer`: what the Python layer costs, on a private server as durable as PostgreSQL is by default.

It ends with status 1 if a figure is above its limit. A latency is that from a create, its commit included, to
the message in the hands of a consumer that was idle; a call's cost is the processor time of this process, so
that of Python and libpq, above that of the same statement sent with psycopg alone.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from queue import SimpleQueue
from statistics import median
from typing import Any

import psycopg

from pylonny import AsyncQueue, Queue
from pylonny.bench.statistics import percentile
from pylonny.migrate import install
from pylonny.operations import statements
from pylonny.server import PrivateServer

EVENTS, WAKE_UPS = "lonny_events", "lonny_wake_ups"
MESSAGES = 1000  # for latencies, of each consumer
CALLS = 1000
ROUNDS = 5
IMPORT = "import psycopg, time; t = time.perf_counter(); import pylonny.queue; print(time.perf_counter() - t)"

QUEUE = Queue()
Connection = psycopg.Connection[Any]
Delivered = SimpleQueue[float]


def main() -> int:
    """Measure and tell; 0 if all is within its limits."""
    figures: list[tuple[str, float, str, float]] = []
    with PrivateServer() as server, psycopg.connect(server.dsn(), autocommit=True) as conn:
        install(conn)
        costs = calls(conn)
        figures += [(f"{name}, above psycopg", 1e6 * cost, "µs", 30) for name, cost in costs.items()]
        for listen, told in ((EVENTS, "events"), (WAKE_UPS, "wake-ups")):
            events, wake_ups = (channel if channel == listen else None for channel in (EVENTS, WAKE_UPS))
            install(conn, event_channel=events, wake_channel=wake_ups)
            for name, consume in {"sync": consume_sync, "async": consume_async}.items():
                waits = sorted(latencies(conn, server.dsn(), partial(consume, listen)))
                for percent in (50, 99):
                    what = f"idle to delivery, {told}, {name}, p{percent} of {MESSAGES}"
                    figures.append((what, 1000 * percentile(waits, percent), "ms", 20))
    figures.append(("import, above psycopg's", 1000 * import_time(), "ms", 50))
    for what, value, unit, limit in figures:
        print(f"{what:<50} {value:8.1f} {unit}   (at most {limit})")
    return int(any(value > limit for _, value, _, limit in figures))


def latencies(conn: Connection, dsn: str, consume: Callable[[str, Delivered], None]) -> list[float]:
    """Seconds from before the create to the delivery, one a message."""
    delivered: Delivered = SimpleQueue()
    waits: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        consumer = pool.submit(consume, dsn, delivered)
        for number in range(MESSAGES):
            time.sleep((10 + number % 41) / 1000)  # the consumer becomes idle
            start = time.perf_counter()
            QUEUE.channel("a").message.create(conn, content=b"", lock_ms=30_000)
            waits.append(delivered.get(timeout=30) - start)
        consumer.result(timeout=30)
    return waits


def consume_sync(listen: str, dsn: str, delivered: Delivered) -> None:
    """Take MESSAGES, and say when each came."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for number, message in enumerate(QUEUE.consume(dsn, listen=listen), 1):
            delivered.put(time.perf_counter())
            message.delete(conn)
            if number == MESSAGES:
                return


def consume_async(listen: str, dsn: str, delivered: Delivered) -> None:
    """The same, awaited."""

    async def consume() -> None:
        async with (
            await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn,
            aclosing(AsyncQueue().consume(dsn, listen=listen)) as messages,
        ):
            number = 0
            async for message in messages:
                delivered.put(time.perf_counter())
                await message.delete(conn)
                number += 1
                if number == MESSAGES:
                    return

    asyncio.run(consume())


def calls(conn: Connection) -> dict[str, float]:
    """Processor seconds of calls above those of their statements alone."""
    channel, sent = QUEUE.channel("a"), statements(QUEUE.schema)
    create, dequeue, delete = (each.pyformat.encode() for each in (sent.create, sent.dequeue, sent.delete))
    messages: list[Any] = []
    rows: list[Any] = []

    def alone(statement: bytes, *values: object) -> Any:
        return conn.execute(statement, values, binary=True).fetchone()

    costs: dict[str, list[float]] = {"create": [], "dequeue": [], "delete": []}
    for _ in range(ROUNDS):
        costs["create"].append(
            above(
                lambda: channel.message.create(conn, content=b"content", lock_ms=30_000),
                lambda: alone(create, "a", b"content", 30_000, 0),
            )
        )
        costs["dequeue"].append(
            above(
                lambda: messages.append(QUEUE.dequeue(conn)),
                lambda: rows.append(alone(dequeue, 1, None)),
            )
        )
        costs["delete"].append(
            above(
                lambda: messages.pop().delete(conn),
                lambda: alone(delete, rows[-1][1], rows.pop()[5]),
            )
        )
    return {name: median(found) for name, found in costs.items()}


def above(call: Callable[[], object], alone: Callable[[], object]) -> float:
    """Processor seconds of one call more than of the other."""
    first, second = (timeit.timeit(each, timer=time.thread_time, number=CALLS) for each in (call, alone))
    return (first - second) / CALLS


def import_time() -> float:
    """Seconds of an import, the median of ROUNDS."""
    command = [sys.executable, "-c", IMPORT]
    return median(
        float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(ROUNDS)
    )


if __name__ == "__main__":
    sys.exit(main())
