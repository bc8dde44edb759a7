"""A dequeue takes few of the places in the server's lock table, which all sessions share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.queue import (
    channels,
    create,
    delete,
    dequeue,
    limit,
    move_clock,
    scalar,
    serve,
    stop_clock,
)

if TYPE_CHECKING:
    from tests.conftest import Connect

_CHANNELS = """
SELECT count(*)
  FROM lonny.message_create_many((SELECT array_agg('channel-' || n) FROM generate_series(1, 5000) AS n),
                                 array_fill('x'::bytea, ARRAY[5000]), '{1000}', '{1}')
"""
# What a dequeue that is a transaction of its own has when it ends.
_LOCKS = """
CREATE FUNCTION public.locks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.seen
  SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
  RETURN NULL;
END
$$;
CREATE TABLE public.seen (num bigint);
CREATE CONSTRAINT TRIGGER locks AFTER UPDATE ON lonny.message DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION public.locks();
"""


@pytest.mark.parametrize("limited", [False, True], ids=["unlimited", "limited"])
@pytest.mark.parametrize(("max_messages", "most"), [(1, 64), (100, 200), (10_000, 500)])
def test_a_dequeue_takes_few_locks(connect: Connect, max_messages: int, most: int, limited: bool) -> None:
    conn = connect()
    stop_clock(conn)
    conn.execute(_CHANNELS)
    if limited:
        conn.execute(
            "SELECT count(lonny.channel_policy_set('channel-' || n, 5)) FROM generate_series(1, 5000) AS n"
        )
    conn.execute(_LOCKS)
    move_clock(conn, 1)
    assert dequeue(conn, max_messages) != []
    assert 0 < scalar(conn, "SELECT max(num) FROM public.seen") <= most


def test_an_open_dequeue_holds_up_no_channel_of_which_it_has_nothing(connect: Connect) -> None:
    """Not one either whose due messages were all in others' hands, and that gets a policy afterwards."""
    conn, worker, other = connect(), connect(autocommit=False), connect(autocommit=False)
    stop_clock(conn)
    names = [f"channel-{n}" for n in range(5)]
    for name in names:
        create(conn, name, lock_ms=10)
        delete(other, *dequeue(conn))
    move_clock(conn, 10)
    create(conn, "z")
    assert channels(dequeue(worker, 3)) == {"z"}
    other.rollback()
    limit(conn, names, 5)
    assert channels(serve(conn, 10)) == set(names)
    worker.rollback()


def test_no_dequeue_waits_for_a_repair_that_is_not_committed(connect: Connect) -> None:
    """It holds the versions of a policy that it mends, which a dequeue removes when there is a newer one."""
    conn, mender = connect(), connect(autocommit=False)
    stop_clock(conn)
    limit(conn, "a", 1)
    conn.execute("UPDATE lonny.channel_policy SET max_concurrency = -1")
    assert scalar(mender, "SELECT kind FROM lonny.repair()") == "POLICY_INCONSISTENT"
    ids = create(conn, "a", 3)
    limit(conn, "a", 2)
    conn.execute("SET lock_timeout = 20")
    assert [message.id for message in dequeue(conn, 3)] == ids[:2]
    mender.rollback()
