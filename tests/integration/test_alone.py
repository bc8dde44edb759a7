"""A dequeue that is a transaction of its own does what is due for all; another touches only what it takes.

Which of the two a call is, by how it is sent, the server does not say; `_is_alone` tells from times, and if
in doubt says no. Seen from outside: what another session finds while the transaction is open, and after it.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.support.queue import create, limit, move_clock, scalar, stop_clock
from tests.support.sessions import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Connect
    from tests.support.sessions import Connection

TAKE: LiteralString = "SELECT id FROM lonny.message_dequeue()"
TAKE_BOUND: LiteralString = "SELECT id FROM lonny.message_dequeue(%s)"

# Ways to call it that are not plain SELECTs.
CALLERS: LiteralString = """
CREATE TABLE public.log (id bigint);
CREATE VIEW public.seen AS SELECT id FROM lonny.message_dequeue();
CREATE FUNCTION public.in_plpgsql() RETURNS bigint LANGUAGE plpgsql AS
  $$BEGIN RETURN (SELECT id FROM lonny.message_dequeue()); END$$;
CREATE FUNCTION public.in_sql() RETURNS SETOF bigint LANGUAGE sql AS
  'SELECT id FROM lonny.message_dequeue()';
CREATE FUNCTION public.in_sql_body() RETURNS bigint LANGUAGE sql
  BEGIN ATOMIC SELECT id FROM lonny.message_dequeue(); END;
CREATE PROCEDURE public.after_commit() LANGUAGE plpgsql AS
  $$BEGIN PERFORM 1; COMMIT; PERFORM id FROM lonny.message_dequeue(); END$$;
CREATE FUNCTION public.in_trigger() RETURNS trigger LANGUAGE plpgsql AS
  $$BEGIN PERFORM id FROM lonny.message_dequeue(); RETURN NEW; END$$;
