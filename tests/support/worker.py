"""A worker to be killed, disconnected or told to stop: python -m tests.support.worker sync|async DSN.

It writes down each message in the transaction that deletes it. A message "slow" waits for advisory lock 1.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import psycopg

from pylonny import AsyncQueue, Backoff, DeleteResult, Queue

LOCK_MS = 1000
RETRY = Backoff(first_ms=10, max_ms=100)
INSERT = "INSERT INTO public.done (message_id, worker) VALUES (%s, %s)"
SLOW = "SELECT pg_advisory_xact_lock(1)"
EVENTS = "lonny_events"


class LostError(Exception):
    """The message is another worker's by now: what was written is rolled back."""


def work(dsn: str) -> None:
    for message in Queue().consume(dsn, lock_ms=LOCK_MS, listen=EVENTS, retry=RETRY):
        with message, psycopg.connect(dsn) as conn:
            conn.execute(INSERT, [message.id, "sync"])
            if message.content == b"slow":
                conn.execute(SLOW)
            if message.delete(conn) is not DeleteResult.MESSAGE_DELETED:
                raise LostError


async def work_async(dsn: str) -> None:
    async for message in AsyncQueue().consume(dsn, lock_ms=LOCK_MS, listen=EVENTS, retry=RETRY):
        async with message, await psycopg.AsyncConnection.connect(dsn) as conn:
            await conn.execute(INSERT, [message.id, "async"])
            if message.content == b"slow":
                await conn.execute(SLOW)
            if await message.delete(conn) is not DeleteResult.MESSAGE_DELETED:
                raise LostError


if __name__ == "__main__":
    logging.basicConfig()
    if sys.argv[1] == "sync":
        work(sys.argv[2])
    else:
        asyncio.run(work_async(sys.argv[2]))
