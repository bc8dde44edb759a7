"""Wake-ups: a worker may sleep as long as `retry_ms` says, if it is woken where `--wake-channel` says.

A dequeue that finds nothing lets its worker sleep; what is committed then notifies, once for all that sleep.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql

from pylonny import migrate
from tests.support.queue import answer, create, dequeue, limit, move_clock, scalar, stop_clock
from tests.support.sessions import DEADLINE

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection

CHANNEL = 'it\'s a "wake"'
CREATE: LiteralString = "SELECT lonny.message_create(NULL, 'x', 60000)"
PAUSE_MS = 10  # of _sleeper_nap_ms
LONGEST_MS = 1000


class Worker:
    """A session that listens for wake-ups."""

    def __init__(self, connect: Connect) -> None:
        self.conn = connect()
        self.conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
        self._sender = connect()

    def wake_ups(self) -> int:
        """How many notifications have arrived since the last call."""
        # They arrive in the order of the commits: what was committed before comes before this one.
        self._sender.execute("SELECT pg_notify(%s, 'the end')", [CHANNEL])
        count = 0
        for notification in self.conn.notifies(timeout=DEADLINE):
            if notification.payload:
                return count
            count += 1
        raise TimeoutError(f"no end after {count}")

    def falls_asleep(self) -> bool:
        """Dequeue: whether it found nothing and may sleep until it is woken."""
        return answer(self.conn) == ([], None)


@pytest.fixture
def user(connect: Connect) -> Connection:
    """A session of a queue with a wake channel, whose clock stands still."""
    conn = connect()
    migrate.install(conn, "lonny", wake_channel=CHANNEL)
    stop_clock(conn)
    return conn


@pytest.fixture
def worker(connect: Connect, user: Connection) -> Worker:  # noqa: ARG001 - the queue that it is for
    return Worker(connect)


def wake_all(user: Connection) -> None:
    """Wake whoever sleeps, leave nothing, and let so much time pass that a worker may fall asleep anew."""
    user.execute("SELECT lonny.message_cancel(lonny.message_create(NULL, 'x', 1))")
    move_clock(user, PAUSE_MS)


def test_without_a_wake_channel_nothing_is_kept_and_nobody_is_woken(connect: Connect) -> None:
    conn = connect()
    worker = Worker(connect)
    assert worker.falls_asleep()
    conn.execute(CREATE)
    assert worker.wake_ups() == 0
    assert scalar(conn, "SELECT pg_sequence_last_value('lonny.sleeper')") is None
    assert scalar(conn, "SELECT count(*) FROM lonny.wake_up") == 0


def test_while_nobody_sleeps_nobody_is_notified(user: Connection, worker: Worker) -> None:
    user.execute(CREATE)
    assert len(dequeue(worker.conn)) == 1
    assert worker.wake_ups() == 0


def test_who_sleeps_is_woken_once(user: Connection, worker: Worker) -> None:
    assert worker.falls_asleep()
    user.execute(CREATE)
    user.execute(CREATE)
    assert worker.wake_ups() == 1


def test_all_who_sleep_are_woken(connect: Connect, user: Connection, worker: Worker) -> None:
    other = Worker(connect)
    assert worker.falls_asleep()
    assert other.falls_asleep()
    user.execute(CREATE)
    assert (worker.wake_ups(), other.wake_ups()) == (1, 1)


def test_who_falls_asleep_again_is_woken_again(user: Connection, worker: Worker) -> None:
    for _ in range(3):
        assert worker.falls_asleep()
        wake_all(user)
        assert worker.wake_ups() == 1
    assert scalar(user, "SELECT count(*) FROM lonny.wake_up") == 1


def test_nobody_falls_asleep_within_ten_milliseconds_of_another(user: Connection, worker: Worker) -> None:
    assert worker.falls_asleep()
    user.execute(CREATE)
    move_clock(user, 4)
    assert len(dequeue(worker.conn)) == 1
    taken, retry_ms = answer(worker.conn)
    assert (taken, retry_ms) == ([], PAUSE_MS - 4)
    move_clock(user, PAUSE_MS - 4)
    assert answer(worker.conn)[1] == 60_000 - (PAUSE_MS - 4)  # it sleeps until the lock ends


def test_a_clock_that_was_set_back_keeps_nobody_awake(user: Connection, worker: Worker) -> None:
    assert worker.falls_asleep()
    wake_all(user)
    move_clock(user, -3_600_000)
    assert worker.falls_asleep()
    user.execute(CREATE)
    assert worker.wake_ups() == 2


def test_a_wake_up_that_is_rolled_back_does_not_count(
    connect: Connect, user: Connection, worker: Worker
) -> None:
    other = connect()
    assert worker.falls_asleep()
    other.execute("BEGIN")
    other.execute(CREATE)
    other.execute("ROLLBACK")
    assert worker.wake_ups() == 0
    user.execute(CREATE)
    assert worker.wake_ups() == 1


def test_one_that_is_not_committed_keeps_nobody_from_waking(
    connect: Connect, user: Connection, worker: Worker
) -> None:
    other = connect()
    assert worker.falls_asleep()
    other.execute("BEGIN")
    other.execute(CREATE)
    user.execute(CREATE)
    assert worker.wake_ups() == 1
    other.execute("COMMIT")
    assert worker.wake_ups() == 1


def test_who_is_not_told_of_what_is_on_its_way_naps(
    connect: Connect, user: Connection, worker: Worker
) -> None:
    producer = connect()
    assert worker.falls_asleep()
    wake_all(user)
    producer.execute("BEGIN")
    producer.execute(CREATE)  # all have been woken
    assert answer(worker.conn) == ([], PAUSE_MS)
    for passed, nap in ((0, PAUSE_MS), (30, 30), (270, 300), (3000, LONGEST_MS)):
        move_clock(user, passed)
        assert answer(worker.conn) == ([], nap)
    producer.execute("COMMIT")
    assert worker.wake_ups() == 1  # the first one
    assert len(dequeue(worker.conn)) == 1


def test_who_sleeps_looks_once_more_after_it_got_its_number(connect: Connect, user: Connection) -> None:
    # A producer that commits between the look and the number: the number is drawn by a function that creates.
    user.execute(
        """
        ALTER FUNCTION lonny._sleeper_nap_ms() RENAME TO _sleeper_nap_ms_as_it_is;
        CREATE FUNCTION lonny._sleeper_nap_ms() RETURNS bigint LANGUAGE plpgsql AS $$
        BEGIN
          PERFORM lonny.message_create(NULL, 'x', 60000);
          RETURN NULL;
        END $$;
        """
    )
    assert len(dequeue(connect())) == 1


MAKING: dict[str, LiteralString] = {
    "message_create": CREATE,
    "message_create, delayed": "SELECT lonny.message_create(NULL, 'x', 60000, 1000)",
    "message_create_many": "SELECT lonny.message_create_many(NULL, ARRAY['x', 'y']::bytea[], ARRAY[60000])",
    "message_defer": "SELECT lonny.message_defer(id, num_attempts) FROM lonny.message WHERE channel = 'free'",
    "message_delete": (
        "SELECT lonny.message_delete(id, num_attempts) FROM lonny.message"
        " WHERE channel = 'full' AND status = 'LOCKED'"
    ),
    "message_delete_many": (
        "SELECT lonny.message_delete_many(array_agg(id), array_agg(num_attempts)) FROM lonny.message"
        " WHERE channel = 'full' AND status = 'LOCKED'"
    ),
    "channel_policy_set": "SELECT lonny.channel_policy_set('full', 2)",
    "channel_policy_clear": "SELECT lonny.channel_policy_clear('full')",
}
OTHER: dict[str, LiteralString] = {
    "message_delete": (
        "SELECT lonny.message_delete(id, num_attempts) FROM lonny.message WHERE channel = 'free'"
    ),
    "message_cancel": "SELECT lonny.message_cancel(id) FROM lonny.message WHERE status = 'WAITING'",
    "message_heartbeat": "SELECT lonny.message_heartbeat(id, num_attempts) FROM lonny.message",
    "message_create_many of none": "SELECT lonny.message_create_many(NULL, '{}', '{1000}')",
    "message_status": "SELECT lonny.message_status(array_agg(id)) FROM lonny.message",
}


def prepare(user: Connection, worker: Worker) -> None:
    """One of each channel is locked, "full" is at its limit and one more waits there; the worker sleeps."""
    limit(user, "full", 1)
    create(user, "full", 2)
    create(user, "free", 1)
    assert len(dequeue(worker.conn, 3)) == 2
    assert answer(worker.conn)[1] == 3_600_000  # until the locks end
    assert worker.wake_ups() == 0


@pytest.mark.parametrize("what", MAKING)
def test_what_makes_a_message_available_wakes(user: Connection, worker: Worker, what: str) -> None:
    prepare(user, worker)
    user.execute(MAKING[what])
    assert worker.wake_ups() == 1


@pytest.mark.parametrize("what", OTHER)
def test_what_makes_none_available_does_not(user: Connection, worker: Worker, what: str) -> None:
    prepare(user, worker)
    user.execute(OTHER[what])
    assert worker.wake_ups() == 0


@pytest.mark.parametrize(
    "end",
    [
        "SELECT lonny.message_delete(id, 1) FROM lonny.message WHERE status = 'LOCKED'",
        "SELECT lonny.message_delete_many(array_agg(id), '{1}') FROM lonny.message WHERE status = 'LOCKED'",
    ],
)
def test_a_place_is_told_that_waits_for_what_is_ready_without_having_been_released(
    connect: Connect, user: Connection, worker: Worker, end: LiteralString
) -> None:
    limit(user, "a", 2)
    create(user, "a", 2)
    assert len(dequeue(user)) == 1
    limit(user, "a", 1)
    worker.conn.autocommit = False  # a dequeue that puts nothing back for others
    assert answer(worker.conn)[1] == 3_600_000  # until the lock ends
    worker.conn.commit()
    worker.conn.autocommit = True
    worker.wake_ups()
    user.execute(end)
    assert worker.wake_ups() == 1
    assert len(dequeue(connect(autocommit=False))) == 1


def test_what_repair_wakes_is_told_too(user: Connection, worker: Worker) -> None:
    limit(user, "a", 1)
    create(user, "a")
    user.execute("DELETE FROM lonny.wake")
    assert worker.falls_asleep()
    assert scalar(user, "SELECT count(*) FROM lonny.repair()") == 1
    assert worker.wake_ups() == 1


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_transaction_with_an_old_snapshot_always_notifies(
    connect: Connect, user: Connection, worker: Worker, level: LiteralString
) -> None:
    other = connect()
    assert worker.falls_asleep()
    other.execute("BEGIN ISOLATION LEVEL " + level)
    other.execute("SELECT 1 FROM lonny.message")
    user.execute(CREATE)
    other.execute(CREATE)
    other.execute("COMMIT")
    assert worker.wake_ups() == 2


def test_workers_that_only_wait_to_be_woken_get_everything(connect: Connect, user: Connection) -> None:
    migrate.install(user, "lonny", wake_channel=CHANNEL)  # and the clock runs again
    limit(user, [f"limited-{i}" for i in range(4)], 2)
    number = 400
    left = set(range(number))
    late: list[str] = []

    def produce(conn: Connection, which: range) -> None:
        for i in which:
            channel = (None, f"free-{i % 4}", f"limited-{i % 4}")[i % 3]
            if i % 5 == 0:
                conn.execute("BEGIN")
                conn.execute(CREATE)
                conn.execute("ROLLBACK")
            if i % 7 == 0:
                conn.execute("BEGIN")
            conn.execute("SELECT lonny.message_create(%s, %s, 60000)", [channel, str(i).encode()])
            if i % 7 == 0:
                conn.execute("SELECT count(*) FROM lonny.message")  # what a business transaction does besides
                conn.execute("COMMIT")

    def work(conn: Connection) -> None:
        conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
        while left and not late:
            row = conn.execute(
                "SELECT id, num_attempts, content, retry_ms FROM lonny.message_dequeue()", prepare=False
            ).fetchone()
            assert row is not None
            id_, num_attempts, content, retry_ms = row
            if id_ is not None:
                conn.execute("SELECT lonny.message_delete(%s, %s)", [id_, num_attempts])
                left.discard(int(content))
                continue
            # Nobody is woken when all is done.
            limit_s = DEADLINE if retry_ms is None else retry_ms / 1000
            for _ in conn.notifies(timeout=min(limit_s, 1) if over.is_set() else limit_s, stop_after=1):
                break
            else:
                if limit_s == DEADLINE and left and not over.is_set():
                    late.append(f"slept, while {left} were there")

    over = threading.Event()
    producers, workers = [connect() for _ in range(3)], [connect() for _ in range(4)]
    with ThreadPoolExecutor(7) as pool:
        working = [pool.submit(work, conn) for conn in workers]
        producing = [pool.submit(produce, conn, range(n, number, 3)) for n, conn in enumerate(producers)]
        for done in producing:
            done.result()
        over.set()
        user.execute(CREATE.replace("'x'", "'0'").encode())
        for done in working:
            done.result(timeout=2 * DEADLINE)
    assert (left, late) == (set(), [])
