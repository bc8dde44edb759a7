"""One worker of the demo: `python -m pylonny.demo.worker`.

It takes a few messages at a time, hashes the file that each one names, and stores the hash in the transaction
that deletes the message. Both happen or neither: a file that is delivered twice still gets one result.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from pylonny.demo.files import sha256
from pylonny.queue import Message, Queue
from pylonny.results import DeleteResult, NotAvailable

_MAX_WAIT_MS = 100  # how long a new message, which no retry_ms foretells, may stay unnoticed

_Connection = psycopg.Connection[Any]


def main() -> None:
    """Say "ready", begin at the first line of standard input, and end with the input's end."""
    parser = argparse.ArgumentParser(prog="python -m pylonny.demo.worker")
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--schema", required=True)
    parser.add_argument("--lock-ms", required=True, type=int)
    parser.add_argument("--number", required=True, type=int)
    parser.add_argument("--batch", required=True, type=int)
    parser.add_argument("--stall-after", type=int)
    args = parser.parse_args()
    with psycopg.connect(args.dsn, autocommit=True, application_name=session_name(args.number)) as conn:
        print("ready", flush=True)
        if sys.stdin.readline():
            worker = Worker(conn, Queue(args.schema), args.number, args.lock_ms)
            worker.run(args.batch, args.stall_after)


def session_name(number: int) -> str:
    """What a worker's session is called in pg_stat_activity."""
    return f"pylonny demo worker {number}"


def told_to_stop(wait_ms: int | None) -> bool:
    """Whether standard input has ended, waiting for that (for ever if None): the demo is over, or is dead."""
    return bool(select.select([sys.stdin], [], [], None if wait_ms is None else wait_ms / 1000)[0])


class Worker:
    """Hashes files until told to stop. lock_ms: how long the messages are locked, as their producer said."""

    def __init__(self, conn: _Connection, queue: Queue, number: int, lock_ms: int) -> None:
        self.conn = conn
        self.queue = queue
        self.number = number
        self.lock_ms = lock_ms
        self._locked = time.monotonic()  # when the messages in hand were locked, or their locks extended

    def run(self, batch: int, stall_after: int | None = None) -> None:
        """Take up to `batch` messages at a time, until told to stop.

        stall_after: a number of messages, after which it says "holding" and sits on the next ones it gets.
        """
        done = 0
        wait_ms = 0
        while not told_to_stop(wait_ms):
            self._locked = time.monotonic()
            messages = self.queue.dequeue_many(self.conn, batch)
            if isinstance(messages, NotAvailable):
                wait_ms = _MAX_WAIT_MS if messages.retry_ms is None else min(messages.retry_ms, _MAX_WAIT_MS)
                continue
            wait_ms = 0
            self.record(messages)
            if stall_after is not None and done >= stall_after:
                print("holding", flush=True)
                told_to_stop(None)
                return
            for position, message in enumerate(messages):
                self.process(message, held=messages[position:])
            done += len(messages)

    def record(self, messages: Sequence[Message]) -> None:
        """Write down what was delivered to whom. Only the check at the end needs it, the work does not."""
        lock = timedelta(milliseconds=self.lock_ms)
        rows = [
            (m.id, m.num_attempts, m.channel, self.number, m.is_unlocked, m.unlock_at - lock, m.unlock_at)
            for m in messages
        ]
        with self.conn.cursor() as cursor:
            cursor.executemany("INSERT INTO demo.delivery VALUES (%s, %s, %s, %s, %s, %s, %s)", rows)

    def process(self, message: Message, held: Sequence[Message]) -> None:
        """Hash the message's file. Whatever time it takes, all messages that are held stay locked."""
        self.keep(held)
        try:
            digest = sha256(Path(os.fsdecode(message.content)), between=lambda: self.keep(held))
        except OSError as error:
            self.finish(message, None, str(error))
        else:
            self.finish(message, digest)

    def keep(self, held: Sequence[Message]) -> None:
        """Extend the locks when a third of their time has passed."""
        now = time.monotonic()
        if now - self._locked > self.lock_ms / 3000:
            self._locked = now
            for message in held:
                # Nothing is to be done about a lock that is lost: the delete will be refused.
                message.heartbeat(self.conn)

    def finish(self, message: Message, digest: bytes | None, error: str | None = None) -> None:
        """Store the result and delete the message, in one transaction.

        If the lock ran out and another worker has the message, the delete is refused and the result is
        rolled back with it: the other one will store its own.
        """
        with self.conn.transaction():
            self.conn.execute(
                "INSERT INTO demo.result (message_id, num_attempts, worker, sha256, error)"
                " VALUES (%s, %s, %s, %s, %s)",
                (message.id, message.num_attempts, self.number, digest, error),
            )
            if message.delete(self.conn) is not DeleteResult.MESSAGE_DELETED:
                raise psycopg.Rollback


if __name__ == "__main__":
    main()