CREATE TABLE public.job (id bigint);
CREATE TRIGGER job BEFORE INSERT ON public.job FOR EACH ROW EXECUTE FUNCTION public.in_trigger();
"""

LIMITED = [f"limited-{i}" for i in range(4)]
NUM_DUE = 12


def prepare(conn: Connection) -> None:
    """Twelve messages are due: by wakes, delays and locks, in channels with and without a policy."""
    stop_clock(conn)
    conn.execute(CALLERS)
    create(conn, "locked", 4, lock_ms=100)
    conn.execute("SELECT FROM lonny.message_dequeue(4)")
    create(conn, "delayed", 4, delay_ms=100)
    limit(conn, LIMITED, 1)
    for channel in LIMITED:
        create(conn, channel)
    move_clock(conn, 100)


def simple(*queries: LiteralString) -> Callable[[Connection], None]:
    """Each as a simple query."""

    def send(conn: Connection) -> None:
        for query in queries:
            conn.execute(query, prepare=False)

    return send


def bound(*before: LiteralString) -> Callable[[Connection], None]:
    """With a parameter: parsed, bound and executed at once. First other queries."""

    def send(conn: Connection) -> None:
        simple(*before)(conn)
        conn.execute(TAKE_BOUND, [1], prepare=False)

    return send


def binary(conn: Connection) -> None:
    conn.execute(TAKE, prepare=False, binary=True)


def prepared(*before: LiteralString) -> Callable[[Connection], None]:
    """Bound to a statement that was parsed earlier. First other queries."""

    def send(conn: Connection) -> None:
        simple(*before)(conn)
        conn.execute(TAKE_BOUND, [1], prepare=True)

    return send


def prepared_now(conn: Connection) -> None:
    """Parsed in a message of its own, as the driver does it."""
    conn.execute(TAKE_BOUND + " WHERE true", [1], prepare=True)


def by_the_driver(conn: Connection) -> None:
    """The driver begins the transaction, as it does by default."""
    conn.autocommit = False
    conn.execute(TAKE, prepare=False)


def in_a_block(conn: Connection) -> None:
    with conn.transaction(), conn.transaction():
        conn.execute(TAKE, prepare=False)


def cursor(conn: Connection) -> None:
    """On the server."""
    conn.execute("BEGIN")
    with conn.cursor("taken") as taken:
        assert len(taken.execute(TAKE).fetchall()) == 1


def copy(conn: Connection) -> None:
    with conn.cursor().copy("COPY (SELECT id FROM lonny.message_dequeue()) TO STDOUT") as rows:
        assert len(list(rows.rows())) == 1


def pipeline(conn: Connection) -> None:
    with conn.pipeline():
        conn.execute(TAKE_BOUND, [1], prepare=False)
        conn.execute(TAKE_BOUND, [1], prepare=False)


def pipeline_prepared(conn: Connection) -> None:
    with conn.pipeline():
        conn.execute(TAKE_BOUND, [1], prepare=True)


def pipeline_prepared_after_another(conn: Connection) -> None:
    with conn.pipeline():
        conn.execute("SELECT 1")
        conn.execute(TAKE_BOUND, [1], prepare=True)
        conn.execute(TAKE_BOUND, [1], prepare=True)


def portal(name: str) -> Callable[[Connection], None]:
    """BEGIN and the dequeue prepared earlier, the dequeue in a portal of that name, as JDBC may do it."""

    def send(conn: Connection) -> None:
        # libpq has no named portals, so the messages are written past it.
        with socket.socket(fileno=os.dup(conn.fileno())) as server:
            server.settimeout(DEADLINE)
            exchange(server, ("P", "begin", "BEGIN", 0), ("P", "take", TAKE, 0))
            exchange(
                server,
                ("B", "", "begin", 0, 0, 0),
                ("E", "", 0, 0),
                ("B", name, "take", 0, 0, 0),
                ("E", name, 0, 0),
            )

    return send


def second_of_two_portals(conn: Connection) -> None:
    """The same prepared dequeue bound twice in one pipeline, of which this executes the second."""
    with socket.socket(fileno=os.dup(conn.fileno())) as server:
        server.settimeout(DEADLINE)
        exchange(server, ("P", "take", TAKE, 0))
        exchange(server, ("B", "first", "take", 0, 0, 0), ("B", "", "take", 0, 0, 0), ("E", "", 0, 0))


def exchange(server: socket.socket, *messages: tuple[str | int, ...]) -> None:
    """Send messages, each a letter and its strings and 16-bit numbers, and read the answer to all."""
    for kind, *fields in (*messages, ("S",)):
        body = b"".join(
            struct.pack("!h", field) if isinstance(field, int) else field.encode() + b"\0" for field in fields
        )
        server.sendall(str(kind).encode() + struct.pack("!i", len(body) + 4) + body)
    answer = b""
    while answer[-6:-1] != b"Z\0\0\0\5":
        answer += server.recv(65536)


ALONE: dict[str, Callable[[Connection], None]] = {
    "simple": simple(TAKE),
    "simple, after another transaction": simple("BEGIN", "SELECT 1", "COMMIT", TAKE),
    "simple, with a semicolon at its end": simple(TAKE + " ; \n"),
    "prepared": prepared(),
    "prepared, after another transaction": prepared("BEGIN", "SELECT 1", "COMMIT"),
    "prepared now": prepared_now,
    "PREPARE and EXECUTE": simple("PREPARE take AS " + TAKE, "EXECUTE take"),
    "a view": simple("SELECT id FROM public.seen"),
    "INSERT ... SELECT": simple("INSERT INTO public.log " + TAKE),
    "a CTE": simple(
        "WITH taken AS MATERIALIZED (SELECT id FROM lonny.message_dequeue())"
        " INSERT INTO public.log SELECT id FROM taken"
    ),
    "COPY": copy,
    "a pipeline of one prepared": pipeline_prepared,
}
NOT_ALONE: dict[str, Callable[[Connection], None]] = {
    "bound": bound(),
    "binary": binary,
    "BEGIN, simple": simple("BEGIN", TAKE),
    "BEGIN, bound": bound("BEGIN"),
    "BEGIN, prepared": prepared("BEGIN"),
    "BEGIN prepared, prepared": portal(""),
    "BEGIN prepared, prepared, in a named portal": portal("taken"),
    "BEGIN, EXECUTE": simple("PREPARE take AS " + TAKE, "BEGIN", "EXECUTE take"),
    "the driver's BEGIN": by_the_driver,
    "the driver's blocks": in_a_block,
    "BEGIN, SELECT, simple": simple("BEGIN", "SELECT 1", TAKE),
    "BEGIN, SELECT, bound": bound("BEGIN", "SELECT 1"),
    "BEGIN, SELECT, prepared": prepared("BEGIN", "SELECT 1"),
    "BEGIN, INSERT, simple": simple("BEGIN", "INSERT INTO public.log VALUES (1)", TAKE),
    "BEGIN, INSERT, prepared": prepared("BEGIN", "INSERT INTO public.log VALUES (1)"),
    "SAVEPOINT, simple": simple("BEGIN", "SAVEPOINT a", TAKE),
    "SAVEPOINT, prepared": prepared("BEGIN", "SAVEPOINT a"),
    "COMMIT AND CHAIN, simple": simple("BEGIN", "COMMIT AND CHAIN", TAKE),
    "COMMIT AND CHAIN, prepared": prepared("BEGIN", "COMMIT AND CHAIN"),
    "two statements, the first": simple(TAKE + "; SELECT 1"),
    "two statements, the second": simple("SELECT 1; " + TAKE),
    "two statements, a BEGIN": simple("BEGIN; " + TAKE),
    "two statements and COMMIT": simple("BEGIN; " + TAKE + "; COMMIT"),
    "a semicolon that separates nothing": simple(TAKE + " WHERE ';' <> ''"),
    "a PL/pgSQL function": simple("SELECT public.in_plpgsql()"),
    "an SQL function": simple("SELECT public.in_sql()"),
    "an SQL function in FROM": simple("SELECT * FROM public.in_sql()"),
    "an SQL function with a body": simple("SELECT public.in_sql_body()"),
    "a DO block": simple("DO 'BEGIN PERFORM lonny.message_dequeue(); END'"),
    "a procedure that has committed": simple("CALL public.after_commit()"),
    "a trigger": simple("INSERT INTO public.job VALUES (1)"),
    "after a write in the same statement": simple(
        "WITH log AS (INSERT INTO public.log VALUES (1) RETURNING 1)"
        " SELECT d.id FROM log, LATERAL lonny.message_dequeue(1 + 0 * (SELECT count(*)::integer FROM log)) d"
    ),
    "a cursor": cursor,
    "a pipeline": pipeline,
    "a pipeline, prepared, after another": pipeline_prepared_after_another,
    "a pipeline, the second of two portals": second_of_two_portals,
}

# What is still due as it was, and in nobody's hands: messages, and channels that have a wake.
UNTOUCHED: LiteralString = """
SELECT (SELECT count(*) FROM (SELECT FROM lonny.message
                               WHERE status = 'WAITING' OR timer_at <= (SELECT at FROM public.clock)
                                 FOR UPDATE SKIP LOCKED) AS m),
       (SELECT count(DISTINCT lane) FROM (SELECT lane FROM lonny.wake
                                           WHERE at IS NULL FOR UPDATE SKIP LOCKED) AS w)
