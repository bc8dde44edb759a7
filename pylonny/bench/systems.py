"""What is measured: the queue, and a bare table that does no more than hand each row to one session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import psycopg

from pylonny import migrate
from pylonny.bench.scripts import Script, Step
from pylonny.bench.workloads import Workload
from pylonny.templates import quote_identifier

Connection = psycopg.Connection[Any]

SIZE = 100  # bytes of a message
LOCK_MS = 30_000
_LOAD = 10_000  # messages that are preloaded in one statement


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of the messages: those that nobody has, and those that were dequeued and not finished."""

    free: int
    taken: int


class System(Protocol):
    """Something that does the workloads. It has its schema, or its database, to itself."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    def supports(self, workload: Workload) -> bool:
        """Whether it has what the workload needs, as channels."""
        ...

    def install(self, conn: Connection, workload: Workload) -> str | None:
        """Make what the workload needs, without the messages; the channel that it notifies on, if any."""
        ...

    def load(self, conn: Connection, workload: Workload, count: int) -> None:
        """Put messages in, and leave them vacuumed and analysed."""
        ...

    def steps(self, workload: Workload) -> tuple[Step, Step, Step]:
        """To create, to dequeue, to delete."""
        ...

    def left(self, conn: Connection) -> Left:
        """Count what is there."""
        ...


class Floor:
    """The bare table: INSERT, UPDATE of the first free row with SKIP LOCKED, DELETE."""

    name = "bare table"

    def __init__(self, schema: str) -> None:
        self._table = quote_identifier(schema) + ".message"

    def supports(self, workload: Workload) -> bool:
        """It knows no channels, and notifies nobody."""
        return not workload.channels and not workload.notify

    def install(self, conn: Connection, workload: Workload) -> str | None:  # noqa: ARG002 - all need the same
        """Create the table."""
        execute(
            conn,
            f"CREATE TABLE {self._table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
            " taken boolean NOT NULL DEFAULT false, content bytea NOT NULL)",
        )
        return None

    def load(self, conn: Connection, workload: Workload, count: int) -> None:  # noqa: ARG002
        """Insert them in one statement."""
        execute(
            conn,
            f"INSERT INTO {self._table} (content) SELECT {CONTENT} FROM generate_series(1, %s::integer)",
            count,
        )
        execute(conn, f"VACUUM (ANALYZE) {self._table}")

    def steps(self, workload: Workload) -> tuple[Step, Step, Step]:
        """One row, or arrays of them."""
        take = (
            f"WITH next AS MATERIALIZED (SELECT id FROM {self._table} WHERE NOT taken ORDER BY id"
            f" LIMIT {workload.batch} FOR UPDATE SKIP LOCKED)"
            f" UPDATE {self._table} AS m SET taken = true FROM next WHERE m.id = next.id RETURNING "
        )
        if workload.batch == 1:
            return life(
                f"INSERT INTO {self._table} (content) VALUES ({CONTENT}) RETURNING id",
                take + "1 AS n, m.id, m.content",
                f"DELETE FROM {self._table} WHERE id = :id::bigint",
            )
        return life(
            f"INSERT INTO {self._table} (content) SELECT unnest({contents(workload.batch)}) RETURNING id",
            f"WITH taken AS ({take} m.id, m.content)"
            " SELECT count(*) AS n, array_agg(id) AS ids, max(length(content)) AS size FROM taken",
            f"DELETE FROM {self._table} WHERE id = ANY (:ids::bigint[]) RETURNING id",
        )

    def left(self, conn: Connection) -> Left:
        """Go by `taken`."""
        return count_left(conn, f"SELECT taken FROM {self._table}")


class Queue:
    """pylonny, called as `pylonny.queue` calls it."""

    name = "pylonny"

    def __init__(self, schema: str) -> None:
        self._name = schema
        self._schema = quote_identifier(schema)

    def supports(self, workload: Workload) -> bool:  # noqa: ARG002
        """It does all."""
        return True

    def install(self, conn: Connection, workload: Workload) -> str | None:
        """Install it, and set the policies."""
        channel = f"{self._name}_{workload.notify}"
        migrate.install(
            conn,
            self._name,
            channel if workload.notify == "events" else None,
            wake_channel=channel if workload.notify == "wake-ups" else None,
        )
        if workload.max_concurrency is not None:
            execute(
                conn,
                f"SELECT {self._schema}.channel_policy_set('tenant-' || n, max_concurrency => %s::integer)"
                " FROM generate_series(1, %s::integer) AS n",
                workload.max_concurrency,
                workload.channels,
            )
        return channel if workload.notify else None

    def load(self, conn: Connection, workload: Workload, count: int) -> None:
        """Create them in batches, the channels in turn."""
        for start in range(0, count, _LOAD):
            size = min(_LOAD, count - start)
            channels = _channels(str(start), size, workload.channels)
            execute(
                conn,
                f"SELECT count(*) FROM {self._schema}.message_create_many({channels}, {contents(size)},"
                f" ARRAY[{LOCK_MS}])",
            )
        tables = ", ".join(f"{self._schema}.{table}" for table in ("message", "wake", "channel_policy"))
        execute(conn, f"VACUUM (ANALYZE) {tables}")

    def steps(self, workload: Workload) -> tuple[Step, Step, Step]:
        """The functions for one message, or those for many."""
        if workload.batch == 1:
            channel = "'tenant-' || :channel::text" if workload.channels else "NULL::text"
            return life(
                f"SELECT {self._schema}.message_create(channel => {channel}, content => {CONTENT},"
                f" lock_ms => {LOCK_MS}::bigint, delay_ms => 0::bigint)",
                "SELECT result::text, coalesce(id, 0) AS n, id, channel, content, state, num_attempts,"
                " is_unlocked, unlock_at, retry_ms"
                f" FROM {self._schema}.message_dequeue(max_messages => 1, lock_ms => NULL)",
                f"SELECT {self._schema}.message_delete(id => :id::bigint,"
                " num_attempts => :num_attempts::integer)::text",
            )
        channels = _channels(":channel::integer", workload.batch, workload.channels)
        return life(
            f"SELECT id FROM {self._schema}.message_create_many(channels => {channels},"
            f" contents => {contents(workload.batch)}, lock_ms => ARRAY[{LOCK_MS}::bigint]) AS id",
            "SELECT count(id) AS n, array_agg(id) AS ids, array_agg(num_attempts) AS attempts,"
            " max(length(content)) AS size"
            f" FROM {self._schema}.message_dequeue(max_messages => {workload.batch}, lock_ms => NULL)",
            f"SELECT id, result::text FROM {self._schema}.message_delete_many("
            "ids => :ids::bigint[], num_attempts => :attempts::integer[])",
        )

    def left(self, conn: Connection) -> Left:
        """Go by the status."""
        return count_left(conn, f"SELECT status = 'LOCKED' FROM {self._schema}.message")


CONTENT = "'\\x" + "78" * SIZE + "'::bytea"


def contents(count: int) -> str:
    """SQL for an array of contents."""
    return f"array_fill({CONTENT}, ARRAY[{count}])"


def life(create: str, dequeue: str, delete: str) -> tuple[Step, Step, Step]:
    """The steps of a message's life."""
    return Step("create", create), Step("dequeue", dequeue, returns=True), Step("delete", delete, needs=True)


def script(system: System, workload: Workload, *, begin: bool) -> Script:
    """What a session of that workload sends."""
    create, *rest = system.steps(workload)
    steps = tuple(rest) if workload.consumes else (create, *rest)
    return Script(steps, 0 if workload.consumes else workload.channels, begin)


def count_left(conn: Connection, query: str) -> Left:
    """Count the rows of a query that says of each message whether it is taken."""
    counted = execute(
        conn, f"SELECT count(*) FILTER (WHERE NOT t), count(*) FILTER (WHERE t) FROM ({query}) AS x (t)"
    ).fetchone()
    return Left(*counted) if counted else Left(0, 0)


def execute(conn: Connection, text: str, *values: object) -> psycopg.Cursor[Any]:
    """Run SQL that is made here, of schemas whose names are quoted; values only where they are given."""
    return conn.execute(text.encode(), values or None)


def _channels(first: str, count: int, channels: int) -> str:
    """SQL for an array of so many channels' names, from that number on and round again."""
    if not channels:
        return "NULL::text[]"
    return f"ARRAY (SELECT 'tenant-' || 1 + ({first} + n) % {channels} FROM generate_series(1, {count}) AS n)"
