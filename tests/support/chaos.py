"""Producers and workers that do whatever producers and workers may do, mishaps included; with a journal."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from tests.support.fleet import Orders
    from tests.support.sessions import Connection

_Row = tuple[Any, ...]

_CREATE = "SELECT journal.create(%s::text, %s::integer, %s::bigint, %s::bigint)"
_ANSWER = "SELECT id, num_attempts, is_unlocked, state, retry_ms"
_DEQUEUE = f"{_ANSWER} FROM lonny.message_dequeue(%s::integer, %s::bigint)"
_DEQUEUE_INSIDE = f"{_ANSWER} FROM journal.dequeue_inside(%s::integer, %s::bigint)"
_RECEIPT = "INSERT INTO journal.receipt VALUES (%s, %s, %s, %s)"
_DELETE = "SELECT journal.delete(%s::bigint, %s::integer)"
_DELETE_MANY = "SELECT journal.delete_many(%s::bigint[], %s::integer[])"
_DEFER = "SELECT journal.defer(%s::bigint, %s::integer, %s::bigint, %s::bytea)"
_CANCEL = "SELECT journal.cancel(%s::bigint)"
_HEARTBEAT = "SELECT journal.heartbeat(%s::bigint, %s::integer, %s::bigint)"
_CLOSING = "INSERT INTO journal.closing VALUES (pg_current_xact_id(), clock_timestamp())"
_POLICY_LOGGED = "INSERT INTO journal.policy VALUES (%s, %s, %s, %s, %s, NULL)"
_POLICY_COMMITTED = "UPDATE journal.policy SET committed_at = clock_timestamp() WHERE id = %s"

Policy = tuple[int | None, int | None]
"""max_concurrency and release_interval_ms."""


def policy_set(
    conn: Connection, channel: str, policy: Policy, hold: Callable[[], None] = lambda: None
) -> None:
    """Set or clear a channel's policy; `hold` is called before the commit. Only one process may do so."""
    ((began_at,),) = conn.execute("SELECT clock_timestamp()").fetchall()
    with conn.transaction():
        if policy == (None, None):
            conn.execute("SELECT lonny.channel_policy_clear(%s)", [channel])
        else:
            conn.execute("SELECT lonny.channel_policy_set(%s, %s, %s)", [channel, *policy])
        ((id_,),) = conn.execute(
            "SELECT max(id) FROM lonny.channel_policy WHERE channel = %s", [channel]
        ).fetchall()
        conn.execute(_POLICY_LOGGED, [id_, channel, *policy, began_at])
        hold()
    conn.execute(_POLICY_COMMITTED, [id_])


def govern(orders: Orders, dsn: str, changing: dict[str, Sequence[Policy]], pooled: bool = False) -> None:
    """Change policies, each channel to the next of its list, over and over; then, calm, to the last ones."""
    with _connect(dsn, pooled) as conn:
        turn = 0
        while not orders.calm and not orders.stop:
            channel = orders.random.choice(list(changing))
            turn += 1
            policy = changing[channel][turn % len(changing[channel])]
            if orders.chance(0.1):
                with conn.transaction(force_rollback=True):
                    conn.execute("SELECT lonny.channel_policy_set(%s, 0)", [channel])
                    orders.rest(0.1)
            held = 0.15 if orders.chance(0.3) else 0.0
            policy_set(conn, channel, policy, lambda: orders.rest(held))  # noqa: B023 (called at once)
            orders.rest(orders.random.uniform(0.05, 0.3))
        for channel, policies in changing.items():
            policy_set(conn, channel, policies[-1])


def produce(
    orders: Orders, dsn: str, channels: Sequence[str | None], count: int, pooled: bool = False
) -> None:
    """Create so many messages, in bursts, some in transactions that stay open, or that are rolled back."""
    created = 0
    with _connect(dsn, pooled, _protocol(orders)) as conn:
        while created < count and not orders.stop:
            ids = _create(orders, conn, channels)
            created += len(ids)
            if orders.chance(0.1):
                for id_ in ids[:2]:
                    conn.execute(_CANCEL, [id_])
            orders.rest(orders.random.uniform(0.0, 0.07))


def _create(orders: Orders, conn: Connection, channels: Sequence[str | None]) -> list[int]:
    random = orders.random
    many = random.choices([1, 2, 10, 25], [12, 4, 3, 1])[0]
    delay_ms = random.choices([0, random.randint(1, 300), -random.randint(1, 1000)], [8, 2, 1])[0]
    values = [random.choice(channels), many, random.randint(500, 1500), delay_ms]

    def create() -> list[int]:
        return [id_ for (id_,) in conn.execute(_CREATE, values).fetchall()]

    if not orders.chance(0.2):
        return create()
    rolled_back = orders.chance(0.2)
    with conn.transaction(force_rollback=rolled_back):
        ids = create()
        orders.rest(random.uniform(0.0, 0.2))
    return [] if rolled_back else ids


def work(orders: Orders, dsn: str, pooled: bool = False) -> None:
    """Take messages and end them, until told to stop."""
    with _connect(dsn, pooled, _protocol(orders)) as conn:
        _Worker(orders, conn, pooled).work()


def _connect(dsn: str, pooled: bool, protocol: type[psycopg.Cursor[Any]] = psycopg.Cursor) -> Connection:
    """pooled: through PgBouncer in transaction mode, where a prepared statement may be in another session."""
    conn = psycopg.connect(dsn, autocommit=True, cursor_factory=protocol)
    if pooled:
        conn.prepare_threshold = None
    return conn


