"""A connection is cut in the middle of each kind of call: it was done or not, and nobody else is held up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.integration.test_consume_processes import KINDS, LOOKING, QUEUE, create, done, worker
from tests.integration.test_consume_processes import prepare as prepare_worker
from tests.integration.test_promises import OPERATIONS, do, prepare
from tests.proof.test_crashes import CHANNELS, POLICIES
from tests.support.chaos import policy_set
from tests.support.drain import assert_in_order, drain
from tests.support.fleet import Fleet
from tests.support.journal import JOURNAL
from tests.support.proxy import Proxy
from tests.support.queue import scalar, stop_clock
from tests.support.sessions import DEADLINE, IMPATIENT, wait_until
from tests.support.steady import kept, produce, work

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from pylonny.server import PrivateServer
    from tests.conftest import Connect
    from tests.support.proxy import How, Where
    from tests.support.sessions import Connection

# Where a call is cut, and whether it is done then.
CUTS: dict[str, tuple[Where, float, bool]] = {
    "before the request is there": ("request", 0.0, False),
    "in the request": ("request", 0.5, False),
    "before the answer is there": ("answer", 0.0, True),
    "in the answer": ("answer", 0.5, True),
}
FEW = ["in the request", "before the answer is there"]  # what make test is content with
HOWS: list[How] = ["reset", "blackhole"]
LIMITS = [(7, 10), (None, None), (7, None)]

# All that an operation may change, but what depends on when it was.
STATE = """
SELECT m.id, m.status, m.channel, m.num_attempts, m.lock_ms, m.dequeue_at, m.unlock_at, m.state, NULL::bigint
  FROM lonny.message m
 UNION ALL
SELECT p.id, NULL, p.channel, p.max_concurrency, p.release_interval_ms, NULL, NULL, NULL, 1
  FROM lonny.channel_policy p
 WHERE p.id = (SELECT max(x.id) FROM lonny.channel_policy x WHERE x.channel = p.channel)
 ORDER BY 9, 1
"""


@pytest.fixture
def proxy(server: PrivateServer) -> Iterator[Proxy]:
    with Proxy(server.root) as proxy:
        yield proxy


@contextmanager
def connected(dsn: str, *, autocommit: bool = False) -> Generator[tuple[Connection, ThreadPoolExecutor]]:
    """A connection, and a thread to call with. It is closed without a word."""
    conn = psycopg.connect(dsn, autocommit=autocommit)
    with closing(conn), ThreadPoolExecutor(1) as pool:
        yield conn, pool


def state(conn: Connection) -> list[tuple[Any, ...]]:
    return conn.execute(STATE).fetchall()


def assert_others_work(conn: Connection, messages: dict[str, list[int]]) -> None:
    assert_in_order(conn)
    for name in OPERATIONS:
        with conn.transaction(force_rollback=True):
            do(conn, name, messages)


def has_ended(conn: Connection, pid: int) -> bool:
    return bool(scalar(conn, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s", [pid]))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(cut, id=name, marks=() if name in FEW else pytest.mark.at_length)
        for name, cut in CUTS.items()
    ],
)
def test_a_call_that_is_cut_is_done_or_not_and_holds_up_nobody(
    connect: Connect, database: str, proxy: Proxy, cut: tuple[Where, float, bool], how: How, at_length: bool
) -> None:
    where, part, is_done = cut
    admin, direct = connect(), connect(options=IMPATIENT)
    stop_clock(admin)
    for name, policy in product(OPERATIONS, LIMITS if at_length else LIMITS[:1]):
        ours, _ = prepare(admin, *policy)
        before = state(admin)
        do(admin, name, ours)
        after = state(admin)

        ours, theirs = prepare(admin, *policy)
        assert state(admin) == before
        with connected(proxy.dsn(database), autocommit=True) as (conn, pool):
            proxy.cut(where, part, how)
            query = OPERATIONS[name]
            call = pool.submit(conn.execute, query, ours if "%" in query else None)
            proxy.wait_until_cut()
            if how == "blackhole":
                assert_others_work(direct, theirs)
                assert not call.done()
                proxy.release()
            with pytest.raises(psycopg.OperationalError):
                call.result(DEADLINE)
        assert_in_order(admin)
        assert state(admin) == (after if is_done else before), name
        drain(direct)


@pytest.mark.parametrize("how", HOWS)
def test_a_transaction_whose_commit_does_not_arrive_holds_up_nobody_and_leaves_nothing(
    connect: Connect, database: str, proxy: Proxy, how: How
) -> None:
    admin, direct = connect(), connect(options=IMPATIENT)
    stop_clock(admin)
    for name in OPERATIONS:
        ours, theirs = prepare(admin, 7, 10)
        before = state(admin)
        with connected(proxy.dsn(database)) as (conn, pool):
            pid = conn.info.backend_pid
            do(conn, name, ours)
            proxy.cut("request", 0.0, how)
            call = pool.submit(conn.commit)
            proxy.wait_until_cut()
            if how == "blackhole":
                # Its server still has the transaction, until somebody or a time-out ends it.
                assert_others_work(direct, theirs)
                assert scalar(admin, "SELECT pg_terminate_backend(%s)", [pid]) is True
                proxy.release()
            with pytest.raises(psycopg.OperationalError):
                call.result(DEADLINE)
        wait_until(partial(has_ended, admin, pid), "its session has ended")
        assert state(admin) == before, name
        assert_in_order(admin)
        drain(direct)


def test_under_load_with_connections_that_are_cut_all_the_time_nothing_acknowledged_is_lost(
    server: PrivateServer, database: str, connect: Connect, at_length: bool
) -> None:
    conn = connect()
    conn.execute(JOURNAL)
    for channel, policy in POLICIES.items():
        policy_set(conn, channel, policy)
    with Proxy(server.root, seed=0, chance=0.03) as proxy, Fleet(seed=0) as fleet:
        dsn = proxy.dsn(database)
        producers = [fleet.start(produce, dsn, CHANNELS) for _ in range(3)]
        workers = [fleet.start(work, dsn) for _ in range(5)]
        num_cuts = 1000 if at_length else 50
        wait_until(lambda: proxy.num_cuts >= num_cuts, "so many are cut", 200.0)
        proxy.chance = 0.0
        fleet.order("calm")
        told = [producer.result() for producer in producers]
        left = "SELECT count(*) FROM lonny.message"
        wait_until(lambda: scalar(conn, left) == 0, "the queue is empty", 60.0)
        fleet.order("stop")
        told += [worker.result() for worker in workers]
    assert_in_order(conn)
    created, delivered = kept(conn, told)
    print(f"{proxy.num_cuts} cuts, {created} messages, {delivered} deliveries")
    assert delivered > created
    assert sum(one.num_errors for one in told) > num_cuts // 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_whose_connections_are_cut_does_everything_once(
    server: PrivateServer, connect: Connect, database: str, kind: str, at_length: bool
) -> None:
    conn = connect()
    prepare_worker(conn)
    with Proxy(server.root, seed=0) as proxy, worker(kind, proxy.dsn(database)) as process:
        wait_until(lambda: conn.execute(LOOKING).fetchone() == (1,), "the worker looks for messages")
        proxy.chance = 0.02
        ids = create(conn, *["quick"] * (200 if at_length else 40))
        wait_until(lambda: len(done(conn)) >= len(ids), "all are done", 120.0)
        proxy.chance = 0.0
        wait_until(lambda: QUEUE.status(conn, ids) == {}, "all are deleted")
        assert process.poll() is None
    # It writes down what it has done in the transaction that deletes the message.
    assert done(conn) == ids
    assert proxy.num_cuts > len(ids) // 20
