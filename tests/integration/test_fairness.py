"""Turns: every channel gets as many as the others, and a worker that asks gets a message if there is one.

Who came first is told by when the queue locked a message, on the server's clock, and not by when a process
got to hear of it. Calls that are under way at the same time know nothing of each other, and what is held up
may come late by as much: neither is counted against the queue. So how the machine divides its time among
the processes decides how long a test takes, and not what it finds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, cycle, islice, pairwise
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

from tests.support.fleet import Fleet
from tests.support.queue import LOCK_MS, Taken, create, delete, dequeue, limit, scalar
from tests.support.sessions import background

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.conftest import Connect
    from tests.support.fleet import Orders
    from tests.support.sessions import Connection

_WORKERS = 8
_CHANNELS = [f"channel-{n}" for n in range(50)]
_LIMITED = _CHANNELS[::10]

_TIMES = """
CREATE FUNCTION public.microseconds(p_at timestamptz) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$
  SELECT (extract(epoch FROM p_at) * 1000000)::bigint
$$
"""
_NOW = "SELECT microseconds(clock_timestamp())"
_DEQUEUE = """
SELECT id, channel, num_attempts, microseconds(unlock_at) - %s AS locked_at,
       microseconds(statement_timestamp()), microseconds(clock_timestamp())
  FROM lonny.message_dequeue(%s)
"""
_IN_ROTATION = """
SELECT u.channel
  FROM unnest(%s::text[]) AS u (channel), lonny._lane(u.channel) AS l (lane)
 ORDER BY l.lane <= 0, l.lane
"""
_DELETE = "SELECT lonny.message_delete_many(%s, %s)"


@dataclass
class _Call:
    """A dequeue, and the end of what it took. Times are the server's, in microseconds."""

    began_at: int
    answered_at: int
    turns: list[tuple[str, int]]
    """The channel of each message, in the order of the answer, and when it was locked."""
    over_at: int = 0
    """When the deletion of what it took was committed, at the latest."""


class _Turn(NamedTuple):
    locked_at: int
    channel: str
    call: _Call


def _consume(
    orders: Orders, dsn: str, count: int | None, max_messages: int, in_transaction: bool
) -> list[_Call]:
    """Dequeue and delete, so many messages, or all."""
    calls: list[_Call] = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        orders.wait_for_go()
        while not orders.stop and (count is None or count > 0):
            if in_transaction:
                conn.execute("BEGIN")
            rows = psycopg.ClientCursor(conn).execute(_DEQUEUE, [LOCK_MS * 1000, max_messages]).fetchall()
            taken = [Taken(*row[:3]) for row in rows if row[0] is not None]
            began_at, answered_at = rows[0][4:]
            call = _Call(began_at, answered_at, [(row[1], row[3]) for row in rows if row[0] is not None])
            calls.append(call)
            if taken:
                numbers = [message.num_attempts for message in taken]
                conn.execute(_DELETE, [[message.id for message in taken], numbers])
            if in_transaction:
                conn.execute("COMMIT")
            call.over_at = scalar(conn, _NOW)
            if count is not None:
                count -= len(taken)
            elif not taken and not scalar(conn, "SELECT EXISTS (SELECT FROM lonny.message)"):
                break
    return calls


@dataclass
class _Run:
    """What the workers did, in the order in which the queue served them."""

    calls: list[_Call]
    turns: list[_Turn] = field(init=False)
    empties: list[_Call] = field(init=False)

    def __post_init__(self) -> None:
        self.empties = [call for call in self.calls if not call.turns]
        self.turns = [_Turn(at, channel, call) for call in self.calls for channel, at in call.turns]
        self.turns.sort(key=lambda turn: turn.locked_at)

    @classmethod
    def of(
        cls,
        dsn: str,
        count: int | None,
        max_messages: int = 1,
        in_transaction: Sequence[bool] = (False,),
    ) -> _Run:
        """Let the workers, of the given kinds in turn, take so many messages, or all."""
        share = None if count is None else count // _WORKERS
        with Fleet(seed=0) as fleet:
            kinds = islice(cycle(in_transaction), _WORKERS)
            workers = [fleet.start(_consume, dsn, share, max_messages, kind) for kind in kinds]
            fleet.go()
            return cls(list(chain.from_iterable(worker.result() for worker in workers)))

    def visits(self) -> list[_Turn]:
        """The turns, without those whose calls began before the channel's visit before was answered.

        Such a call is in flight together with that one, and cannot know that the channel is having its turn.
        """
        visits: list[_Turn] = []
        last: dict[str, _Turn] = {}
        for turn in self.turns:
            before = last.get(turn.channel)
            if before is None or turn.call.began_at >= before.call.answered_at:
                last[turn.channel] = turn
                visits.append(turn)
        return visits


