"""Promise 8: an operation's cost does not grow with the queue, nor depend on statistics being fresh.

The plans are those of the real functions as they ran. A million messages, a hundred thousand wakes and as
many policies are loaded behind the statistics' back: autovacuum is off for these tables, and the settings
that matter to plans are PostgreSQL's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql

from tests.support.plans import Plan, capture_plans
from tests.support.queue import create, dequeue, limit, out, scalar

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection

TABLES = ("message", "wake", "channel_policy")

# So many rows may a scan of a statement in a function meet, those that it throws away included. Most are
# met by a dequeue of 100, which looks at four times as many timers.
MOST_ROWS = 500

# Pages touched by one call. A full scan of the smallest index is a hundred times the cost of one message.
MOST_PAGES: dict[str, int] = {
    "create": 150, "create in a channel": 150, "create in a limited channel": 150, "create with a delay": 150,
    "create 100": 6000, "create 100 in channels": 6000,
    "dequeue": 12000, "dequeue 10": 12000, "dequeue 100": 40000,
    "heartbeat": 150, "defer": 250, "defer with a delay": 250, "delete": 200, "delete 100": 6000,
    "cancel": 200, "status": 1500, "set a policy": 150, "clear a policy": 150,
}  # fmt: skip

OPERATIONS: dict[str, LiteralString] = {
    "create": "SELECT lonny.message_create(NULL, 'x', 3600000)",
    "create in a channel": "SELECT lonny.message_create('free-1', 'x', 3600000)",
    "create in a limited channel": "SELECT lonny.message_create('limited-1', 'x', 3600000)",
    "create with a delay": "SELECT lonny.message_create('limited-2', 'x', 3600000, 1000)",
    "create 100": "SELECT lonny.message_create_many(NULL, array_fill('x'::bytea, '{100}'), '{3600000}')",
    "create 100 in channels": "SELECT lonny.message_create_many((SELECT array_agg('limited-' || i) FROM"
    " generate_series(1, 100) i), array_fill('x'::bytea, '{100}'), '{3600000}')",
    "dequeue": "SELECT lonny.message_dequeue()",
    "dequeue 10": "SELECT lonny.message_dequeue(10)",
    "dequeue 100": "SELECT lonny.message_dequeue(100)",
    "heartbeat": "SELECT lonny.message_heartbeat((SELECT id FROM public.mine WHERE n = 1), 1)",
    "defer": "SELECT lonny.message_defer((SELECT id FROM public.mine WHERE n = 2), 1)",
    "defer with a delay": "SELECT lonny.message_defer((SELECT id FROM public.mine WHERE n = 3), 1, 1000)",
    "delete": "SELECT lonny.message_delete((SELECT id FROM public.mine WHERE n = 4), 1)",
    "delete 100": "SELECT lonny.message_delete_many((SELECT array_agg(id) FROM public.mine WHERE n > 100),"
    " array_fill(1, '{100}'))",
    "cancel": "SELECT lonny.message_cancel((SELECT id FROM public.mine WHERE n = 0))",
    "status": "SELECT lonny.message_status((SELECT array_agg(id) FROM public.mine))",
    "set a policy": "SELECT lonny.channel_policy_set('limited-3', 2, 10)",
    "clear a policy": "SELECT lonny.channel_policy_clear('limited-4')",
}

# A million messages: without a channel, in channels without a policy, and in as many with one; ready, waiting
# and locked; delays and locks that are over and that are not.
LOAD: LiteralString = """
INSERT INTO lonny.channel_policy (channel, max_concurrency, release_interval_ms, cleared)
SELECT 'limited-' || i, 1, CASE WHEN i % 2 = 0 THEN 10 END, false FROM generate_series(1, 100000) i;
INSERT INTO lonny.wake (lane, channel, at)
SELECT lonny._lane('limited-' || i), 'limited-' || i,
       CASE WHEN i % 2 = 0 THEN lonny._clock() + (i - 1000) * interval '1 s' END
  FROM generate_series(1, 100000) i;
WITH channel AS MATERIALIZED (
  SELECT kind || i AS name, lonny._lane(kind || i) AS lane, kind = 'limited-' AS is_limited
    FROM unnest('{limited-,free-}'::text[]) kind, generate_series(1, 20000) i
)
INSERT INTO lonny.message
  (lane, lock_ms, created_at, dequeue_at, timer_at, unlock_at, num_attempts, status, channel, content)
