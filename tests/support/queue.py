"""The queue as tests of several sessions drive it: plain SQL, and a clock that stands still until moved.

A dequeue is sent as a simple query: without parameters, not prepared. As the first command of its transaction
it then knows that it is alone. On a connection that is not in autocommit mode it comes after a BEGIN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.sessions import Connection

LOCK_MS = 3_600_000  # longer than any test moves the clock

_CLOCK = """
CREATE TABLE public.clock AS SELECT timestamptz '2030-01-01 00:00:00+00' AS at;
CREATE OR REPLACE FUNCTION lonny._clock() RETURNS timestamptz LANGUAGE sql AS 'SELECT at FROM public.clock';
"""
_EMPTY = """
TRUNCATE lonny.message, lonny.channel_policy, lonny.wake, lonny.wake_up RESTART IDENTITY;
ALTER SEQUENCE lonny.rotation RESTART;
ALTER SEQUENCE lonny.wake_rotation RESTART;
ALTER SEQUENCE lonny.generation RESTART;
ALTER SEQUENCE lonny.generation_walk RESTART;
ALTER SEQUENCE lonny.generation_at RESTART;
ALTER SEQUENCE lonny.generation_horizon RESTART;
ALTER SEQUENCE lonny.late_horizon RESTART;
ALTER SEQUENCE lonny.timer_mark RESTART;
ALTER SEQUENCE lonny.timer_floor RESTART;
ALTER SEQUENCE lonny.sleeper RESTART;
ALTER SEQUENCE lonny.sleeper_at RESTART;
"""
_CREATE = """
SELECT id FROM lonny.message_create_many(
  array_fill(%s::text, ARRAY[%s]), array_fill('x'::bytea, ARRAY[%s]), ARRAY[%s::bigint], ARRAY[%s::bigint]
) AS id
"""
_DEQUEUE = "SELECT id, channel, num_attempts, retry_ms FROM lonny.message_dequeue({})"
_GENERATIONS = """
SELECT setval('lonny.generation', 2 * (1 + GREATEST(pg_sequence_last_value('lonny.generation'), 0) / 2)),
       setval('lonny.generation_walk', lonny._microseconds(lonny._clock() + '60 s')),
       setval('lonny.timer_mark', 0);
UPDATE lonny.message SET generation = DEFAULT WHERE status = 'READY';
UPDATE lonny.wake SET generation = DEFAULT WHERE at IS NULL;
"""
_NEXT_GENERATION = """
SELECT setval('lonny.generation', g + 1)
  FROM pg_sequence_last_value('lonny.generation') AS g WHERE g > 0 AND g % 2 = 0
