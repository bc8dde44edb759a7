"""Beside an old snapshot an empty answer is right, and does not step over all that ever was."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from psycopg.errors import LockNotAvailable

from tests.support.queue import (
    LOCK_MS,
    WALK_GATE,
    answer,
    create,
    delete,
    dequeue,
    generation,
    limit,
    live,
    move_clock,
    scalar,
    stop_clock,
)
from tests.support.sessions import background

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.conftest import Connect
    from tests.support.sessions import Connection

_READ = """
SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid))::bigint
  FROM pg_index WHERE indrelid = ANY ('{lonny.message,lonny.wake}'::regclass[])
"""


def _is_late(conn: Connection) -> bool:
    """Whether an empty answer takes a search through everything."""
    return bool(scalar(conn, "SELECT (pg_sequence_last_value('lonny.late_horizon') = 0) IS NOT TRUE"))


@contextmanager
def _beside_old_snapshot(connect: Connect, conn: Connection) -> Generator[None]:
    """With two thousand dead rows, in a generation that follows others, and nothing left to come in those."""
    holder = connect(autocommit=False)
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT")
    create(conn, None, 2000)
    delete(conn, *dequeue(conn, 2000))
    live(conn, 2)
    for _ in range(3):
        move_clock(conn, 600)
        live(conn, 10)
    assert generation(conn) > 0
    assert not _is_late(conn)
    yield
    holder.rollback()


def _pass_generations(conn: Connection, count: int = 2) -> None:
    """Have so many more generations begin, and those before end; no walk is due meanwhile."""
    wanted = generation(conn) // 2 + count
    for _ in range(40):
        if generation(conn) >= 2 * wanted:
            return
        live(conn, 100)
    pytest.fail("no new generations")


def _read(conn: Connection) -> int:
    """How many index entries a dequeue reads that finds nothing."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    before = scalar(conn, _READ)
    assert dequeue(conn) == []
    return int(scalar(conn, _READ) - before)


def test_little_is_read_however_much_is_dead(connect: Connect) -> None:
    conn = connect()
    stop_clock(conn)
    with _beside_old_snapshot(connect, conn):
        _pass_generations(conn)
        assert not _is_late(conn)
        assert _read(conn) < 1000
        _pass_generations(conn)
        assert _read(conn) < 1000
    assert scalar(conn, "SELECT last_value FROM lonny.message_id_seq") > 2500


@pytest.mark.parametrize("what", ["message", "deferred", "delay", "limited"])
@pytest.mark.parametrize("walked", [False, True], ids=["no walk since", "walks since"])
def test_what_is_committed_late_is_found_at_once(connect: Connect, what: str, *, walked: bool) -> None:
    """Its transaction began in a generation that has ended."""
    conn, late = connect(), connect(autocommit=False)
    stop_clock(conn)
    if what == "limited":
        limit(conn, "a", 1)
    with _beside_old_snapshot(connect, conn):
        if what == "deferred":
            create(conn, "a")
            (message,) = dequeue(conn)
            late.execute("SELECT lonny.message_defer(%s, %s)", [message.id, message.num_attempts])
            id_ = message.id
        else:
            (id_,) = create(late, "a", delay_ms=5 if what == "delay" else 0)
        _pass_generations(conn)
        if walked:
            for _ in range(4):
                move_clock(conn, 600)
                live(conn, 10)
        else:
            move_clock(conn, 30)
            live(conn, 10)
        assert dequeue(conn) == []
        late.commit()
        assert [m.id for m in dequeue(conn)] == [id_]


def test_a_delay_that_is_over_when_it_is_committed_is_found_at_once(connect: Connect) -> None:
    """In its own generation, but what is over is searched from a later time on."""
    conn, late = connect(), connect(autocommit=False)
    stop_clock(conn)
    with _beside_old_snapshot(connect, conn):
        ids = create(late, "a", delay_ms=5)
        move_clock(conn, 300)
        live(conn, 2)
        assert dequeue(conn) == []
        late.commit()
        assert [m.id for m in dequeue(conn)] == ids


def test_a_lock_that_is_over_and_that_an_operator_holds_is_found_at_once(connect: Connect) -> None:
    """It is passed by, and may not be forgotten."""
    conn, operator = connect(), connect(autocommit=False)
    stop_clock(conn)
    with _beside_old_snapshot(connect, conn):
        (id_,) = create(conn, "a", lock_ms=10)
        assert len(dequeue(conn)) == 1
        operator.execute("SELECT FROM lonny.message WHERE id = %s FOR UPDATE", [id_])
        for _ in range(30):
            move_clock(conn, 600)
            live(conn, 50)
        assert not _is_late(conn)
        assert dequeue(conn) == []
        operator.rollback()
        assert [m.id for m in dequeue(conn)] == [id_]


def test_what_a_repair_sets_a_timer_for_is_found_at_once(connect: Connect) -> None:
    conn = connect()
    stop_clock(conn)
    with _beside_old_snapshot(connect, conn):
        ids = create(conn, "a", lock_ms=10)
        assert len(dequeue(conn)) == 1
        conn.execute("UPDATE lonny.message SET timer_at = NULL WHERE id = ANY (%s)", [ids])
        move_clock(conn, 300)
        _pass_generations(conn)
        assert dequeue(conn) == []
        assert scalar(conn, "SELECT array_agg(message_id) FROM lonny.repair()") == ids
        assert [m.id for m in dequeue(conn)] == ids


