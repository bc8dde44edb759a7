"""The defects of the original that take two sessions or the real clock; see pgtap/scenario_peers.sql."""

from __future__ import annotations

import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from pylonny import migrate
from pylonny.server import PrivateServer
from pylonny.templates import render_install
from tests.support.databases import SETTINGS
from tests.support.sessions import DEADLINE, background, wait_until

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection


def scalar(conn: Connection, query: LiteralString, *params: object) -> Any:
    row = conn.execute(query, params).fetchone()
    assert row is not None
    return row[0]


def create(conn: Connection, channel: str | None, lock_ms: int = 60_000) -> int:
    return int(scalar(conn, "SELECT lonny.message_create(%s, 'x', %s)", channel, lock_ms))


def test_defect_1_a_lock_taken_late_in_a_long_transaction_is_not_over_already(connect: Connect) -> None:
    worker, other = connect(), connect()
    id_ = create(worker, "a", lock_ms=3_600_000)
    with worker.transaction():
        began = scalar(worker, "SELECT now()")
        passed = "SELECT clock_timestamp() > %s + interval '300 ms'"
        wait_until(lambda: bool(scalar(other, passed, began)), "time passes")
        locked_ms = scalar(
            worker, "SELECT extract(epoch FROM unlock_at - now()) * 1000 FROM lonny.message_dequeue(1, 250)"
        )
    assert locked_ms >= 550
    assert scalar(other, "SELECT unlock_at > locked_at FROM lonny.message_status(ARRAY[%s::bigint])", id_)


def test_defect_1_sessions_of_different_time_zones_agree(connect: Connect) -> None:
    east = connect(options="-c TimeZone=Pacific/Kiritimati")
    west = connect(options="-c TimeZone=Pacific/Pago_Pago")
    delayed = scalar(east, "SELECT lonny.message_create('a', 'x', 60000, 3600000)")
    ready = create(east, "a")
    assert scalar(west, "SELECT id FROM lonny.message_dequeue()") == ready
    for conn in (east, west):
        assert 0 < scalar(conn, "SELECT retry_ms FROM lonny.message_dequeue()") <= 60_000
    assert scalar(west, "SELECT lonny.message_cancel(%s)", delayed) == "MESSAGE_CANCELLED"


@pytest.mark.parametrize("limit_first", [True, False], ids=["policy commits first", "create commits first"])
def test_defect_2_a_create_racing_with_a_first_policy_does_not_lose_it(
    connect: Connect, limit_first: bool
) -> None:
    admin, producer = connect(autocommit=False), connect(autocommit=False)
    worker = connect()
    admin.execute("SELECT lonny.channel_policy_set('a', 1)")
    for _ in range(3):
        create(producer, "a")
    for conn in (admin, producer) if limit_first else (producer, admin):
        conn.commit()
    assert scalar(worker, "SELECT count(id) FROM lonny.message_dequeue(10)") == 1
    assert scalar(worker, "SELECT count(id) FROM lonny.message_dequeue(10)") == 0


@pytest.mark.parametrize("limit", [None, 1000], ids=["unlimited", "limited"])
def test_defect_4_a_hot_channel_has_no_false_empties(connect: Connect, limit: int | None) -> None:
    messages, workers = 800, 8
    conns = [connect() for _ in range(workers)]
    if limit:
        conns[0].execute("SELECT lonny.channel_policy_set('hot', %s)", [limit])
    many = "SELECT count(*) FROM lonny.message_create_many(%s, %s, '{600000}')"
    assert scalar(conns[0], many, ["hot"] * messages, [b"x"] * messages) == messages
    # A decoy: an answer that is mistaken says an hour.
    conns[0].execute("SELECT lonny.message_create('decoy', 'x', 600000, 3600000)")
    delivered: list[int] = []
    under_way = 0
    lock = threading.Lock()

    def work(conn: Connection) -> list[str]:
        nonlocal under_way
        false: list[str] = []
        while True:
            with lock:
                under_way += 1
            row = conn.execute("SELECT id, retry_ms FROM lonny.message_dequeue()").fetchone()
            assert row is not None
            id_, retry_ms = row
            with lock:
                under_way -= 1
                if id_ is not None:
                    delivered.append(id_)
                    continue
                # Each of the calls under way holds one message at most, the others were in nobody's hands.
                if len(delivered) + under_way >= messages:
                    return false
                # With a limit one dequeue at a time decides what is ready; others are told to come again.
                if limit is None or retry_ms is None or retry_ms > 50:
                    false.append(f"empty with retry_ms {retry_ms} after {len(delivered)} deliveries")

    with ThreadPoolExecutor(workers) as pool:
        answers = [answer for false in pool.map(work, conns, timeout=20 * DEADLINE) for answer in false]
    assert answers == []
    rest = conns[0].execute("SELECT id FROM lonny.message_dequeue(1000) WHERE id IS NOT NULL").fetchall()
    delivered += [row[0] for row in rest]
    assert len(delivered) == len(set(delivered)) == messages


