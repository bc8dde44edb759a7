"""Two sessions at once, deterministically: a statement in the background, and what it waits for.

    with background(conn, "SELECT lonny.message_delete(%s, 1)", [42]) as step:
        assert step.blocked_by() == [other.info.backend_pid]
        other.commit()
        assert step.result() == [("MESSAGE_DELETED",)]

Nothing here sleeps and hopes: every wait is for a condition, and has a deadline.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from psycopg.abc import Params

Connection = psycopg.Connection[tuple[Any, ...]]

IMPATIENT = "-clock_timeout=20ms"  # options of a session that fails rather than waits

DEADLINE = 10.0  # seconds; far beyond what any step needs, so that reaching it is a finding
_LOOK = 0.002  # seconds from one look at an unmet condition to the next

_ACTIVITY = """
SELECT pg_blocking_pids(a.pid), a.state, a.wait_event_type, a.wait_event
FROM pg_stat_activity AS a
WHERE a.pid = %s
"""


class Step:
    """A statement under way on a connection of its own, made by `background`."""

    def __init__(self, pid: int, future: Future[list[tuple[Any, ...]]], observer: Connection) -> None:
        self.pid = pid
        self._future = future
        self._observer = observer
        self.fetched = False  # whether `result` has given its end to somebody

    @property
    def done(self) -> bool:
        """Whether the statement has ended by now."""
        return self._future.done()

    def cancel(self, conn: Connection) -> None:
        """End the statement; again and again, since a cancel that comes before it has begun is lost."""
        while not self.done:
            conn.cancel_safe()
            wait_for([self._future], timeout=_LOOK)

    def blocked_by(self, timeout: float = DEADLINE) -> list[int]:
        """Wait until the statement has ended or waits for another session's lock.

        Returns the pids it waits for, sorted; none if it has ended. TimeoutError after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        activity = None
        while time.monotonic() < deadline:
            if self.done:
                return []
            activity = self._observer.execute(_ACTIVITY, [self.pid]).fetchone()
            if activity and activity[0]:
                return sorted(set(activity[0]))
            wait_for([self._future], timeout=_LOOK)
        raise TimeoutError(f"neither ended nor blocked after {timeout} s: {activity}")

    def result(self, timeout: float = DEADLINE) -> list[tuple[Any, ...]]:
        """The statement's rows, or its error raised. TimeoutError if it takes more than `timeout` seconds."""
        wait_for([self._future], timeout=timeout)
        if not self.done:
            activity = self._observer.execute(_ACTIVITY, [self.pid]).fetchone()
            raise TimeoutError(f"not ended after {timeout} s: {activity}")
        self.fetched = True
        return self._future.result()


@contextmanager
def background(
    conn: Connection, query: LiteralString | sql.Composed, params: Params | None = None
) -> Generator[Step]:
    """Run one statement in a thread; leaving the block waits for its end, and raises its error if nobody has.

    If the block fails the statement is cancelled instead.
    """

    def run() -> list[tuple[Any, ...]]:
        cursor = conn.execute(query, params)
        return cursor.fetchall() if cursor.description else []

    with (
        psycopg.connect(conn.info.dsn, autocommit=True) as observer,
        ThreadPoolExecutor(max_workers=1) as pool,
    ):
        step = Step(conn.info.backend_pid, pool.submit(run), observer)
        try:
            yield step
            if not step.fetched:
                step.result()
        finally:
            step.cancel(conn)


def wait_until(condition: Callable[[], bool], what: str, timeout: float = DEADLINE) -> None:
    """Look at a condition until it holds; TimeoutError, naming `what`, after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    never: Future[None] = Future()
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {what}")
        wait_for([never], timeout=_LOOK)