SELECT c.lane, 3600000, t.at, t.at, CASE WHEN s.status = 'LOCKED' THEN t.at + interval '12 days' END,
       CASE WHEN s.status = 'LOCKED' THEN t.at + interval '12 days' END, 1, s.status, c.name, 'x'
  FROM channel c, generate_series(1, 20) i,
       LATERAL (SELECT lonny._clock() - (i * 50000 - hashtext(c.name) % 50000) * interval '1 s' AS at) t,
       LATERAL (SELECT CASE WHEN i = 20 AND c.is_limited OR i > 18 AND NOT c.is_limited THEN 'LOCKED'
                            WHEN c.is_limited THEN 'WAITING'
                            ELSE 'READY' END::lonny.message_status AS status) s;
INSERT INTO lonny.message
  (lane, lock_ms, created_at, dequeue_at, timer_at, unlock_at, num_attempts, status, channel, content)
SELECT 0, 3600000, lonny._clock(), lonny._clock() - i * interval '1 s',
       CASE WHEN i % 10 = 0 THEN lonny._clock() + (i - 10000) * interval '1 s' END,
       CASE WHEN i % 20 = 0 THEN lonny._clock() + (i - 10000) * interval '1 s' END,
       1, CASE WHEN i % 20 = 0 THEN 'LOCKED'
               WHEN i % 10 = 0 THEN 'WAITING'
               ELSE 'READY' END::lonny.message_status,
       NULL, 'x'
  FROM generate_series(1, 200000) i;
"""
# As beside an old snapshot, or not: dequeues search the one or two generations in use, and all if none is.
# The first one has what was loaded while it was in use. With two nothing else is searched.
GENERATIONS = {"one generation": 2, "two generations": 3, "no generation": -4}
USE: LiteralString = """
SELECT setval('lonny.generation', %(sum)s), setval('lonny.timer_mark', 0), setval('lonny.timer_floor', 0),
       setval('lonny.late_horizon', CASE WHEN %(sum)s = 3 THEN 0 ELSE 1 END),
       setval('lonny.generation_walk',
              CASE WHEN %(sum)s > 0 THEN lonny._microseconds(lonny._clock() + '50 s') ELSE 0 END)
