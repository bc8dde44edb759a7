"""Whatever is given as an argument: a documented error that says what is wrong, or success; nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from tests.support.queue import LOCK_MS, create, delete, dequeue, limit, scalar, stop_clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.conftest import Connect
    from tests.support.sessions import Connection

MEGABYTE = 1024**2
MOST = 256_000_000  # bytes of a content, or of a state
CENTURY = 3_155_760_000_000

# What may be called, and with what: the catalog says so, so that no function is forgotten.
FUNCTIONS = """
SELECT p.proname, COALESCE(p.proargnames[1 : p.pronargs], '{}'),
       ARRAY (SELECT t::regtype::text FROM unnest(p.proargtypes) WITH ORDINALITY AS u (t, n) ORDER BY n),
       obj_description(p.oid, 'pg_proc')
  FROM pg_proc p
 WHERE p.pronamespace = 'lonny'::regnamespace AND p.proname NOT LIKE '\\_%'
 ORDER BY 1
"""
STATE = """
SELECT md5(string_agg(t::text, '' ORDER BY t::text))
  FROM (SELECT m::text AS t FROM lonny.message m
        UNION ALL SELECT p::text FROM lonny.channel_policy p UNION ALL SELECT w::text FROM lonny.wake w) x
"""
# With the argument's name, of an array with the place.
MESSAGE = re.compile(
    r'(?:invalid )?(\w+)(?:\[\d+\])?(?:: .| must not be NULL$| ".*" does not exist$)', re.DOTALL
)
ADVISORY = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


def integers(bits: int) -> st.SearchStrategy[int]:
    """Ids and numbers that exist, bounds and what is next to them, and any others."""
    most = 2 ** (bits - 1)
    bounds = [-most, -most + 1, -1, 0, 1, 2, 50, most - 2, most - 1]
    if bits == 64:
        bounds += [sign * CENTURY + n for sign in (-1, 1) for n in (-1, 0, 1)]
    return st.one_of(st.integers(1, 12), st.sampled_from(bounds), st.integers(-most, most - 1))


# PostgreSQL's texts have no NUL, and UTF-8 no halves of pairs: those do not reach a function.
CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
NAMES = st.sampled_from(
    ["a", "limited", "slow", "", "x" * 512, "x" * 513, "\N{GRINNING FACE}" * 128, "'", "\\", '"']
)
TEXTS = st.one_of(NAMES, st.text(CHARACTERS, max_size=600))
BYTES = st.one_of(st.binary(max_size=100), st.integers(0, 16 * MEGABYTE).map(bytes))
ANY: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "bytea": BYTES,
    "bigint": integers(64),
    "integer": integers(32),
}
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "text": st.sampled_from(["a", "limited", "slow"]),
    "bytea": st.binary(max_size=100),
    "bigint": st.integers(1, 12),
    "integer": st.integers(1, 12),
}
# Of functions that need others.
GOOD_NAMES: dict[str, st.SearchStrategy[Any]] = {
    "role": st.just("pg_monitor"),
    "kind": st.sampled_from(["producer", "consumer", "operator"]),
}
TYPES = {name: sql.SQL(name) for name in ("text", "bytea", "bigint", "integer")}
SHAPES: dict[str, LiteralString] = {
    "flat": "{array}",
    "nested": "ARRAY[{array}]",
    "doubled": "ARRAY[{array}, {array}]",
    "from minus two": "('[-2:' || cardinality({array}) - 3 || ']=' || ({array})::text)::{type}",
}


@st.composite
def arguments(draw: st.DrawFn, name: str, type_: str, size: int, *, is_good: bool) -> sql.Composable:
    """An argument of that type: a good one, arrays of that size; or any, perhaps NULL or of an odd shape."""
    values, element = GOOD if is_good else ANY, type_.removesuffix("[]")
    type_name = TYPES[type_] if element == type_ else sql.SQL("{}[]").format(TYPES[element])
    if not is_good and draw(st.integers(0, 7)) == 0:
        return sql.SQL("NULL::{}").format(type_name)
    if element == type_:
        one = GOOD_NAMES.get(name, values[type_]) if is_good else values[type_]
        return sql.SQL("({})::{}").format(sql.Literal(draw(one)), type_name)
    if not is_good:
        size = draw(st.sampled_from([size, size, size, 0, 1, 5]))
    elements = (
        GOOD[element] if is_good or element == "bytea" else st.one_of(GOOD[element], ANY[element], st.none())
    )
    items = sql.SQL(", ").join(sql.Literal(draw(elements)) for _ in range(size))
    array = sql.SQL("ARRAY[{}]::{}").format(items, type_name)
    shape = "flat" if size == 0 else draw(st.sampled_from(["flat", *SHAPES]))
    return sql.SQL(SHAPES[shape]).format(array=array, type=type_name)


@st.composite
def calls(draw: st.DrawFn, function: str, names: list[str], types: list[str]) -> sql.Composed:
    """A call of a function: one in three has good arguments only."""
    size, is_good = draw(st.integers(0, 3)), draw(st.integers(0, 2)) == 0
    given_ = [
        draw(arguments(name, type_, size, is_good=is_good)) for name, type_ in zip(names, types, strict=True)
    ]
    return _call(function, given_)


def _call(function: str, values: Sequence[sql.Composable]) -> sql.Composed:
    listed = sql.SQL(", ").join(values)
    return sql.SQL("SELECT x::text FROM lonny.{}({}) x").format(sql.Identifier(function), listed)


@pytest.fixture
def conn(connect: Connect) -> Connection:
    """A queue with messages of all kinds, in a transaction."""
    conn = connect()
    stop_clock(conn)
    limit(conn, "limited", 2)
    limit(conn, "slow", None, 1000)
    for channel in ("a", "limited", "slow", None):
        create(conn, channel, 3)
    assert len(dequeue(conn, 5)) == 5
    create(conn, "a", 2, delay_ms=LOCK_MS)
    conn.autocommit = False
    return conn


def test_any_arguments_succeed_or_are_refused_with_a_documented_error(
    conn: Connection, at_length: bool
) -> None:
    functions = conn.execute(FUNCTIONS).fetchall()
    assert len(functions) >= 15
    before = scalar(conn, STATE)
    for name, argument_names, types, comment in functions:
        documented = re.findall(r"\b[0-9A-Z]{5}\b", comment.partition("Errors: ")[2])
        ends: set[str] = set()

        @settings(max_examples=1500 if at_length else 30)
        @given(calls(name, argument_names, types))
        @example(_call(name, [sql.SQL("NULL") for _ in types]))
        def call(query: sql.Composed) -> None:
            with conn.transaction(force_rollback=True):
                error = _error(conn, query)
                if error is None:
                    # What was accepted cannot make a later call raise, and leaves the queue in order.
                    dequeue(conn, 50)
                    assert conn.execute("SELECT kind, found FROM lonny.check()").fetchall() == []
                    ends.add("success")  # noqa: B023 (it is called in this round)
                    return
                ends.add("error")  # noqa: B023
                assert error.sqlstate in documented  # noqa: B023
                named = MESSAGE.match(message := str(error.diag.message_primary))
                assert named
                assert named[1] in argument_names  # noqa: B023
                assert len(message) < 200
                assert error.diag.message_hint
                assert scalar(conn, STATE) == before
                assert scalar(conn, ADVISORY) == 0

        call()
        assert ends == ({"success", "error"} if argument_names else {"success"}), name


def _error(conn: Connection, query: sql.Composed) -> psycopg.Error | None:
    """What a call raises, all of which is undone then."""
    try:
        with conn.transaction():
            conn.execute(query)
    except psycopg.Error as error:
        return error
    return None


class TestLargeContent:
    def test_much_is_stored_and_comes_back_whole(self, connect: Connect, at_length: bool) -> None:
        conn = connect()
        content = bytes(range(256)) * ((100 if at_length else 10) * MEGABYTE // 256)
        conn.execute("SELECT lonny.message_create('a', %b, 60000)", [content])
        got = conn.execute("SELECT id, content FROM lonny.message_dequeue()", binary=True).fetchall()
        assert got == [(1, content)]
        assert (
            scalar(conn, "SELECT lonny.message_defer(1, 1, 0, content) FROM lonny.message")
            == "MESSAGE_DEFERRED"
        )
        assert scalar(conn, "SELECT content = state FROM lonny.message_dequeue()") is True

    @pytest.mark.parametrize(
        ("call", "argument"),
        [
            ("message_create('a', {}, 1000)", "content"),
            pytest.param(
                "message_create_many(NULL, ARRAY['', {}], '{{1000}}')",
                "contents[2]",
                marks=pytest.mark.at_length,  # it copies the array a few times
            ),
            pytest.param("message_defer(1, 1, 0, {})", "state", marks=pytest.mark.at_length),
        ],
    )
    def test_more_than_can_be_delivered_is_refused(self, connect: Connect, call: str, argument: str) -> None:
        conn = connect()
        query = "SELECT lonny." + call.format(f"convert_to(repeat('x', {MOST + 1}), 'UTF8')")
        with pytest.raises(psycopg.errors.InvalidParameterValue) as raised:
            conn.execute(query.encode())
        assert raised.value.diag.message_primary == f"invalid {argument}: {MOST + 1} bytes"
        assert str(raised.value.diag.message_hint).startswith(f"Give at most {MOST} bytes")
        assert scalar(conn, "SELECT count(*) FROM lonny.message") == 0

    def test_the_most_that_is_accepted_is_delivered_as_text_too(
        self, connect: Connect, at_length: bool
    ) -> None:
        # PostgreSQL sends a row of 1 GiB at most, and bytes as text are twice as many.
        size = MOST if at_length else MOST // 100
        conn = connect()
        largest = f"convert_to(repeat('x', {size}), 'UTF8')"
        channel = "x" * 512
        conn.execute(f"SELECT lonny.message_create('{channel}', {largest}, 60000)".encode())
        (taken,) = dequeue(conn)
        conn.execute(f"SELECT lonny.message_defer(1, 1, 0, {largest})".encode())
        ((content, state),) = conn.execute("SELECT content, state FROM lonny.message_dequeue()").fetchall()
        assert content == state == b"x" * size
        assert delete(conn, taken._replace(num_attempts=2)) == ["MESSAGE_DELETED"]