def _protocol(orders: Orders) -> type[psycopg.Cursor[Any]]:
    """How to send parameters: in the statement, or apart from it."""
    return psycopg.ClientCursor if orders.random.random() < 0.5 else psycopg.Cursor


@dataclass
class _Held:
    """A message that is held by this worker."""

    id: int
    num_attempts: int


@dataclass
class _Worker:
    orders: Orders
    conn: Connection
    pooled: bool
    taken: list[_Held] = field(default_factory=list[_Held])
    """What the last dequeue took."""

    def work(self) -> None:
        orders = self.orders
        while not orders.stop:
            if orders.chance(0.02):
                with self.conn.transaction():
                    self.take()
                    self.idle(0.1)
                    orders.die()
            elif orders.chance(0.06):
                with self.conn.transaction(force_rollback=True):
                    self.take()
                    self.idle(0.1)
            elif orders.chance(0.15):
                with self.transaction():
                    self.take()
                    self.idle(0.1)
                    self.end()  # only what was taken in this transaction: its row is in nobody else's hands
                    self.idle(0.1)
            elif orders.chance(0.2):
                with self.conn.transaction():
                    self.take()
                    self.idle(0.15)
                self.finish()
            else:
                self.take()
                self.finish()

    def idle(self, seconds: float) -> None:
        """Let up to so much time pass, unless it is calm."""
        if not self.orders.calm:
            self.orders.rest(self.orders.random.uniform(0.0, seconds))

    @contextmanager
    def transaction(self, *, roll_back: bool = False) -> Generator[None]:
        """A transaction whose last word is when it was about to commit."""
        with self.conn.transaction(force_rollback=roll_back):
            yield
            self.conn.execute(_CLOSING)

    def take(self) -> None:
        """Ask for messages, and sign for what was given: every delivery has exactly one receipt."""
        random = self.orders.random
        max_messages = random.choices([1, 3, 10], [6, 1, 1])[0]
        lock_ms = random.randint(400, 1000) if random.random() < 0.3 else None
        rows = self.dequeue([max_messages, lock_ms])
        self.taken = [_Held(*row[:2]) for row in rows if row[0] is not None]
        if self.taken:
            with self.conn.cursor() as cursor:
                cursor.executemany(_RECEIPT, [row[:4] for row in rows])
        else:
            (retry_ms,) = rows[0][4:]
            # In a longer transaction the answer is as old as that is long.
            self.orders.rest(min(0.1 if retry_ms is None else retry_ms / 1000, 0.1))

    def dequeue(self, values: list[int | None]) -> list[_Row]:
        """Call message_dequeue in one of the ways between which it makes a difference."""
        way = self.orders.random.choice(["simple", "prepared", "unnamed", "inside"])
        if way == "simple":
            return psycopg.ClientCursor(self.conn).execute(_DEQUEUE, values).fetchall()
        query = _DEQUEUE_INSIDE if way == "inside" else _DEQUEUE
        prepare = way == "prepared" and not self.pooled
        return psycopg.Cursor(self.conn).execute(query, values, prepare=prepare).fetchall()

    def finish(self) -> None:
        """Work on what was taken, and end it in one of the ways in which that may go."""
        orders = self.orders
        self.idle(0.04)
        if not self.taken:
            return
        if orders.chance(0.15):
            self.heartbeat()
        if orders.chance(0.02):
            orders.die()
        if orders.chance(0.06):
            return  # forgotten: for the queue as good as dead, but for us without the cost of a new process
        if orders.chance(0.03):
            orders.rest(1.0)  # longer than most locks
        if orders.chance(0.2):
            with self.transaction():
                self.end()
                self.idle(0.15)
                if orders.chance(0.08):
                    orders.die()
        elif orders.chance(0.05):
            with self.transaction(roll_back=True):
                self.end()
                self.idle(0.15)
            self.end()
        elif orders.chance(0.05):
            self.end_with_old_snapshot()
        else:
            self.end()

    def heartbeat(self) -> None:
        lock_ms = self.orders.random.choice([None, 300, 1000])
        values = [self.taken[0].id, self.taken[0].num_attempts, lock_ms]
        if self.orders.chance(0.2):
            with self.conn.transaction(force_rollback=self.orders.chance(0.3)):
                self.conn.execute(_HEARTBEAT, values)
                self.idle(0.1)
        else:
            self.conn.execute(_HEARTBEAT, values)

    def end(self) -> None:
        """Delete or defer what was taken."""
        random = self.orders.random
        deferred = [held for held in self.taken if self.orders.chance(0.25)]
        deleted = [held for held in self.taken if held not in deferred]
        for held in deferred:
            delay_ms = random.choices([0, random.randint(1, 200), -random.randint(1, 500)], [4, 4, 1])[0]
            state = random.choice([None, b"", f"{held.id}/{held.num_attempts}".encode()])
            self.conn.execute(_DEFER, [held.id, held.num_attempts, delay_ms, state])
        if len(deleted) > 1 and random.random() < 0.7:
            random.shuffle(deleted)
            ids, numbers = [held.id for held in deleted], [held.num_attempts for held in deleted]
            self.conn.execute(_DELETE_MANY, [ids, numbers])
        else:
            for held in deleted:
                self.conn.execute(_DELETE, [held.id, held.num_attempts])

    def end_with_old_snapshot(self) -> None:
        self.conn.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        try:
            with self.transaction():
                self.conn.execute("SELECT")
                self.idle(0.1)
                self.end()
                self.idle(0.05)
        except psycopg.errors.SerializationFailure:
            pass  # it was redelivered, or its lock was noticed to be over, since the snapshot was taken
        finally:
            self.conn.set_isolation_level(None)