def test_a_second_repair_is_refused(connect: Connect) -> None:
    conn, other = connect(), connect(autocommit=False)
    other.execute("SELECT lonny.repair()")
    with pytest.raises(LockNotAvailable, match="another transaction is repairing"):
        conn.execute("SELECT lonny.repair()")
    other.rollback()
    conn.execute("SELECT lonny.repair()")


@pytest.mark.parametrize("undone", ["rollback", "rollback to savepoint"])
def test_what_another_held_while_its_generation_ended_is_found_at_once(connect: Connect, undone: str) -> None:
    conn, worker = connect(), connect(autocommit=False)
    stop_clock(conn)
    with _beside_old_snapshot(connect, conn):
        (id_,) = create(conn, "a")
        worker.execute("SAVEPOINT before")
        assert [m.id for m in dequeue(worker)] == [id_]
        began = generation(conn)
        for _ in range(10):
            move_clock(conn, 600)
            live(conn, 100)
        assert generation(conn) >= began + 3
        assert dequeue(conn) == []
        worker.execute("ROLLBACK TO SAVEPOINT before" if "savepoint" in undone else "ROLLBACK")
        assert [m.id for m in dequeue(conn)] == [id_]
        worker.rollback()


def test_others_that_have_to_do_with_other_tables_delay_nothing(connect: Connect) -> None:
    """A transaction that writes for an hour, to tables of its own: it could not commit anything late."""
    conn, other = connect(), connect(autocommit=False)
    stop_clock(conn)
    conn.execute("CREATE TABLE public.business ()")
    with _beside_old_snapshot(connect, conn):
        other.execute("INSERT INTO public.business DEFAULT VALUES")
        _pass_generations(conn)
        assert not _is_late(conn)
        assert _read(conn) < 1000
        other.rollback()
    conn.execute("DROP TABLE public.business")


def test_others_that_write_to_the_queue_are_waited_for_by_two_walks(connect: Connect) -> None:
    conn, other = connect(), connect(autocommit=False)
    stop_clock(conn)
    with _beside_old_snapshot(connect, conn):
        create(other, "a", delay_ms=LOCK_MS)
        _pass_generations(conn)
        assert _is_late(conn)
        assert _read(conn) > 2000
        other.rollback()
        for _ in range(3):
            move_clock(conn, 600)
            live(conn, 2)
        assert not _is_late(conn)
        assert _read(conn) < 1000


def test_what_is_all_in_others_hands_is_said_to_be(connect: Connect) -> None:
    conn, holder, busy = connect(), connect(autocommit=False), connect(autocommit=False)
    stop_clock(conn)
    limit(conn, "a", 1)
    with _beside_old_snapshot(connect, conn):
        _pass_generations(conn)
        (plain,) = create(conn, None)
        assert [m.id for m in dequeue(holder)] == [plain]
        conn.execute("SELECT pg_stat_force_next_flush()")
        before = scalar(conn, _READ)
        assert answer(conn) == ([], 50)
        assert scalar(conn, _READ) - before < 2000
        # The wake of a channel whose mutex another has.
        with conn.transaction():
            create(conn, "a", 2)
        assert len(dequeue(busy)) == 1
        before = scalar(conn, _READ)
        assert answer(conn) == ([], 50)
        assert scalar(conn, _READ) - before < 2000
        busy.rollback()
        holder.rollback()
        assert len(dequeue(conn) + dequeue(conn)) == 2


def test_a_batch_finds_what_is_behind_lanes_that_others_hold(connect: Connect) -> None:
    conn, worker, other = connect(), connect(), connect(autocommit=False)
    stop_clock(conn)
    names = sorted("abc", key=lambda name: scalar(conn, "SELECT lonny._lane(%s)", [name]))
    with _beside_old_snapshot(connect, conn):
        for name in names:
            create(conn, name)
        assert [m.channel for m in (*dequeue(other), *dequeue(other))] == names[:2]
        assert [m.channel for m in dequeue(worker)] == names[2:]
        (id_,) = create(conn, names[2])
        assert [m.id for m in dequeue(worker, 2)] == [id_]
        assert answer(worker, 2) == ([], 50)
        other.rollback()


def test_what_a_dequeue_took_is_there_again_when_it_is_undone(connect: Connect) -> None:
    """To itself its generation looks empty, which is no reason to end it."""
    conn, worker = connect(), connect(autocommit=False)
    stop_clock(conn)
    with _beside_old_snapshot(connect, conn):
        (older,) = create(conn, None)
        conn.execute(
            "SELECT lonny._generation_turn(g, g + 1, NULL, NULL)"
            " FROM pg_sequence_last_value('lonny.generation') AS g WHERE g % 2 = 0"
        )
        assert generation(conn) % 2 == 1
        (younger,) = create(conn, None)
        conn.execute("SELECT lonny._horizons_draw()")
        assert [m.id for m in (*dequeue(worker), *dequeue(worker))] == [older, younger]
        worker.rollback()
        assert [m.id for m in (*dequeue(conn), *dequeue(conn))] == [older, younger]


