"""A create that is a transaction of its own makes a message of a limited channel ready there and then.

Only if a count tells that it may; anything else is left to the dequeues, with a wake that calls them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.support.queue import (
    channels,
    create,
    dequeue,
    limit,
    move_clock,
    scalar,
    serve,
    stop_clock,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Connect
    from tests.support.sessions import Connection

CREATE: LiteralString = "SELECT lonny.message_create('a', 'x', 60000)"
BOUND: LiteralString = "SELECT lonny.message_create(%s, 'x', 60000)"
STATES: LiteralString = """
SELECT (SELECT count(*) FROM lonny.message WHERE status = 'READY'),
       (SELECT count(*) FROM lonny.message WHERE status = 'WAITING'),
       (SELECT count(*) FROM lonny.wake WHERE at IS NULL)
"""
ADMITTED = (1, 0, 0)
LEFT = (0, 1, 1)

CALLERS: LiteralString = """
CREATE TABLE public.tenant (name text);
INSERT INTO public.tenant VALUES ('a');
CREATE FUNCTION public.in_plpgsql() RETURNS bigint LANGUAGE plpgsql AS
  $$BEGIN RETURN lonny.message_create('a', 'x', 60000); END$$;
"""


def states(conn: Connection) -> tuple[int, int, int]:
    """How many messages are ready, how many wait, how many wakes are due."""
    ((ready, waiting, wakes),) = conn.execute(STATES).fetchall()
    return ready, waiting, wakes


def limited(connect: Connect, max_concurrency: int | None = 3, interval_ms: int | None = None) -> Connection:
    """A session, and the channel "a" with a policy of which the dequeues know already."""
    conn = connect()
    stop_clock(conn)
    limit(conn, "a", max_concurrency, interval_ms)
    assert dequeue(conn) == []
    assert states(conn) == (0, 0, 0)
    return conn


def test_no_more_are_admitted_than_the_limit_allows(connect: Connect) -> None:
    conn = limited(connect)
    for expected in ((1, 0, 0), (2, 0, 0), (3, 0, 0), (3, 1, 1), (3, 2, 2)):
        conn.execute(CREATE)
        assert states(conn) == expected
    assert len(serve(conn)) == 3
    assert states(conn)[1] == 2


def test_what_is_locked_counts(connect: Connect) -> None:
    conn = limited(connect, 2)
    create(conn, "a", 2)
    assert len(dequeue(conn, 2)) == 2
    conn.execute(CREATE)
    assert states(conn) == LEFT


def test_a_place_that_was_freed_is_given_again(connect: Connect) -> None:
    conn = limited(connect, 1)
    conn.execute(CREATE)
    (message,) = dequeue(conn)
    conn.execute("SELECT lonny.message_delete(%s, %s)", [message.id, message.num_attempts])
    conn.execute(CREATE)
    assert states(conn) == ADMITTED


def test_nothing_overtakes_what_waits(connect: Connect) -> None:
    conn = limited(connect)
    (first,) = create(conn, "a")
    second = scalar(conn, CREATE)
    assert states(conn)[:2] == (0, 2)
    assert [message.id for message in serve(conn)] == [first, second]


def test_what_is_delayed_keeps_nothing_out_until_it_is_due(connect: Connect) -> None:
    conn = limited(connect)
    create(conn, "a", delay_ms=1000)
    conn.execute(CREATE)
    assert states(conn) == (1, 1, 0)
    move_clock(conn, 1000)
    conn.execute(CREATE)
    assert states(conn) == (1, 2, 1)


@pytest.mark.parametrize("create_other", [f"{CREATE[:-1]}, 10)", f"{CREATE[:-1]}, -10)"])
def test_one_that_is_delayed_or_put_ahead_is_left_to_the_dequeues(
    connect: Connect, create_other: LiteralString
) -> None:
    conn = limited(connect)
    conn.execute(create_other)
    assert states(conn)[:2] == (0, 1)


@pytest.mark.parametrize(("max_concurrency", "interval_ms"), [(0, None), (None, 100), (3, 100)])
def test_a_pause_and_an_interval_are_left_to_the_dequeues(
    connect: Connect, max_concurrency: int | None, interval_ms: int | None
) -> None:
    conn = limited(connect, max_concurrency, interval_ms)
    conn.execute(CREATE)
    assert states(conn) == LEFT


def test_what_the_policy_in_force_did_not_release_is_left_to_the_dequeues(connect: Connect) -> None:
    conn = connect()
    stop_clock(conn)
    conn.execute(CREATE)
    limit(conn, "a", 3)
    conn.execute(CREATE)
    assert states(conn)[:2] == (1, 1)


def test_a_channel_in_anothers_hands_is_left_to_the_dequeues(connect: Connect) -> None:
    conn = limited(connect)
    other = connect()
    with other.transaction():
        other.execute(
            "SELECT pg_advisory_xact_lock('lonny.wake'::regclass::oid::integer, hashint8(lonny._lane('a')))"
        )
        conn.execute(CREATE)
    assert states(conn) == LEFT
    assert channels(dequeue(conn)) == {"a"}


def test_the_count_is_exact_beside_one_that_is_being_committed(connect: Connect) -> None:
    conn = limited(connect, 1)
    other = connect()
    other.execute(BOUND, ["b"], prepare=True)
    with other.pipeline():
        # Executed, as the answer shows, but not committed before the pipeline ends.
        assert other.execute(BOUND, ["a"], prepare=True).fetchone() is not None
        conn.execute(CREATE)
        assert states(conn)[:2] == (1, 1)  # of "b"; what the other created is not seen yet
    assert sorted(message.channel for message in serve(conn)) == ["a", "b"]


def simple(*queries: LiteralString) -> Callable[[Connection], None]:
    """Each as a simple query."""

    def send(conn: Connection) -> None:
        for query in queries:
            conn.execute(query, prepare=False)

    return send


def prepared(conn: Connection) -> None:
    conn.execute(BOUND, ["a"], prepare=True)


def isolated(conn: Connection) -> None:
    conn.execute("SET default_transaction_isolation = 'repeatable read'")
    conn.execute(CREATE, prepare=False)


@pytest.mark.parametrize("send", [simple(CREATE), simple("  select" + CREATE[6:] + " ;\n"), prepared])
def test_a_create_that_is_alone_may_decide(connect: Connect, send: Callable[[Connection], None]) -> None:
    conn = limited(connect)
    send(conn)
    assert states(conn) == ADMITTED


@pytest.mark.parametrize(
    "send",
    [
        simple("BEGIN", CREATE, "COMMIT"),
        simple("SELECT 1; " + CREATE),
        simple("SELECT public.in_plpgsql()"),
        simple("SELECT lonny.message_create(name, 'x', 60000) FROM public.tenant"),
        simple("UPDATE public.tenant SET name = lonny.message_create(name, 'x', 60000)::text"),
        simple("INSERT INTO public.tenant VALUES (lonny.message_create('a', 'x', 60000)::text)"),
        simple(f"SELECT '{'-' * 5000}', {CREATE[6:]}"),
        isolated,
    ],
)
def test_a_create_that_may_go_on_does_not_hold_up_the_channel(
    connect: Connect, send: Callable[[Connection], None]
) -> None:
    conn = limited(connect)
    conn.execute(CALLERS)
    send(conn)
    assert states(conn) == LEFT