def _jain(shares: Sequence[int]) -> float:
    """1 if all shares are equal, 1/n if one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def _too_long(run: _Run, visits: list[_Turn], max_messages: int) -> list[str]:
    """Where a channel waited for more turns of others than rotation and what is in flight explain.

    One rotation is a turn of each other channel. Of each other worker a call may be under way at either end
    of the wait, and is served in the order in which it found the rotation. And where workers stand in the
    same place, several serve one channel after another: a second rotation. A call that was held up until
    more than that went by holds up what it holds, and then puts the rotation back: by as much the wait may
    be longer.
    """
    in_flight = 2 * (_WORKERS - 1) * max_messages
    locked = [turn.locked_at for turn in run.turns]
    held_up = [
        (call.began_at, call.over_at, num)
        for call in run.calls
        if (num := bisect_left(locked, call.over_at) - bisect_left(locked, call.began_at)) > in_flight
    ]
    visited = [turn.locked_at for turn in visits]
    places: defaultdict[str, list[_Turn]] = defaultdict(list)
    for turn in run.turns:
        places[turn.channel].append(turn)
    found: list[str] = []
    for channel, turns in places.items():
        for before, after in pairwise(turns):
            # A limited one could not be taken before its last one was out of the way.
            since = before.call.over_at if channel in _LIMITED else before.locked_at
            num = bisect_left(visited, after.locked_at) - bisect_right(visited, since)
            allowed = 2 * (len(_CHANNELS) - 1) + in_flight
            if num > allowed:
                allowed += sum(n for begin, end, n in held_up if begin < after.locked_at and end > since)
            if num > allowed:
                found.append(f"{channel} waited for {num} turns, not {allowed}: {before} {after}")
    return found


@pytest.mark.parametrize(
    ("max_messages", "turns_each", "in_transaction", "limited"),
    [
        pytest.param(1, 450, [False, True], [], id="single"),
        pytest.param(10, 450, [False, True], [], id="batch"),
        pytest.param(1, 60, [False, True], _LIMITED, id="single-limited"),
        pytest.param(10, 300, [False, True], _LIMITED, id="batch-limited"),
    ],
)
def test_channels_of_unequal_backlog_get_equal_shares(
    database: str,
    connect: Connect,
    max_messages: int,
    turns_each: int,
    in_transaction: list[bool],
    limited: list[str],
) -> None:
    conn = connect()
    conn.execute(_TIMES)
    limit(conn, limited, max_concurrency=1)
    for n, channel in enumerate(_CHANNELS):
        create(conn, channel, 2 * turns_each + 20 * n)

    run = _Run.of(database, turns_each * len(_CHANNELS), max_messages, in_transaction)

    visits = run.visits()
    assert run.empties == []
    assert _too_long(run, visits, max_messages) == []
    shares = Counter(visit.channel for visit in visits)
    every = _jain([shares[channel] for channel in _CHANNELS])
    if limited:
        # Who finds a limited channel in another's hands takes the next one, whose turn others take too.
        assert _jain([shares[channel] for channel in _CHANNELS if channel not in limited]) > 0.99
        # A limit of one keeps a channel from its turn only while a batch that took it is not done.
        assert every > 0.98
    else:
        assert every > 0.999
        # With those that were in flight together: on a machine that does nothing else above 0.999 too.
        turns = Counter(turn.channel for turn in run.turns)
        assert _jain([turns[channel] for channel in _CHANNELS]) > 0.995


class _Model:
    """The rotation as it is promised, if no two calls are under way at the same time."""

    def __init__(self, lanes: list[str]) -> None:
        self._lanes = lanes  # the channels in the order of turns
        self._place = 0
        self.out: Counter[str] = Counter()

    def next(self, max_messages: int) -> list[str]:
        """Which channels have the next turns: all but limited ones of which a message is out."""
        channels: list[str] = []
        while len(channels) < max_messages:
            channel = self._lanes[self._place % len(self._lanes)]
            self._place += 1
            if channel not in _LIMITED or not self.out[channel]:
                channels.append(channel)
                self.out[channel] += 1
        return channels


@pytest.mark.parametrize("in_transaction", [False, True], ids=["autocommit", "transaction"])
def test_calls_of_which_none_is_under_way_with_another_take_turns_exactly(
    connect: Connect, *, in_transaction: bool
) -> None:
    conn = connect()
    limit(conn, _LIMITED, max_concurrency=1)
    for n, channel in enumerate(_CHANNELS):
        create(conn, channel, 30 + n)
    model = _Model(_in_rotation(conn))
    conns = [connect(autocommit=not in_transaction) for _ in range(_WORKERS)]
    held: list[list[Taken]] = [[] for _ in conns]
    random = Random(7)  # noqa: S311 (nothing secret)

    # In a transaction of its own, or in one that stays open while others come, take turns and end.
    for _ in range(400):
        n = random.randrange(_WORKERS)
        if held[n]:
            ids, numbers = [m.id for m in held[n]], [m.num_attempts for m in held[n]]
            conns[n].execute(_DELETE, [ids, numbers])
            conns[n].commit()
            model.out -= Counter(message.channel for message in held[n])
            held[n] = []
        else:
            max_messages = random.choice([1, 1, 1, 4])
            held[n] = dequeue(conns[n], max_messages)
            assert [message.channel for message in held[n]] == model.next(max_messages)


def test_a_dequeue_that_met_something_due_passes_by_no_lane(connect: Connect) -> None:
    """What it met may be done by another before it goes on: then it has not looked at the lanes ahead yet."""
    conn, worker, gate = connect(), connect(), connect(autocommit=False)
    behind, served, ahead = _in_rotation(conn)[:3]
    waits = "PERFORM pg_advisory_lock_shared(7, 7), pg_advisory_unlock_shared(7, 7);"
    wrap = "-- Only if those ahead were looked at"
    definition = scalar(conn, "SELECT pg_get_functiondef('lonny.message_dequeue'::regproc)")
    conn.execute(definition.replace(wrap, f"{waits}\n{wrap}").encode())
    create(conn, behind)
    create(conn, ahead)
    conn.execute("SELECT setval('lonny.rotation', lonny._lane(%s))", [served])
    limit(conn, "limited", 1)  # with a wake, which is due
    gate.execute("SELECT pg_advisory_lock(7, 7)")
    with background(worker, "SELECT channel FROM lonny.message_dequeue()") as step:
        assert step.blocked_by() == [gate.info.backend_pid]
        conn.execute("DELETE FROM lonny.wake")
        gate.execute("SELECT pg_advisory_unlock(7, 7)")
        assert step.result() == [(ahead,)]


def _in_rotation(conn: Connection) -> list[str]:
    """The channels in the order of turns, beginning where an unused queue begins."""
    return [channel for (channel,) in conn.execute(_IN_ROTATION, [_CHANNELS]).fetchall()]


def test_a_hot_channel_is_never_called_empty_while_it_has_more_messages_than_there_are_workers(
    database: str, connect: Connect
) -> None:
    conn = connect()
    conn.execute(_TIMES)
    create(conn, "hot", 1500)

    run = _Run.of(database, None)

    assert len(run.turns) == 1500
    # All were ready from the start. Those that were locked after an answer were ready when it was given,
    # and a call that is under way holds one of them at the most.
    locked = [turn.locked_at for turn in run.turns]
    false = [call for call in run.empties if len(locked) - bisect_right(locked, call.answered_at) > _WORKERS]
    assert false == []


@pytest.mark.parametrize("in_transaction", [False, True], ids=["autocommit", "transaction"])
def test_a_hot_channel_with_a_limit_is_called_empty_only_at_its_limit_or_while_it_is_in_hand(
    connect: Connect, *, in_transaction: bool
) -> None:
    conn = connect()
    limit(conn, "hot", max_concurrency=4)
    create(conn, "hot", 1000)
    conns = [connect(autocommit=not in_transaction) for _ in range(_WORKERS)]
    held: list[list[Taken]] = [[] for _ in conns]
    random = Random(7)  # noqa: S311 (nothing secret)

    def ask(n: int) -> None:
        held[n] = dequeue(conns[n])
        conns[n].commit()

    def end(n: int) -> None:
        assert delete(conns[n], *held[n]) == ["MESSAGE_DELETED"]
        conns[n].commit()
        held[n] = []

    with ThreadPoolExecutor(_WORKERS) as pool:
        for _ in range(150):
            # Some ask and some end what they have, at the same time.
            steps = [(end if held[n] else ask, n) for n in range(_WORKERS) if random.random() < 0.7]
            for step in [pool.submit(step, n) for step, n in steps]:
                step.result()
            # Now nothing is in hand: what its limit allows is to be had, and no more.
            free = 4 - sum(len(taken) for taken in held)
            taken = [message for _ in range(free) for message in dequeue(conn)]
            assert len(taken) == free
            assert dequeue(conn) == []
            delete(conn, *taken)
