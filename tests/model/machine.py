"""A Hypothesis state machine that does the same to the queue and to the model, and compares all answers.

One session, whose clock stands still until a rule moves it. `QueueMachine` sends every call as a transaction
of its own, in a way that a dequeue can see; `TransactionMachine` also in transactions that may roll back, and
in a way that a dequeue cannot tell from a longer transaction.
"""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from psycopg import sql

from tests.model.queue import FAR_MS, LOOK_MS, Delivery, Model
from tests.support.queue import begin_generations, empty, next_generation, scalar

if TYPE_CHECKING:
    from tests.support.sessions import Connection

START = datetime.fromisoformat("2030-01-01T00:00:00+00:00")
NAMES = ["a", "b", "c", "d"]
DEQUEUE = """
SELECT result, id, channel, content, state, num_attempts, is_unlocked, unlock_at, retry_ms
  FROM lonny.message_dequeue({}, {})
"""
STATUS = """
SELECT id, status, channel, num_attempts, created_at, dequeue_at, locked_at, unlock_at
  FROM lonny.message_status(ids => %s)
"""
EXPLAIN = """
SELECT e.id, e.reason, e.available_in_ms, e.num_ahead, e.num_lanes_ahead
  FROM unnest(%s::bigint[]) AS u (id), LATERAL lonny.message_explain(u.id) e
"""
EXPLAIN_CHANNEL = """
SELECT e.channel, e.num_available
  FROM unnest(%s::text[]) AS u (channel), LATERAL lonny.channel_explain(u.channel) e
"""
IS_BLOATED = "SELECT coalesce(pg_sequence_last_value('lonny.generation_walk'), 0) > 0"
RESET = "UPDATE public.clock SET at = %s"
MOVE = "UPDATE public.clock SET at = at + %s * interval '1 microsecond'"

# A dequeue notices so many delays and locks that are over, and the model all of them: there are never more.
MOST = 32

channels = st.sampled_from([*NAMES, None])
names = st.sampled_from(NAMES)
contents = st.binary(max_size=3)
states = st.none() | contents
locks_ms = st.sampled_from([0, 1, 50, 200, 3_600_000, 3_600_000])
delays_ms = st.sampled_from([-50, 0, 0, 0, 0, 5, 100, 300])
messages = st.tuples(channels, contents, locks_ms, delays_ms)
counts = st.sampled_from([1, 1, 1, 1, 2, 3, 5, 50])
limits = st.sampled_from([None, 0, 1, 1, 2, 2, 3])
intervals_ms = st.sampled_from([None, None, 0, 10, 100, 250])
steps_us = st.sampled_from([1, 300, 1000, 10_000, 50_000, 100_000, 200_000, 1_000_000])
# Mostly what is there, so that something happens; ids and tokens that are not valid (any more) too.
ids = st.runner().flatmap(lambda machine: st.sampled_from([*machine.model.messages, machine.last_id + 1]))
tokens = st.runner().flatmap(lambda machine: st.sampled_from(machine.tokens()))


def microseconds(at: datetime | None) -> int | None:
    return None if at is None else (at - START) // timedelta(microseconds=1)


