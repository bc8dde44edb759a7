"""Beside a transaction that holds an old snapshot dead rows stay, and are not stepped over for ever."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.queue import (
    create,
    delete,
    dequeue,
    generation,
    limit,
    move_clock,
    next_generation,
    scalar,
    serve,
    stop_clock,
    work,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.conftest import Connect
    from tests.support.sessions import Connection

_READ = """
SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid))
  FROM pg_index WHERE indrelid = ANY ('{lonny.message,lonny.wake}'::regclass[])
"""


@contextmanager
def _old_snapshot(connect: Connect) -> Generator[None]:
    holder = connect()
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT")
    yield
    holder.rollback()


def _live(conn: Connection, channels: list[str | None], count: int) -> int:
    """Create, dequeue and delete, so many times; how many index entries the last dequeue read."""
    read = 0
    for n in range(count):
        create(conn, channels[n % len(channels)])
        conn.execute("SELECT pg_stat_force_next_flush()")
        before = scalar(conn, _READ)
        (message,) = dequeue(conn)
        read = scalar(conn, _READ) - before
        delete(conn, message)
    return read


def _fill_with_dead_rows(conn: Connection, count: int = 600) -> None:
    """So that the next dequeue but one searches in generations."""
    create(conn, None, count)
    messages = dequeue(conn, count)
    conn.execute(
        "SELECT lonny.message_delete_many(%s, %s)",
        [[m.id for m in messages], [m.num_attempts for m in messages]],
    )
    for _ in range(2):
        create(conn, None)
        delete(conn, *dequeue(conn))


@pytest.mark.parametrize("limited", [False, True], ids=["unlimited", "limited"])
@pytest.mark.parametrize("width", [0, 1, 50], ids=["no channel", "one channel", "50 channels"])
def test_dead_rows_are_not_stepped_over_again_and_again(connect: Connect, width: int, limited: bool) -> None:
    conn = connect()
    stop_clock(conn)
    channels: list[str | None] = [f"channel-{n}" for n in range(width)] or [None]
    if limited:
        limit(conn, [channel for channel in channels if channel], 10)
    with _old_snapshot(connect):
        _fill_with_dead_rows(conn)
        assert generation(conn) > 0
        first = generation(conn)
        reads = [_live(conn, channels, 100) for _ in range(15)]
        # All that was ever there, and that several times over, is what it would read without generations.
        dead = scalar(conn, "SELECT last_value FROM lonny.message_id_seq")
        assert dead > 2000
        assert generation(conn) > first + 2
        if not limited:
            assert max(reads) < 1000
        assert generation(conn) > 0


def test_generations_end_with_the_snapshot(connect: Connect) -> None:
    conn = connect()
    stop_clock(conn)
    with _old_snapshot(connect):
        _fill_with_dead_rows(conn)
        _live(conn, [None], 10)
        assert generation(conn) > 0
        move_clock(conn, 1000)
        _live(conn, [None], 10)
        assert generation(conn) > 0
    conn.execute("VACUUM lonny.message, lonny.wake")
    move_clock(conn, 1000)
    _live(conn, [None], 2)
    assert generation(conn) <= 0
    assert scalar(conn, "SELECT last_value FROM lonny.generation_walk") == 0


@pytest.mark.parametrize("channel", [None, "a"])
def test_what_is_committed_late_goes_to_its_place_within_a_second(
    connect: Connect, channel: str | None
) -> None:
    conn, late = connect(), connect(autocommit=False)
    stop_clock(conn)
    (older,) = create(late, channel)
    with _old_snapshot(connect):
        _fill_with_dead_rows(conn)
        move_clock(conn, 10)
        newer = create(conn, channel, 3)
        late.commit()
        move_clock(conn, 1000)
        assert [message.id for message in serve(conn)] == [older, *newer]


def test_what_is_committed_late_is_found_at_once_if_there_is_nothing_else(connect: Connect) -> None:
    conn, late = connect(), connect(autocommit=False)
    stop_clock(conn)
    (older,) = create(late, None)
    with _old_snapshot(connect):
        _fill_with_dead_rows(conn)
        assert generation(conn) > 0
        assert dequeue(conn) == []
        late.commit()
        assert [message.id for message in dequeue(conn)] == [older]


@pytest.mark.parametrize("channel", [None, "a"])
def test_a_lock_that_ends_and_a_delay_that_ends_are_noticed(connect: Connect, channel: str | None) -> None:
    conn = connect()
    stop_clock(conn)
    with _old_snapshot(connect):
        _fill_with_dead_rows(conn)
        (locked,) = create(conn, channel, lock_ms=5000)
        assert [message.id for message in dequeue(conn)] == [locked]
        (delayed,) = create(conn, channel, delay_ms=6000)
        for ms, ids in [(4999, []), (1, [locked]), (999, []), (1, [delayed])]:
            move_clock(conn, ms)
            assert [message.id for message in dequeue(conn)] == ids
        assert generation(conn) > 0


def test_a_lock_that_ends_has_its_turn_beside_others(connect: Connect) -> None:
    conn = connect()
    stop_clock(conn)
    with _old_snapshot(connect):
        _fill_with_dead_rows(conn)
        (locked,) = create(conn, "a", lock_ms=100)
        assert [message.id for message in dequeue(conn)] == [locked]
        create(conn, "b", 10)
        move_clock(conn, 100)
        assert locked in [message.id for _ in range(2) for message in dequeue(conn)]


def test_a_limit_and_the_order_are_kept(connect: Connect) -> None:
    conn = connect()
    stop_clock(conn)
    limit(conn, "a", 2)
    with _old_snapshot(connect):
        _fill_with_dead_rows(conn)
        ids = create(conn, "a", 300)
        assert [message.id for message in dequeue(conn, 10)] == ids[:2]
        assert dequeue(conn, 10) == []
        move_clock(conn, 2 * 3_600_000)
        assert [message.id for message in work(conn, 10)] == ids


def test_too_many_ready_messages_are_searched_without_generations(connect: Connect) -> None:
    conn = connect()
    stop_clock(conn)
    with _old_snapshot(connect):
        _fill_with_dead_rows(conn)
        assert generation(conn) > 0
        create(conn, "a", 10_001)
        move_clock(conn, 1000)
        ids = {message.id for message in dequeue(conn)}
        assert generation(conn) < 0
        ids |= {message.id for _ in range(12) for message in dequeue(conn, 1000)}
        assert len(ids) == 10_001


def test_two_generations_have_turns_together(connect: Connect) -> None:
    """A channel with messages in the younger one has its turns between those of one in the older."""
    conn = connect()
    stop_clock(conn)
    with _old_snapshot(connect):
        _fill_with_dead_rows(conn)
        create(conn, "a", 20)
        next_generation(conn)
        assert generation(conn) % 2 == 1
        create(conn, "b", 20)
        create(conn, "a", 20)
        single = [dequeue(conn)[0].channel for _ in range(10)]
        assert single in (["a", "b"] * 5, ["b", "a"] * 5)
        batch = [message.channel for message in dequeue(conn, 10)]
        assert batch in (["a", "b"] * 5, ["b", "a"] * 5)
        assert len(serve(conn, 10)) == 40