@pytest.mark.parametrize("limited", [False, True], ids=["unlimited", "limited"])
def test_defect_5_an_uncommitted_create_blocks_nobody_in_its_channel(connect: Connect, limited: bool) -> None:
    producer, other = connect(autocommit=False), connect()
    if limited:
        other.execute("SELECT lonny.channel_policy_set('a', 10)")
    ids = [create(other, "a") for _ in range(3)]
    create(producer, "a")
    steps: list[tuple[LiteralString, object]] = [
        ("SELECT lonny.message_create('a', 'x', 60000) > 0", True),
        ("SELECT count(*) FROM lonny.message_create_many('{a,b}', '{x,y}', '{60000}')", 2),
        ("SELECT id = any(%(ids)s) FROM lonny.message_dequeue()", True),
        ("SELECT count(id) FROM lonny.message_dequeue(2)", 2),
        ("SELECT lonny.message_delete((%(ids)s)[1], 1)", "MESSAGE_DELETED"),
        ("SELECT lonny.message_cancel(lonny.message_create('a', 'x', 60000, 60000))", "MESSAGE_CANCELLED"),
        ("SELECT lonny.channel_policy_set('a', 0)::text", ""),
        ("SELECT count(id) FROM lonny.message_dequeue(10) WHERE channel = 'a'", 0),
        ("SELECT lonny.channel_policy_clear('a')::text", ""),
        ("SELECT count(id) > 0 FROM lonny.message_dequeue(10) WHERE channel = 'a'", True),
    ]
    for query, answer in steps:
        with background(other, query, {"ids": ids}) as step:
            assert step.blocked_by() == [], query
            assert step.result() == [(answer,)], query


def test_defect_5_bulk_creates_in_opposite_order_neither_wait_nor_deadlock(connect: Connect) -> None:
    one, two = connect(autocommit=False), connect(autocommit=False)
    batch = "SELECT count(*) FROM lonny.message_create_many(%s::text[], '{x,x}', '{60000}')"
    for conn, channels in ((one, ["a", "b"]), (two, ["b", "a"]), (one, ["b", "a"]), (two, ["a", "b"])):
        with background(conn, batch, [channels]) as step:
            assert step.blocked_by() == []
            assert step.result() == [(2,)]
    one.commit()
    two.commit()
    assert scalar(connect(), "SELECT count(id) FROM lonny.message_dequeue(10)") == 8


def test_defect_6_a_crashing_channel_does_not_starve_another(connect: Connect) -> None:
    conn = connect()
    for _ in range(30):
        create(conn, "crashing", lock_ms=0)
    for _ in range(15):
        create(conn, "healthy")
    channels = [scalar(conn, "SELECT channel FROM lonny.message_dequeue()") for _ in range(30)]
    assert channels.count("healthy") == 15


def test_defect_9_nothing_asks_for_more_than_postgresql_15() -> None:
    # Digits grouped by underscores, and numbers in other bases, came with PostgreSQL 16.
    code = re.sub(r"--[^\n]*|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", " ", render_install())
    assert re.findall(r"(?<![\w$.])\d+_\d+|(?<![\w$.])0[xXoObB]\w+", code) == []


def test_defect_9_the_queue_works_on_postgresql_15(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(sys.prefix, "postgresql-15", "bin")
    assert (folder / "postgres").exists(), "get it: make .venv/postgresql-15"
    monkeypatch.setenv("PYLONNY_PG_BIN", str(folder))
    with PrivateServer(settings=SETTINGS) as server, psycopg.connect(server.dsn(), autocommit=True) as conn:
        assert conn.info.server_version // 10_000 == 15
        migrate.install(conn, "lonny", event_channel="events")
        conn.execute("SELECT lonny.channel_policy_set('a', 1, 0)")
        first, second = create(conn, "a"), create(conn, "a")
        delayed = "SELECT count(*) FROM lonny.message_create_many('{b}', '{x}', '{60000}', '{3600000}')"
        assert scalar(conn, delayed) == 1
        assert scalar(conn, "SELECT id FROM lonny.message_dequeue(10)") == first
        assert 0 < scalar(conn, "SELECT retry_ms FROM lonny.message_dequeue()") <= 60_000
        assert scalar(conn, "SELECT lonny.message_heartbeat(%s, 1)", first) == "MESSAGE_HEARTBEATED"
        assert scalar(conn, "SELECT lonny.message_defer(%s, 1, 1000)", first) == "MESSAGE_DEFERRED"
        assert scalar(conn, "SELECT id FROM lonny.message_dequeue()") == second
        assert scalar(conn, "SELECT lonny.message_delete(%s, 1)", second) == "MESSAGE_DELETED"
        assert scalar(conn, "SELECT status FROM lonny.message_status(ARRAY[%s::bigint])", first) == "WAITING"
        assert scalar(conn, "SELECT lonny.message_cancel(%s)", first) == "MESSAGE_CANCELLED"