"""


# With this function replaced the walk of a session that has test.waits on waits for the lock (7, 7).
WALK_GATE: LiteralString = """
CREATE OR REPLACE FUNCTION lonny._entries_read(p_index text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  v_stack text;
BEGIN
  GET DIAGNOSTICS v_stack = PG_CONTEXT;
  IF v_stack LIKE '%_generations_walk%' AND p_index LIKE '%timer%'
     AND current_setting('test.waits', true) = 'on' THEN
    PERFORM pg_advisory_xact_lock(7, 7);
  END IF;
  RETURN coalesce(pg_stat_get_xact_tuples_returned(to_regclass(p_index)), 0);
END
$$
"""


class Taken(NamedTuple):
    """A message that a dequeue has locked."""

    id: int
    channel: str
    num_attempts: int


def stop_clock(conn: Connection) -> None:
    """Let the queue's time stand still, for all sessions, until `move_clock` moves it."""
    conn.execute(_CLOCK)


def move_clock(conn: Connection, ms: float) -> None:
    """Let time pass."""
    conn.execute("UPDATE public.clock SET at = at + %s * interval '1 ms'", [ms])


def empty(conn: Connection) -> None:
    """Make the queue as it was when it was installed, but for its clock."""
    conn.execute(_EMPTY)


def begin_generations(conn: Connection) -> None:
    """As if an old snapshot were held: for the next minute of its time the queue searches by generations."""
    conn.execute(_GENERATIONS)


def generation(conn: Connection) -> int:
    """The sum of the two generations in use, 0 or less if none is."""
    return int(scalar(conn, "SELECT coalesce(pg_sequence_last_value('lonny.generation'), 0)"))


def next_generation(conn: Connection) -> None:
    """As if the generation in use had gathered many dead rows, unless there are two already."""
    conn.execute(_NEXT_GENERATION)


def scalar(conn: Connection, query: Any, params: Any = None) -> Any:
    """The one value of the one row that a query returns."""
    ((value,),) = conn.execute(query, params).fetchall()
    return value


def create(
    conn: Connection, channel: str | None, count: int = 1, *, lock_ms: int = LOCK_MS, delay_ms: int = 0
) -> list[int]:
    """Put messages in; their ids."""
    return [id_ for (id_,) in conn.execute(_CREATE, [channel, count, count, lock_ms, delay_ms]).fetchall()]


def limit(
    conn: Connection,
    channels: str | Iterable[str],
    max_concurrency: int | None = None,
    release_interval_ms: int | None = None,
) -> None:
    """Set the policy of one channel or of several."""
    for channel in [channels] if isinstance(channels, str) else channels:
        conn.execute(
            "SELECT lonny.channel_policy_set(%s, %s, %s)", [channel, max_concurrency, release_interval_ms]
        )


def answer(conn: Connection, max_messages: int = 1) -> tuple[list[Taken], int | None]:
    """One dequeue: what it took, and its retry_ms."""
    rows = conn.execute(sql.SQL(_DEQUEUE).format(max_messages), prepare=False).fetchall()
    return [Taken(*row[:3]) for row in rows if row[0] is not None], rows[0][3]


def dequeue(conn: Connection, max_messages: int = 1) -> list[Taken]:
    """One dequeue: what it took, nothing if nothing was available."""
    return answer(conn, max_messages)[0]


def live(conn: Connection, count: int, *, lock_ms: int = LOCK_MS) -> None:
    """Create a message, dequeue it and delete it, so many times."""
    for _ in range(count):
        create(conn, None, lock_ms=lock_ms)
        delete(conn, *dequeue(conn))


def channels(messages: Iterable[Taken]) -> set[str]:
    return {message.channel for message in messages}


def serve(
    conn: Connection, max_messages: int = 1, within_ms: int = 1000, *, admin: Connection | None = None
) -> list[Taken]:
    """All that can be had within that time, which passes on the stopped clock; at most one second by default.

    The clock moves only while nothing is available, and as far as the answer says. If another session is
    given, that one moves it, and each dequeue is committed.
    """
    served: list[Taken] = []
    left = within_ms
    while True:
        taken, retry_ms = answer(conn, max_messages)
        if admin is not None:
            conn.commit()
        served += taken
        if not taken:
            if retry_ms is None or retry_ms > left:
                return served
            move_clock(admin or conn, retry_ms)
            left -= max(retry_ms, 1)


def delete(conn: Connection, *messages: Taken) -> list[str]:
    """Delete what was dequeued, one call a message; the answers."""
    return [
        scalar(conn, "SELECT lonny.message_delete(%s, %s)", [message.id, message.num_attempts])
        for message in messages
    ]


def work(conn: Connection, max_messages: int = 1, within_ms: int = 1000) -> list[Taken]:
    """Serve and delete until nothing comes within that time any more; what was deleted, in that order."""
    done: list[Taken] = []
    while taken := serve(conn, max_messages, within_ms):
        assert set(delete(conn, *taken)) == {"MESSAGE_DELETED"}
        done += taken
    return done


def out(conn: Connection, channel: str) -> int:
    """How many messages of a channel are out: locked, or ready to be."""
    return int(
        scalar(
            conn, "SELECT count(*) FROM lonny.message WHERE channel = %s AND status <> 'WAITING'", [channel]
        )
    )