"""
MINE: LiteralString = """
DROP TABLE IF EXISTS public.mine;
CREATE TABLE public.mine AS SELECT 0 AS n, lonny.message_create('free-2', 'x', 3600000, 1000) AS id;
INSERT INTO public.mine
SELECT row_number() OVER () AS n, q.id FROM lonny.message_dequeue(200) q WHERE q.id IS NOT NULL;
"""


def measured(conn: Connection, query: LiteralString, *, alone: bool = False) -> list[Plan]:
    """The plans of one call: alone in its transaction, or within a longer one that is rolled back."""
    with capture_plans(conn) as plans:
        if alone:
            conn.execute(query, prepare=False)
        else:
            conn.execute("BEGIN")
            conn.execute(query)
            conn.execute("ROLLBACK")
    return plans


def rows_met(node: dict[str, float]) -> float:
    """How many rows a scan has read, those that it threw away included."""
    return node["Actual Loops"] * (
        node["Actual Rows"] + sum(rows for key, rows in node.items() if key.startswith("Rows Removed"))
    )


def complaints(name: str, plans: list[Plan]) -> list[str]:
    """What in the plans of an operation grows with the queue."""
    found: list[str] = []
    for plan in plans:
        for node in plan.nodes():
            kind, relation = node["Node Type"], node.get("Relation Name") or node.get("Index Name", "")
            if kind.endswith("Scan") and relation.startswith(TABLES):
                rows = rows_met(node)
                if rows > MOST_ROWS or kind == "Seq Scan" or kind.startswith("Bitmap"):
                    index = node.get("Index Name", "no index")
                    found.append(
                        f"{name}: {kind} of {relation} by {index} met {rows:.0f} rows in {plan.query}"
                    )
            elif kind == "Sort":
                rows = sum(
                    rows_met(child) for child in node["Plans"] if child["Parent Relationship"] == "Outer"
                )
                if rows > MOST_ROWS:
                    found.append(f"{name}: {rows:.0f} rows are sorted in {plan.query}")
    if (touched := plans[-1].buffers()) > MOST_PAGES[name]:
        found.append(f"{name}: {touched} pages are touched")
    return found


def use(conn: Connection, generations: str) -> None:
    conn.execute(USE, {"sum": GENERATIONS[generations]})


def all_complaints(conn: Connection) -> list[str]:
    found: list[str] = []
    for generations in GENERATIONS:
        use(conn, generations)
        for name, query in OPERATIONS.items():
            for alone in (False, True) if name.startswith("dequeue") else (False,):
                measured(conn, query, alone=alone)  # The first call of a session reads the catalogs.
                plans = measured(conn, query, alone=alone)
                found += [f"{generations}: {complaint}" for complaint in complaints(name, plans)]
    return found


def expected_indexes(conn: Connection) -> None:
    """Each question of a dequeue is answered by the index that was made for it."""

    for generations in ("one generation", "two generations"):
        use(conn, generations)
        plans = [
            plan
            for name in ("dequeue", "dequeue 100")
            for plan in measured(conn, OPERATIONS[name], alone=True)
        ]
        indexes = {name for plan in plans for _, name in plan.scans()}
        assert {
            "message_generation_idx",
            "wake_generation_idx",
            "message_timer_idx",
            "wake_timer_idx",
        } <= indexes
        # Those without generations are for a look into one channel, or at what a wake of none.
        for node in (node for plan in plans for node in plan.nodes()):
            if node.get("Index Name") in ("message_ready_idx", "wake_due_idx"):
                assert "(lane = " in node["Index Cond"]
    use(conn, "no generation")
    indexes = {name for plan in measured(conn, OPERATIONS["dequeue"], alone=True) for _, name in plan.scans()}
    assert {"message_ready_idx", "message_timer_idx", "wake_due_idx", "wake_timer_idx"} <= indexes
    assert {"message_channel_idx", "message_id_pkey", "wake_lane_idx"} <= indexes
    assert "channel_policy_channel_id_pkey" in indexes


def make_plans(conn: Connection) -> None:
    """Let a session make the plans of all statements that it comes by, which it then keeps."""
    create(conn, "free-1", 10)
    limit(conn, [f"limited-{i}" for i in range(1, 5)], 1)
    create(conn, "limited-1", 2)
    create(conn, "limited-2", 2, delay_ms=1, lock_ms=1)
    create(conn, "free-2", 2, delay_ms=1, lock_ms=1)
    for generations in (*GENERATIONS, "one generation"):
        use(conn, generations)
        for name, query in OPERATIONS.items():
            for alone in (False, True) if name.startswith("dequeue") else (False,):
                measured(conn, query, alone=alone)
    conn.execute("SELECT lonny.message_defer(id, 1), lonny.message_delete(id, 1) FROM lonny.message")


def test_promise_8_no_statistics_or_old_ones_change_what_an_operation_costs(connect: Connect) -> None:
    admin, old = connect(), connect()
    for table in TABLES:
        admin.execute(
            sql.SQL("ALTER TABLE lonny.{} SET (autovacuum_enabled = false)").format(sql.Identifier(table))
        )

    # A session that made its plans when the queue was empty, and known to be.
    create(admin, "free-2", 201)
    admin.execute(MINE)
    admin.execute("TRUNCATE lonny.message, lonny.wake, lonny.channel_policy")
    admin.execute("VACUUM ANALYZE lonny.message, lonny.wake, lonny.channel_policy")
    make_plans(old)
    admin.execute(LOAD)
    admin.execute(MINE)
    assert scalar(admin, "SELECT count(*) FROM lonny.message") > 1_000_000
    found = {"plans of an empty queue": all_complaints(old)}

    # New sessions, which know that it is empty, then nothing, then of a million, then that nothing is left in
    # large tables (as a vacuum beside an old snapshot says), then of a million, of which a few are left.
    found["statistics of an empty queue"] = all_complaints(connect())
    never = "UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE relnamespace = 'lonny'::regnamespace"
    admin.execute(never)
    found["no statistics"] = all_complaints(connect())
    expected_indexes(connect())
    admin.execute("ANALYZE lonny.message, lonny.wake, lonny.channel_policy")
    found["statistics of a million"] = all_complaints(connect())
    expected_indexes(connect())
    admin.execute(
        "UPDATE pg_class SET reltuples = 0, relpages = pg_relation_size(oid) / 8192"
        " WHERE relnamespace = 'lonny'::regnamespace AND relkind IN ('r', 'i')"
    )
    found["statistics of dead rows"] = all_complaints(connect())
    admin.execute("TRUNCATE lonny.message, lonny.wake, lonny.channel_policy")
    create(admin, "free-1", 201)
    admin.execute(MINE)
    found["emptied"] = all_complaints(connect())
    assert [complaint for complaints_ in found.values() for complaint in complaints_] == [], found


def test_promise_8_a_vacuum_beside_an_old_snapshot_turns_no_plan(connect: Connect) -> None:
    """It says that there are no rows, so all indexes are as good, although they are full of dead entries."""
    admin, holder = connect(), connect(autocommit=False)
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT")
    limit(admin, "limited-1", 20)
    for channel in (None, "free-1", "limited-1"):
        create(admin, channel, 2000)
    while messages := dequeue(admin, 500):
        ids, attempts = [m.id for m in messages], [m.num_attempts for m in messages]
        admin.execute("SELECT lonny.message_delete_many(%s, %s)", [ids, attempts])
    admin.execute("VACUUM ANALYZE lonny.message, lonny.wake")
    worker = connect()
    for generations in GENERATIONS:
        use(worker, generations)
        for alone in (False, True):
            for channel in (None, "free-1", "limited-1"):
                create(worker, channel)
            plans = [plan for _ in range(3) for plan in measured(worker, OPERATIONS["dequeue"], alone=alone)]
            by_id = [
                node for plan in plans for node in plan.nodes() if "(id = " in node.get("Index Cond", "")
            ]
            assert by_id
            assert {node["Index Name"] for node in by_id} == {"message_id_pkey"}
    holder.rollback()


def pages(conn: Connection, query: LiteralString) -> int:
    with capture_plans(conn) as plans:
        conn.execute(query, prepare=False)
    return plans[-1].buffers()


@pytest.mark.parametrize("query", ["SELECT lonny.message_dequeue()", "SELECT lonny.message_dequeue(10)"])
def test_promise_8_passing_by_what_an_open_batch_holds_costs_in_proportion_to_it(
    connect: Connect, query: LiteralString
) -> None:
    admin, worker = connect(), connect()
    cost: list[int] = []
    for count in (500, 2000):
        holder = connect(autocommit=False)
        admin.execute("TRUNCATE lonny.message")
        create(admin, "a", count)
        assert len(dequeue(holder, count)) == count
        pages(worker, query)
        cost.append(pages(worker, query))
        holder.rollback()
    # Four times as much; sixteen times if each look is followed by another.
    assert cost[1] < 8 * cost[0], cost


def test_promise_8_a_batch_that_meets_what_no_policy_released_compares_no_message_with_each_other(
    connect: Connect,
) -> None:
    admin, worker = connect(), connect()
    create(admin, "a", 3000)
    limit(admin, "a", 0)
    with capture_plans(worker) as plans:
        assert dequeue(worker, 1000) == []
    assert any("unnest(v_foreign_ids)" in plan.query for plan in plans)
    # A thousand with a thousand would be half a million at least.
    assert max(rows_met(node) for plan in plans for node in plan.nodes()) < 20_000


# How many messages are not as they were seen.
SEE: LiteralString = """
DROP TABLE IF EXISTS public.seen;
CREATE TABLE public.seen AS SELECT id, ctid AS row FROM lonny.message;
"""
CHANGED: LiteralString = (
    "SELECT count(*) FROM lonny.message m JOIN public.seen s USING (id) WHERE m.ctid <> s.row"
)


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("max_messages", [1, 100])
@pytest.mark.parametrize("max_concurrency", [0, 1])
def test_promise_8_one_dequeue_puts_few_messages_of_a_channel_back_when_it_is_limited(
    connect: Connect, max_concurrency: int, max_messages: int, inside: bool
) -> None:
    conn, worker = connect(), connect(autocommit=not inside)
    name = "dequeue" if max_messages == 1 else "dequeue 100"
    create(conn, "b", 250)
    for _ in range(2):
        # The first call of a session reads the catalogs.
        dequeue(worker, max_messages)
        worker.commit()
    create(conn, "a", 10_000)
    limit(conn, "a", max_concurrency)
    conn.execute(SEE)
    with capture_plans(worker) as plans:
        taken = worker.execute(OPERATIONS[name], prepare=False).fetchall()
        worker.commit()
    assert len(taken) <= max_messages
    changed = scalar(conn, CHANGED)
    # Put back before it takes, if it is alone, and at the channel's turn, as long as too many are ready.
    assert len(taken) <= changed <= len(taken) + (200 if inside else 400)
    (touched,) = [plan.buffers() for plan in plans if plan.query == OPERATIONS[name]]
    assert touched < MOST_PAGES[name]

    for _ in range(60):
        dequeue(worker, max_messages)
        worker.commit()
    locked = "SELECT count(*) FROM lonny.message WHERE channel = 'a' AND status = 'LOCKED'"
    assert scalar(conn, locked) == max_concurrency
    # Those that are alone have put all back.
    for _ in range(60):
        dequeue(conn)
    assert scalar(conn, locked) == out(conn, "a") == max_concurrency
