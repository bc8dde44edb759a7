"""The demo's producers: `python -m pylonny.demo.producer`, one process, a few threads, a connection each.

Reads the list of files as JSON from standard input and creates one message a file, in its package's channel.
In the same transaction it writes a row of the demo's own that says what the message is about: one is there
if, and only if, the other is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue

import psycopg

from pylonny.demo.files import File, shown
from pylonny.queue import Queue

_THREADS = 3
_CHUNK = 100  # messages a transaction


def main() -> None:
    """Say "ready", and begin when a line arrives with the files in it."""
    parser = argparse.ArgumentParser(prog="python -m pylonny.demo.producer")
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--schema", required=True)
    parser.add_argument("--lock-ms", required=True, type=int)
    args = parser.parse_args()
    print("ready", flush=True)
    files = [File(*fields) for fields in json.loads(sys.stdin.readline() or "[]")]
    chunks: SimpleQueue[Sequence[File]] = SimpleQueue()
    for chunk in largest_first(files):
        chunks.put(chunk)
    queue = Queue(args.schema)
    with ThreadPoolExecutor(_THREADS) as pool:
        threads = [pool.submit(produce, args.dsn, queue, args.lock_ms, chunks) for _ in range(_THREADS)]
    for thread in threads:
        thread.result()


def largest_first(files: Sequence[File]) -> list[Sequence[File]]:
    """The files in chunks of one channel each, those of the largest channel first.

    The order is the worst for everybody but the largest: in a plain queue all others would wait behind it.
    """
    channels: defaultdict[str, list[File]] = defaultdict(list)
    for file in files:
        channels[file.channel].append(file)
    return [
        channel[start : start + _CHUNK]
        for channel in sorted(channels.values(), key=len, reverse=True)
        for start in range(0, len(channel), _CHUNK)
    ]


def produce(dsn: str, queue: Queue, lock_ms: int, chunks: SimpleQueue[Sequence[File]]) -> None:
    """Create the messages of chunk after chunk, until there are none left."""
    with psycopg.connect(dsn, autocommit=True) as conn, suppress(Empty):
        while True:
            chunk = chunks.get_nowait()
            with conn.transaction():
                for file in chunk:
                    messages = queue.channel(file.channel).message
                    message_id = messages.create(conn, content=os.fsencode(file.path), lock_ms=lock_ms)
                    conn.execute(
                        "INSERT INTO demo.file (message_id, channel, path, size) VALUES (%s, %s, %s, %s)",
                        (message_id, file.channel, shown(file.path), file.size),
                    )


if __name__ == "__main__":
    main()