def test_the_mutex_of_the_numbers_is_kept_by_nobody(connect: Connect) -> None:
    """Neither by who changed one nor by who found that another had: a repair would wait."""
    conn, worker = connect(), connect(autocommit=False)
    stop_clock(conn)
    with _beside_old_snapshot(connect, conn):
        begin = "SELECT lonny._generation_turn(%s, %s, NULL, NULL)"
        now = generation(conn)
        for numbers in ([now, now + 1], [now, now + 1], [now - 2, now - 1], [None, None]):
            worker.execute(begin, numbers)
        worker.execute("SELECT lonny._horizons_draw(), lonny._late_lift(1)")
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = %s"
        assert scalar(conn, held, [worker.info.backend_pid]) == 0
        worker.rollback()


def test_generations_end_although_another_begins_meanwhile(connect: Connect) -> None:
    """What is committed late and too much to be taken along is found by searching everything."""
    conn, walker, late = connect(), connect(options="-ctest.waits=on"), connect(autocommit=False)
    gate = connect(autocommit=False)
    stop_clock(conn)
    conn.execute(WALK_GATE)
    with _beside_old_snapshot(connect, conn):
        ids = create(late, "a", 1500)
        _pass_generations(conn)
        late.commit()
        move_clock(conn, 600)
        create(conn, "b")
        gate.execute("SELECT pg_advisory_xact_lock(7, 7)")
        with background(walker, "SELECT id FROM lonny.message_dequeue()") as step:
            assert step.blocked_by() == [gate.info.backend_pid]
            _pass_generations(conn, 1)
            gate.rollback()
            walked = [id_ for (id_,) in step.result()]
        assert generation(conn) < 0
        assert ids[0] in [*walked, *(m.id for m in dequeue(conn, 3))]


@pytest.mark.parametrize(("delay_ms", "retry_ms"), [(300, 300), (5000, 1000), (None, 1000)])
def test_when_to_look_again(connect: Connect, delay_ms: int | None, retry_ms: int) -> None:
    """A second at most: to look further ahead is to step over all that was locked and is gone."""
    conn = connect()
    stop_clock(conn)
    with _beside_old_snapshot(connect, conn):
        if delay_ms is not None:
            create(conn, None, delay_ms=delay_ms)
        assert answer(conn) == ([], retry_ms)
        if delay_ms is not None:
            move_clock(conn, delay_ms)
            assert len(dequeue(conn)) == 1


@pytest.mark.parametrize("back_ms", [-5000, -10])
def test_a_clock_that_is_set_back_hides_nothing(connect: Connect, back_ms: int) -> None:
    conn = connect()
    stop_clock(conn)
    with _beside_old_snapshot(connect, conn):
        _pass_generations(conn)
        move_clock(conn, back_ms)
        ids = create(conn, "a", delay_ms=100)
        assert answer(conn) == ([], 100)
        move_clock(conn, 100)
        assert [m.id for m in dequeue(conn)] == ids


def test_a_generation_begins_while_an_empty_queue_is_searched(connect: Connect) -> None:
    """Between the look at its number and that at the rows: what is ready in the new one is found."""
    conn, worker, gate = connect(), connect(options="-ctest.waits=on"), connect(autocommit=False)
    stop_clock(conn)
    conn.execute(WALK_GATE.replace("_generations_walk", "_take_in_generations"))
    with _beside_old_snapshot(connect, conn):
        gate.execute("SELECT pg_advisory_xact_lock(7, 7)")
        with background(worker, "SELECT id FROM lonny.message_dequeue()") as step:
            assert step.blocked_by() == [gate.info.backend_pid]
            _pass_generations(conn, 1)
            ids = create(conn, None)
            gate.rollback()
            assert step.result() == [(ids[0],)]


def test_a_sleeper_looks_again_when_its_number_is_drawn(connect: Connect) -> None:
    """With a wake channel: else what is committed between the two would let it sleep."""
    conn = connect()
    stop_clock(conn)
    conn.execute(
        "CREATE OR REPLACE FUNCTION lonny._wake_channel() RETURNS text LANGUAGE sql AS $$ SELECT 'wakes' $$"
    )
    with _beside_old_snapshot(connect, conn):
        asleep = scalar(conn, "SELECT coalesce(pg_sequence_last_value('lonny.sleeper'), 0)")
        assert answer(conn) == ([], 1000)
        assert scalar(conn, "SELECT pg_sequence_last_value('lonny.sleeper')") == asleep + 1
        assert _read(conn) < 1500
        conn.execute("""
            CREATE OR REPLACE FUNCTION lonny._sleeper_nap_ms() RETURNS bigint LANGUAGE plpgsql AS $$
            BEGIN
              PERFORM lonny.message_create(NULL, 'come meanwhile', 60000);
              RETURN NULL;
            END
            $$
        """)
        assert len(dequeue(conn)) == 1
