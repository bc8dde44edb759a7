"""Producers, consumers and operators: each logs in, and tries each function and each table of the queue."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from pylonny import NotAvailable, Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Connect
    from tests.support.sessions import Connection

_numbers = itertools.count(1)

PRODUCER = {"message_create", "message_create_many"}
CONSUMER = {
    "message_dequeue",
    "message_delete",
    "message_delete_many",
    "message_defer",
    "message_heartbeat",
    "_wake_channel",
}
OPERATOR = {
    "channel_policy_set",
    "channel_policy_clear",
    "message_cancel",
    "message_status",
    "message_explain",
    "channel_explain",
    "check",
    "repair",
}
EVERYBODY = {"version_status", "_event_channel"}
MAY = {"producer": PRODUCER, "consumer": CONSUMER, "operator": OPERATOR, "nothing": set[str]()}

# One call of each function that somebody may call; the others are called with NULLs.
CALLS: dict[str, LiteralString] = {
    "message_create": "message_create('a', 'content', 1000)",
    "message_create_many": "message_create_many('{a,b}', '{x,y}', '{1000}')",
    "message_dequeue": "message_dequeue(10)",
    "message_delete": "message_delete(1, 1)",
    "message_delete_many": "message_delete_many('{1}', '{1}')",
    "message_defer": "message_defer(2, 1)",
    "message_heartbeat": "message_heartbeat(3, 1)",
    "channel_policy_set": "channel_policy_set('a', 1)",
    "channel_policy_clear": "channel_policy_clear('a')",
    "message_cancel": "message_cancel(1)",
    "message_status": "message_status(ids => '{1}')",
    "message_explain": "message_explain(1)",
    "channel_explain": "channel_explain('a')",
    "check": "check()",
    "repair": "repair()",
    "version_status": "version_status()",
    "_event_channel": "_event_channel()",
    "_wake_channel": "_wake_channel()",
}


@pytest.fixture
def make_role(connect: Connect) -> Iterator[Callable[..., str]]:
    """Makes roles that may log in, and are of these kinds; they are dropped after the test."""
    conn, names = connect(), list[str]()

    def make(*kinds: str, prefix: str | None = None) -> str:
        names.append(f'the "{kinds}" {next(_numbers)}')
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(names[-1])))
        for kind in kinds:
            conn.execute("SELECT lonny.role_grant(%s, %s, %s)", [names[-1], kind, prefix])
        return names[-1]

    yield make
    for name in names:
        conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def allowed(conn: Connection, statement: LiteralString | bytes | sql.Composed) -> bool:
    """Whether the statement is done; for any other reason than a missing right it has to be."""
    try:
        conn.execute(statement)
    except InsufficientPrivilege:
        return False
    return True


def functions(conn: Connection) -> list[tuple[str, bytes]]:
    """Every function in the schema, with a call of it."""
    rows = conn.execute(
        """
        SELECT p.proname, format('%s(%s)', p.proname, (
                   SELECT string_agg(format('CAST(NULL AS %s)', format_type(u.oid, NULL)), ', ' ORDER BY u.n)
                   FROM unnest(p.proargtypes) WITH ORDINALITY AS u (oid, n)))
        FROM pg_proc p WHERE p.pronamespace = 'lonny'::regnamespace ORDER BY p.proname
        """
    ).fetchall()
    return [(name, f"SELECT lonny.{CALLS.get(name, call)}".encode()) for name, call in rows]


@pytest.mark.parametrize("kind", MAY)
def test_a_role_calls_what_it_needs_and_no_other_function(
    connect: Connect, make_role: Callable[..., str], kind: str
) -> None:
    owner = connect()
    owner.execute("SELECT lonny.message_create('a', 'content', 1000) FROM generate_series(1, 3)")
    owner.execute("SELECT lonny.message_dequeue(2)")
    found = functions(owner)
    assert set(CALLS) <= {name for name, _ in found}
    conn = connect(user=make_role(*({kind} - {"nothing"})))
    may = {name for name, statement in found if allowed(conn, statement)}
    assert may == (set() if kind == "nothing" else MAY[kind] | EVERYBODY | {f"_{kind}"})


@pytest.mark.parametrize("kind", MAY)
def test_no_role_reads_or_writes_a_table(connect: Connect, make_role: Callable[..., str], kind: str) -> None:
    conn = connect(user=make_role(*({kind} - {"nothing"})))
    relations = (
        connect()
        .execute(
            "SELECT relname, relkind, "
            " (SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = 1)"
            " FROM pg_class c WHERE relnamespace = 'lonny'::regnamespace AND relkind IN ('r', 'v', 'S')"
        )
        .fetchall()
    )
    assert {name for name, *_ in relations} >= {
        "message",
        "wake",
        "migration",
        "_policy_in_force",
        "rotation",
    }
    attempts: dict[str, tuple[LiteralString, ...]] = {
        "r": (
            "SELECT {column} FROM {relation}",
            "INSERT INTO {relation} DEFAULT VALUES",
            "UPDATE {relation} SET {column} = DEFAULT",
            "DELETE FROM {relation}",
            "TRUNCATE {relation}",
            "CREATE TRIGGER t AFTER INSERT ON {relation} EXECUTE FUNCTION tsvector_update_trigger()",
            "ALTER TABLE {relation} ADD mine integer",
            "DROP TABLE {relation}",
        ),
        "v": ("SELECT {column} FROM {relation}", "DROP VIEW {relation}"),
        "S": (
            "SELECT last_value FROM {relation}",
            "SELECT nextval({literal})",
            "SELECT setval({literal}, 1)",
            "DROP SEQUENCE {relation}",
        ),
    }  # fmt: skip
    for name, relkind, column in relations:
        relation = sql.Identifier("lonny", name)
        names = {"column": sql.Identifier(column), "relation": relation, "literal": relation.as_string()}
        for attempt in attempts[relkind]:
            assert not allowed(conn, sql.SQL(attempt).format(**names)), (name, attempt)
    for statement in ("CREATE TABLE lonny.mine ()", "DROP FUNCTION lonny.check(bigint)", "DROP SCHEMA lonny"):
        assert not allowed(conn, statement)


def test_a_producer_and_a_consumer_do_their_part_with_the_python_layer(
    connect: Connect, make_role: Callable[..., str]
) -> None:
    queue = Queue("lonny")
    producer, consumer = connect(user=make_role("producer")), connect(user=make_role("consumer"))
    queue.check_version(producer)
    queue.check_version(consumer)
    batch = queue.batch()
    for number in range(3):
        batch.channel("a").message.create(str(number), lock_ms=1000)
    batch.execute(producer)
    messages = queue.dequeue_many(consumer, 3)
    assert not isinstance(messages, NotAvailable)
    assert [message.content.text() for message in messages] == ["0", "1", "2"]
    messages[0].heartbeat(consumer)
    messages[0].defer(consumer, delay_ms=1000)
    queue.delete_many(consumer, messages[1:])


def test_dequeues_of_a_consumer_go_round_the_channels_and_keep_limits(
    connect: Connect, make_role: Callable[..., str]
) -> None:
    producer, consumer = connect(user=make_role("producer")), connect(user=make_role("consumer"))
    operator = connect(user=make_role("operator"))
    operator.execute("SELECT lonny.channel_policy_set('a', max_concurrency => 1)")
    for channel in ("a", "a", "b", "b"):
        producer.execute("SELECT lonny.message_create(%s, 'x', 60000)", [channel])
    rows = [consumer.execute("SELECT channel FROM lonny.message_dequeue()").fetchall() for _ in range(4)]
    taken = [row[0] for [row] in rows]
    assert sorted(taken[:2]) == ["a", "b"]
    assert taken[2:] == ["b", None]


# A producer of some channels. What it may create is in pgtap/role_grant.sql.


def create(conn: Connection, channel: str) -> bool:
    return allowed(conn, sql.SQL("SELECT lonny.message_create({}, 'x', 1000)").format(channel))


def test_a_bound_producer_is_one_by_whatever_function_it_comes(
    connect: Connect, make_role: Callable[..., str]
) -> None:
    owner, bound = connect(), make_role("producer", prefix="mine/")
    owner.execute(
        "CREATE FUNCTION public.order_place(channel text) RETURNS bigint LANGUAGE sql SECURITY DEFINER"
        " RETURN lonny.message_create(channel, 'x', 1000)"
    )
    for name, may in ((bound, [True, False]), (make_role(), [True, True])):
        conn = connect(user=name)
        statement = sql.SQL("SELECT public.order_place({})")
        assert [allowed(conn, statement.format(channel)) for channel in ("mine/1", "theirs")] == may


def test_a_prefix_binds_who_has_logged_in_and_not_who_one_becomes(
    connect: Connect, make_role: Callable[..., str]
) -> None:
    # The limits of the mechanism, as the README tells them.
    owner, bound, free = connect(), make_role("producer", prefix="mine/"), make_role("producer")
    login = make_role()
    names = {"bound": sql.Identifier(bound), "free": sql.Identifier(free), "login": sql.Identifier(login)}
    owner.execute(sql.SQL("ALTER ROLE {login} NOINHERIT").format(**names))
    owner.execute(sql.SQL("GRANT {bound}, {free} TO {login}").format(**names))
    conn = connect(user=login)
    assert not create(conn, "mine/1")
    conn.execute(sql.SQL("SET ROLE {bound}").format(**names))
    assert create(conn, "theirs")
    owner.execute(sql.SQL("REVOKE {free} FROM {login}; ALTER ROLE {login} INHERIT").format(**names))
    owner.execute(sql.SQL("GRANT {bound} TO {login}").format(**names))
    if owner.info.server_version >= 160000:
        owner.execute(sql.SQL("GRANT {bound} TO {login} WITH INHERIT TRUE").format(**names))
    conn = connect(user=login)
    assert create(conn, "mine/1")
    assert not create(conn, "theirs")


def test_a_bound_producer_creates_many_in_its_channels_only(
    connect: Connect, make_role: Callable[..., str]
) -> None:
    conn = connect(user=make_role("producer", prefix="mine/"))
    statement = sql.SQL("SELECT lonny.message_create_many({}::text[], '{{x,y}}', '{{0}}')")
    assert allowed(conn, statement.format("{mine/1,mine/2}"))
    for channels in ("{mine/1,theirs}", "{mine/1,NULL}", None):
        assert not allowed(conn, statement.format(channels))


def test_a_bound_producer_that_has_lost_its_prefix_creates_nothing(
    connect: Connect, make_role: Callable[..., str]
) -> None:
    conn = connect(user=make_role("producer", prefix="mine/"))
    assert create(conn, "mine/1")
    connect().execute("DELETE FROM lonny.producer")
    assert not create(conn, "mine/1")


def test_who_is_not_the_owner_grants_nothing(connect: Connect, make_role: Callable[..., str]) -> None:
    name = make_role("producer", "consumer", "operator")
    conn = connect(user=name)
    assert not allowed(conn, "SELECT lonny.role_grant('postgres', 'producer')")
    assert not allowed(conn, "SELECT lonny.role_revoke('postgres', 'producer')")


def test_an_event_channel_is_listened_to_by_whoever_may_connect(
    connect: Connect, make_role: Callable[..., str]
) -> None:
    # Ids and names of channels are public within the database, and the README says so.
    owner, stranger = connect(), connect(user=make_role())
    owner.execute(
        "CREATE OR REPLACE FUNCTION lonny._event_channel() RETURNS text LANGUAGE sql IMMUTABLE RETURN 'e'"
    )
    stranger.execute("LISTEN e")
    owner.execute("SELECT lonny.message_create('secret', 'x', 1000)")
    [notify] = stranger.notifies(timeout=10, stop_after=1)
    assert '"channel":"secret"' in notify.payload
