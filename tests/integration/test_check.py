"""check() finds what is wrong, repair() mends it, and on a queue in order neither says anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import pytest
from psycopg import sql

from tests.support.queue import LOCK_MS, create, delete, dequeue, limit, move_clock, scalar, stop_clock
from tests.support.sessions import IMPATIENT

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection

FAULTS = "SELECT kind, promise, channel, message_id FROM lonny.{}"


def faults(conn: Connection, function: LiteralString = "check()") -> list[tuple[Any, ...]]:
    return conn.execute(sql.SQL(FAULTS).format(sql.SQL(function))).fetchall()


@pytest.fixture
def queue(connect: Connect) -> Connection:
    """Messages of each kind: of a channel limited to two with two out, of a slow one, of others."""
    conn = connect()
    stop_clock(conn)
    limit(conn, "limited", 2)
    limit(conn, "slow", None, 1000)
    create(conn, "limited", 4)
    assert {message.id for message in dequeue(conn, 2)} == {1, 2}
    create(conn, "slow", 2)
    create(conn, "free")
    create(conn, "free", delay_ms=60_000)
    create(conn, None, 1, lock_ms=50)
    assert len(dequeue(conn, 3)) == 3
    create(conn, None, delay_ms=60_000)
    create(conn, "free")
    create(conn, None)
    assert faults(conn) == []
    return conn


MESSAGE = "UPDATE lonny.message SET {} WHERE id = {}"
RELEASED = (
    "status = 'READY', timer_at = NULL,"
    " policy_id = (SELECT p.id FROM lonny._policy_in_force p WHERE p.channel = '{}')"
)
PLANTED = {
    "a wake is missing: a place is free": (
        "DELETE FROM lonny.message WHERE id = 1",
        ("MESSAGE_FORGOTTEN", 2, "limited", 3),
    ),
    "a wake is missing: the policy allows more": (
        "UPDATE lonny.channel_policy SET max_concurrency = 3 WHERE channel = 'limited'",
        ("MESSAGE_FORGOTTEN", 2, "limited", 3),
    ),
    "a wake is missing: there is no policy": (
        "DELETE FROM lonny.channel_policy WHERE channel = 'limited'",
        ("MESSAGE_FORGOTTEN", 2, "limited", 3),
    ),
    "the timer of a release is missing": (
        "DELETE FROM lonny.wake WHERE channel = 'slow'",
        ("MESSAGE_FORGOTTEN", 2, "slow", 6),
    ),
    "more are ready than the limit allows": (
        MESSAGE.format(RELEASED.format("limited"), 3),
        ("CHANNEL_OVERFULL", 3, "limited", 3),
    ),
    "two are ready at one interval": (
        MESSAGE.format(RELEASED.format("slow"), "5 OR id = 6"),
        ("CHANNEL_OVERFULL", 3, "slow", 5),
    ),
    "a waiting message is in another lane": (
        MESSAGE.format("lane = lane + 1", 4),
        ("LANE_WRONG", 4, "limited", 4),
    ),
    "a ready message is in another lane": (
        MESSAGE.format("lane = lane + 1", 11),
        ("LANE_WRONG", 4, "free", 11),
    ),
    "a wake is in another lane": (
        "INSERT INTO lonny.wake (lane, channel) VALUES (1, 'limited')",
        ("LANE_WRONG", 4, "limited", None),
    ),
    "a locked message has no timer": (
        MESSAGE.format("timer_at = NULL", 1),
        ("MESSAGE_INCONSISTENT", 2, "limited", 1),
    ),
    "a locked message has another timer": (
        MESSAGE.format("timer_at = timer_at + interval '1 day'", 1),
        ("MESSAGE_INCONSISTENT", 2, "limited", 1),
    ),
    "a locked message was never dequeued": (
        MESSAGE.format("num_attempts = 0, locked_at = NULL, unlock_at = NULL, timer_at = NULL", 1),
        ("MESSAGE_INCONSISTENT", 2, "limited", 1),
    ),
    "a locked message has no time of its lock": (
        MESSAGE.format("locked_at = NULL", 1),
        ("MESSAGE_INCONSISTENT", 2, "limited", 1),
    ),
    "a ready message has a timer": (
        MESSAGE.format("timer_at = dequeue_at", 11),
        ("MESSAGE_INCONSISTENT", 2, "free", 11),
    ),
    "a delayed message has another timer": (
        MESSAGE.format("timer_at = dequeue_at + interval '1 day'", 8),
        ("MESSAGE_INCONSISTENT", 2, "free", 8),
    ),
    "a waiting message without a channel has no timer": (
        MESSAGE.format("timer_at = NULL", 10),
        ("MESSAGE_INCONSISTENT", 2, None, 10),
    ),
    "a waiting message is released": (
        MESSAGE.format("policy_id = 1", 3),
        ("MESSAGE_INCONSISTENT", 2, "limited", 3),
    ),
    "a message that was dequeued counts no attempt": (
        MESSAGE.format("locked_at = created_at", 11),
        ("MESSAGE_INCONSISTENT", 2, "free", 11),
    ),
    "a message has a negative lock": (
        MESSAGE.format("lock_ms = -1", 11),
        ("MESSAGE_INCONSISTENT", 2, "free", 11),
    ),
    "a policy with a limit is cleared": (
        "UPDATE lonny.channel_policy SET cleared = true WHERE channel = 'slow'",
        ("POLICY_INCONSISTENT", 3, "slow", None),
    ),
    "a policy without limits is in force": (
        "UPDATE lonny.channel_policy SET release_interval_ms = NULL WHERE channel = 'slow'",
        ("POLICY_INCONSISTENT", 3, "slow", None),
    ),
    "a limit is negative": (
        "UPDATE lonny.channel_policy SET max_concurrency = -1 WHERE channel = 'limited'",
        ("POLICY_INCONSISTENT", 3, "limited", None),
    ),
}


@pytest.mark.parametrize(("planted", "fault"), PLANTED.values(), ids=PLANTED)
def test_a_fault_is_found_and_mended(queue: Connection, planted: str, fault: tuple[Any, ...]) -> None:
    queue.execute(planted.encode())
    kind, promise, channel, message_id = fault
    if channel is None:
        channel = scalar(queue, "SELECT channel FROM lonny.message_status(ARRAY[%s::bigint])", [message_id])
    assert faults(queue) == [(kind, promise, channel, message_id)]
    assert faults(queue, "repair()") == [(kind, promise, channel, message_id)]
    assert faults(queue) == []
    _everything_can_be_had(queue)


def _everything_can_be_had(conn: Connection) -> None:
    """No message is lost, and no promise broken on the way."""
    conn.execute("SELECT lonny.channel_policy_set(channel, 1) FROM lonny._policy_in_force")
    left = {id_ for (id_,) in conn.execute("SELECT id FROM lonny.message").fetchall()}
    for _ in range(3):
        move_clock(conn, LOCK_MS)
        while taken := dequeue(conn, 50):
            assert faults(conn) == []
            assert set(delete(conn, *taken)) == {"MESSAGE_DELETED"}
            left -= {message.id for message in taken}
    assert left == set()


def test_a_queue_in_order_needs_no_repair(queue: Connection) -> None:
    before = queue.execute("SELECT * FROM lonny.message ORDER BY id").fetchall()
    assert faults(queue, "repair()") == []
    assert queue.execute("SELECT * FROM lonny.message ORDER BY id").fetchall() == before


INDEXES = [
    *(f"message_{name}" for name in ("ready_idx", "generation_idx", "channel_idx", "timer_idx")),
    *(f"wake_{name}" for name in ("due_idx", "generation_idx", "timer_idx", "lane_idx")),
    "wake_up_sleeper_idx",
]
CONSTRAINTS = {
    "message_id_pkey": "message",
    "channel_policy_channel_id_pkey": "channel_policy",
    "migration_version_pkey": "migration",
    "template_path_pkey": "template",
    "object_kind_name_part_pkey": "object",
    "producer_role_pkey": "producer",
}


def _definitions(conn: Connection) -> dict[str, str]:
    """Of all indexes and constraints of the queue but NOT NULL."""
    return dict(
        conn.execute(
            "SELECT c.relname, pg_get_indexdef(c.oid) FROM pg_class c"
            " WHERE c.relnamespace = 'lonny'::regnamespace AND c.relkind = 'i'"
            " UNION SELECT c.conname, pg_get_constraintdef(c.oid) FROM pg_constraint c"
            " WHERE c.connamespace = 'lonny'::regnamespace AND c.contype <> 'n'"
        ).fetchall()
    )


def test_every_index_and_constraint_is_looked_for(connect: Connect) -> None:
    assert set(_definitions(connect())) == {*INDEXES, *CONSTRAINTS}


@pytest.mark.parametrize("name", [*INDEXES, *CONSTRAINTS])
def test_what_is_missing_is_made_by_the_remedy(connect: Connect, name: str) -> None:
    conn = connect()
    before = _definitions(conn)
    drop = (
        f"ALTER TABLE lonny.{CONSTRAINTS[name]} DROP CONSTRAINT {name}"
        if name in CONSTRAINTS
        else f"DROP INDEX lonny.{name}"
    )
    conn.execute(drop.encode())
    found = conn.execute("SELECT kind, found, remedy FROM lonny.check()").fetchall()
    ((kind, text, remedy),) = found
    assert (kind, text) == ("SCHEMA_INCOMPLETE", f"{name} is missing or not valid")
    (told,) = conn.execute("SELECT remedy FROM lonny.repair()").fetchall()
    assert told == (f"Not mended here. {remedy}",)
    for statement in remedy.split("; "):
        conn.execute(statement.encode())
    assert faults(conn) == []
    assert _definitions(conn) == before


def test_a_dequeue_that_stays_open_is_found(connect: Connect) -> None:
    conn, worker, producer = connect(), connect(autocommit=False), connect(autocommit=False)
    create(conn, "a", 2)
    create(producer, "a")
    assert dequeue(worker)
    assert faults(conn) == []
    ((kind, found, remedy),) = conn.execute("SELECT kind, found, remedy FROM lonny.check(0)").fetchall()
    assert (kind, str(worker.info.backend_pid) in found) == ("TRANSACTION_OPEN", True)
    assert remedy.endswith(f"pg_terminate_backend({worker.info.backend_pid})")
    worker.rollback()
    assert faults(conn, "check(0)") == []


def test_a_repair_passes_by_what_another_has_in_hand(connect: Connect, queue: Connection) -> None:
    other, mender = connect(autocommit=False), connect(options=IMPATIENT)
    queue.execute("UPDATE lonny.message SET lock_ms = -1 WHERE id = 1")
    other.execute("SELECT FROM lonny.message WHERE id = 1 FOR UPDATE")
    (told,) = mender.execute("SELECT remedy FROM lonny.repair()").fetchall()
    assert told == ("Not mended: another transaction has it in hand, or has mended it. Check again.",)
    other.rollback()
    assert len(faults(mender, "repair()")) == 1
    assert faults(mender) == []