"""
TAKEN: LiteralString = """
SELECT count(*), count(*) FILTER (WHERE channel LIKE 'limited-%')
  FROM lonny.message WHERE status = 'LOCKED' AND timer_at > (SELECT at FROM public.clock)
"""
OPEN: LiteralString = "SELECT xact_start IS NOT NULL FROM pg_stat_activity WHERE pid = %s"
MUTEXES: LiteralString = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = %s"


def started(connect: Connect) -> Connection:
    """A session that has prepared its statement while nothing was there."""
    conn = connect()
    assert conn.execute(TAKE_BOUND, [1], prepare=True).fetchall() == [(None,)]
    assert scalar(conn, "SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql") == 1
    return conn


@pytest.mark.parametrize("way", ALONE)
def test_a_dequeue_that_is_alone_does_what_is_due_for_all(connect: Connect, way: str) -> None:
    conn, observer = started(connect), connect()
    prepare(observer)
    ALONE[way](conn)
    assert not scalar(observer, OPEN, [conn.info.backend_pid])
    assert observer.execute(TAKEN).fetchall()[0][0] == 1
    assert observer.execute(UNTOUCHED).fetchall() == [(0, 0)]


@pytest.mark.parametrize("way", NOT_ALONE)
def test_a_dequeue_in_a_longer_transaction_touches_only_what_it_takes(connect: Connect, way: str) -> None:
    conn, observer = started(connect), connect()
    prepare(observer)
    NOT_ALONE[way](conn)
    during = observer.execute(UNTOUCHED).fetchall()
    if scalar(observer, OPEN, [conn.info.backend_pid]):
        assert scalar(observer, MUTEXES, [conn.info.backend_pid]) <= 1
        conn.execute("COMMIT")
        assert observer.execute(UNTOUCHED).fetchall() == during
    ((taken, limited),) = observer.execute(TAKEN).fetchall()
    assert taken >= 1
    assert during == [(NUM_DUE - taken, len(LIMITED) - limited)]