class QueueMachine(RuleBasedStateMachine):
    conn: ClassVar[Connection]  # with the clock stopped, set by whoever runs the machine
    lanes: ClassVar[dict[str | None, int]]

    def __init__(self) -> None:
        super().__init__()
        empty(self.conn)
        self.conn.execute(RESET, [START])
        self.model = Model(lanes=self.lanes)
        self.before: Model | None = None  # what a rollback goes back to, in a transaction
        self.last_id = 0
        self.uuids: dict[int, str] = {}
        self.given: list[tuple[int, int]] = []  # id and num_attempts of all that was dequeued

    @classmethod
    def prepare(cls, conn: Connection) -> None:
        """Say on which connection examples run; its clock stands still."""
        cls.conn = conn
        cls.lanes = {None: 0} | {name: scalar(conn, "SELECT lonny._lane(%s)", [name]) for name in NAMES}

    # Operations

    @precondition(lambda self: len(self.model.messages) < MOST)
    @rule(
        channel=channels,
        content=contents,
        lock_ms=locks_ms,
        delay_ms=delays_ms,
        way=st.sampled_from(["bound", "prepared"]),
    )
    def create(self, channel: str | None, content: bytes, lock_ms: int, delay_ms: int, way: str) -> None:
        query = "SELECT lonny.message_create(%s, %s, %s, %s)"
        values = [channel, content, lock_ms, delay_ms]
        ((id_,),) = self.conn.execute(query, values, prepare=way == "prepared").fetchall()
        self._created([id_], [(channel, content, lock_ms, delay_ms)])
        if self.model.messages[id_].status == "WAITING":
            ((_, status, *_),) = self.conn.execute(STATUS, [[id_]]).fetchall()
            if status == "READY":
                assert way == "prepared"
                assert self.before is None
                self.model.admit(id_)

    @precondition(lambda self: len(self.model.messages) < MOST)
    @rule(name=names, max_concurrency=st.integers(2, 30))
    def create_where_there_may_be_room(self, name: str, max_concurrency: int) -> None:
        self.policy_set(name, max_concurrency, None)
        self._dequeue(1, 50, "prepared")
        self.create(name, b"", 50, 0, "prepared")

    @initialize(batch=st.lists(messages, min_size=4, max_size=20))
    def begin_with_some(self, batch: list[tuple[str | None, bytes, int, int]]) -> None:
        self.create_many(batch)

    @rule(batch=st.lists(messages, max_size=8))
    def create_many(self, batch: list[tuple[str | None, bytes, int, int]]) -> None:
        batch = batch[: MOST - len(self.model.messages)]
        columns = [list(column) for column in zip(*batch, strict=True)] or [[], [], [], []]
        query = "SELECT id FROM lonny.message_create_many(%s, %s::bytea[], %s::bigint[], %s::bigint[]) AS id"
        ids = [id_ for (id_,) in self.conn.execute(query, columns).fetchall()]
        self._created(ids, batch)

    @rule(
        max_messages=counts,
        lock_ms=st.none() | locks_ms,
        way=st.sampled_from(["simple", "prepared"]),
    )
    def dequeue(self, max_messages: int, lock_ms: int | None, way: str) -> None:
        self._dequeue(max_messages, lock_ms, way)

    @rule(max_messages=counts, calls=st.integers(2, 8))
    def serve(self, max_messages: int, calls: int) -> None:
        """As a worker does: one dequeue after the other, each as soon as the one before it said."""
        for _ in range(calls):
            retry_ms = self._dequeue(max_messages, None, "simple")
            if retry_ms is not None:
                self.move_clock(retry_ms * 1000)

    @rule(token=tokens)
    def delete(self, token: tuple[int, int]) -> None:
        answer = scalar(self.conn, "SELECT lonny.message_delete(%s, %s)", token)
        assert answer == self.model.delete(*token)

    @rule(tokens=st.lists(tokens, max_size=8))
    def delete_many(self, tokens: list[tuple[int, int]]) -> None:
        query = "SELECT id, result FROM lonny.message_delete_many(%s::bigint[], %s::integer[])"
        answers = self.conn.execute(query, [[t[0] for t in tokens], [t[1] for t in tokens]]).fetchall()
        assert answers == [(token[0], self.model.delete(*token)) for token in tokens]

    @rule(token=tokens, delay_ms=delays_ms, state=states)
    def defer(self, token: tuple[int, int], delay_ms: int, state: bytes | None) -> None:
        answer = scalar(self.conn, "SELECT lonny.message_defer(%s, %s, %s, %s)", [*token, delay_ms, state])
        assert answer == self.model.defer(*token, delay_ms, state)

    @rule(token=tokens, lock_ms=st.none() | locks_ms)
    def heartbeat(self, token: tuple[int, int], lock_ms: int | None) -> None:
        answer = scalar(self.conn, "SELECT lonny.message_heartbeat(%s, %s, %s)", [*token, lock_ms])
        was_locked = answer == "MESSAGE_HEARTBEATED"
        assert answer == self.model.heartbeat(*token, lock_ms, was_locked=was_locked)

    @rule(id_=ids, num_attempts=st.integers(0, 3))
    def finish_with_any_number(self, id_: int, num_attempts: int) -> None:
        self.delete((id_, num_attempts))

    @rule(id_=ids)
    def cancel(self, id_: int) -> None:
        assert scalar(self.conn, "SELECT lonny.message_cancel(%s)", [id_]) == self.model.cancel(id_)

    @rule(
        name=names,
        max_concurrency=limits,
        interval_ms=intervals_ms,
    )
    def policy_set(self, name: str, max_concurrency: int | None, interval_ms: int | None) -> None:
        query = "SELECT lonny.channel_policy_set(%s, %s, %s)"
        self.conn.execute(query, [name, max_concurrency, interval_ms])
        self.model.policy_set(name, max_concurrency, interval_ms)

    @rule(name=names)
    def policy_clear(self, name: str) -> None:
        self.conn.execute("SELECT lonny.channel_policy_clear(%s)", [name])
        self.model.policy_set(name, None, None)

    @rule(step_us=steps_us)
    def move_clock(self, step_us: int) -> None:
        self.conn.execute(MOVE, [step_us])
        self.model.clock += step_us

    # What holds after every step

    @invariant()
    def statuses_are_the_same(self) -> None:
        ids = list(reversed(self.model.messages))
        rows = self.conn.execute(STATUS, [[0, *ids]]).fetchall()
        seen = {row[0]: row for row in rows}
        assert list(seen) == ids
        for id_, status, channel, num_attempts, *times in rows:
            message = self.model.messages[id_]
            assert num_attempts == message.num_attempts
            assert [microseconds(at) for at in times] == [
                message.created_at,
                message.dequeue_at,
                message.locked_at,
                message.unlock_at,
            ]
            self._check_channel(id_, channel)
            if self.model.is_exact:
                assert status == message.status, message
            elif message.is_noticed:
                assert (status == "LOCKED") == (message.status == "LOCKED"), message

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert self.conn.execute("SELECT * FROM lonny.check()").fetchall() == []

    # Helpers

    def _created(self, ids: list[int], batch: list[tuple[str | None, bytes, int, int]]) -> None:
        assert len(ids) == len(batch)
        assert [self.last_id, *ids] == sorted({self.last_id, *ids})
        for id_, message in zip(ids, batch, strict=True):
            self.model.create(id_, *message)
            self.last_id = id_

    def _check_channel(self, id_: int, channel: str) -> None:
        if (name := self.model.messages[id_].channel) is None:
            assert str(UUID(channel)) == channel == self.uuids.setdefault(id_, channel)
        else:
            assert channel == name

    def tokens(self) -> list[tuple[int, int]]:
        """Twice each that is in force, once what any dequeue gave, and one of nothing."""
        held = [(m.id, m.num_attempts) for m in self.model.messages.values() if m.unlock_at is not None]
        return [*held, *held, *self.given[-8:], (self.last_id + 1, 1)]

    def _dequeue(self, max_messages: int, lock_ms: int | None, way: str) -> int | None:
        """Returns retry_ms."""
        ready = self._explained()
        if way == "simple":
            query = sql.SQL(DEQUEUE).format(max_messages, lock_ms)
            rows = self.conn.execute(query, prepare=False).fetchall()
        else:
            query = sql.SQL(DEQUEUE).format(sql.Placeholder(), sql.Placeholder())
            rows = self.conn.execute(query, [max_messages, lock_ms], prepare=way == "prepared").fetchall()
        is_alone = way != "bound" and self.before is None
        expected = self.model.dequeue(max_messages, lock_ms, is_alone=is_alone)
        taken = [delivery.id for delivery in expected]
        assert len(taken) == min(max_messages, len(ready))
        assert set(taken) <= set(ready)
        assert taken[:1] == [id_ for id_, ahead in ready.items() if ahead == (0, 0)]
        if not expected:
            (row,) = rows
            assert row[:-1] == ("MESSAGE_NOT_AVAILABLE", *[None] * 7)
            retry_ms: int | None = row[-1]
            self._check_retry_ms(retry_ms)
            return retry_ms
        assert [self._delivery(row) for row in rows] == expected
        self.given += [(delivery.id, delivery.num_attempts) for delivery in expected]
        return None

    def _explained(self) -> dict[int, tuple[int, int]]:
        """What can be had, as the queue says, and how many of its channel and how many lanes come before."""
        ready: dict[int, tuple[int, int]] = {}
        available = dict.fromkeys(NAMES, 0)
        rows = self.conn.execute(EXPLAIN, [[*self.model.messages, self.last_id + 1]]).fetchall()
        for id_, reason, in_ms, num_ahead, num_lanes_ahead in rows:
            message = self.model.messages.get(id_)
            policy = self.model.policies.get(message.channel) if message else None
            if reason == "READY":
                assert in_ms == 0
                ready[id_] = (num_ahead, num_lanes_ahead)
                if message and message.channel:
                    available[message.channel] += 1
            elif reason in ("LOCKED", "DELAYED"):
                assert message
                assert (reason == "LOCKED") == self.model.is_held(message)
                at = message.unlock_at if reason == "LOCKED" else message.dequeue_at
                assert at is not None
                assert in_ms == -((self.model.clock - at) // 1000)
            elif reason == "GONE":
                assert message is None
            else:
                assert policy
                assert (reason == "PAUSED") == (policy.max_concurrency == 0)
                assert in_ms is None if reason in ("PAUSED", "BEHIND") else in_ms > 0
                if reason == "BEHIND":
                    assert num_ahead > 0
        assert dict(self.conn.execute(EXPLAIN_CHANNEL, [NAMES]).fetchall()) == available
        return ready

    def _delivery(self, row: tuple[Any, ...]) -> Delivery:
        result, id_, channel, content, state, num_attempts, is_unlocked, unlock_at, retry_ms = row
        assert (result, retry_ms) == ("MESSAGE_DEQUEUED", None)
        self._check_channel(id_, channel)
        at = microseconds(unlock_at)
        assert at is not None
        name = self.model.messages[id_].channel
        return Delivery(id_, name, content, state, num_attempts, is_unlocked, at)

    def _check_retry_ms(self, retry_ms: int | None) -> None:
        """It names an event that is known, and comes in time for the first one that has something delivered.

        A look at a channel at which something was passed by may come before that. Beside an old snapshot
        it is a second at most.
        """
        events = sorted(self.model.known_events())
        in_ms = [-((self.model.clock - at) // 1000) for at in events]
        useful_ms = next(
            (ms for ms, at in zip(in_ms, events, strict=True) if self.model.is_available(at)), None
        )
        if scalar(self.conn, IS_BLOATED):
            assert retry_ms is not None
            assert retry_ms <= FAR_MS
            in_ms.append(FAR_MS)
        if retry_ms is None:
            assert useful_ms is None
        else:
            assert retry_ms > 0
            assert retry_ms in in_ms or retry_ms <= LOOK_MS
            assert useful_ms is None or retry_ms <= useful_ms


class GenerationMachine(QueueMachine):
    """Beside an old snapshot. What is promised is the same, but that a dequeue looks a second ahead."""

    @rule()
    def begin_generations(self) -> None:
        begin_generations(self.conn)

    @rule()
    def next_generation(self) -> None:
        next_generation(self.conn)


class TransactionMachine(QueueMachine):
    @precondition(lambda self: self.before is None)
    @rule()
    def begin(self) -> None:
        self.conn.execute("BEGIN")
        self.before = deepcopy(self.model)

    @precondition(lambda self: self.before is not None)
    @rule()
    def commit(self) -> None:
        self.conn.execute("COMMIT")
        self.before = None

    @precondition(lambda self: self.before is not None)
    @rule()
    def rollback(self) -> None:
        assert self.before is not None
        self.conn.execute("ROLLBACK")
        self.model = self.model.rolled_back_to(self.before)
        self.conn.execute(RESET, [START + timedelta(microseconds=self.model.clock)])
        self.before = None

    @rule(
        max_messages=counts,
        lock_ms=st.none() | locks_ms,
    )
    def dequeue_as_if_in_a_transaction(self, max_messages: int, lock_ms: int | None) -> None:
        self._dequeue(max_messages, lock_ms, "bound")

    @rule(
        name=names,
        max_concurrency=limits,
        interval_ms=intervals_ms,
    )
    def policy_set(self, name: str, max_concurrency: int | None, interval_ms: int | None) -> None:
        # Whether a release whose timer is over is still known depends on what looked at the channel since.
        if interval_ms:
            for released_at in self.model.forgotten_releases(name):
                interval_ms = min(interval_ms, (self.model.clock - released_at) // 1000)
        super().policy_set(name, max_concurrency, interval_ms)

    def teardown(self) -> None:
        if self.before is not None:
            self.conn.execute("ROLLBACK")
