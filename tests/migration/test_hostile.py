"""Hostile surroundings: names that look like SQL, and callers who put things before PostgreSQL's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql

from pylonny import Queue
from pylonny.migrate import grant, install, plan, revoke, status, uninstall
from tests.migration.conftest import Connector, Rows, objects

if TYPE_CHECKING:
    from tests.support.sessions import Connection

NAMES = [
    'My "Queue" 1',
    "CAPITALS",
    "  ",
    "it's",
    '"',
    "'",
    "x" * 63,
    "ä" * 31 + "x",
    "select",
    "public.lonny",
    '"; DROP SCHEMA public CASCADE; --',
    "'); DROP SCHEMA public CASCADE; --",
    "$function$ $do$ $regclass$ $regprocedure$",
    "{{ schema }} {% raw %} %s %I %%",
    "/* -- */",
    "back\\slash \\' \\",
    "new\nline\ttab",
    "🐘",
]

# What one does with a queue, so that each function is called; with each what it answers.
STORY: list[tuple[LiteralString, Rows]] = [
    ("{}.message_create('a', 'one', 60000)", [(1,)]),
    (
        "{}.message_create_many('{{a,b,NULL}}', '{{two,three,four}}', '{{60000}}', '{{0,-1,0}}')",
        [(2,), (3,), (4,)],
    ),
    ("{}.channel_policy_set('c', 0)", [("",)]),
    ("{}.message_create('c', 'five', 60000)", [(5,)]),
    ("{}.message_create('d', 'six', 60000, 3600000)", [(6,)]),
    ("reason FROM {}.message_explain(5)", [("PAUSED",)]),
    ("reason FROM {}.channel_explain('d')", [("DELAYED",)]),
    ("result FROM {}.message_dequeue(1)", [("MESSAGE_DEQUEUED",)]),
    ("result FROM {}.message_dequeue(10)", [("MESSAGE_DEQUEUED",)] * 3),
    ("result FROM {}.message_dequeue()", [("MESSAGE_NOT_AVAILABLE",)]),
    ("{}.message_heartbeat(2, 1)", [("MESSAGE_HEARTBEATED",)]),
    ("{}.message_defer(2, 1, -1000, 'state')", [("MESSAGE_DEFERRED",)]),
    ("id, channel, num_attempts FROM {}.message_dequeue()", [(2, "a", 2)]),
    ("{}.message_delete(2, 2)", [("MESSAGE_DELETED",)]),
    (
        "id, result FROM {}.message_delete_many('{{3,2}}', '{{1,2}}')",
        [(3, "MESSAGE_DELETED"), (2, "MESSAGE_NOT_FOUND")],
    ),
    ("{}.channel_policy_set('c', 2, 1000)", [("",)]),
    ("id, channel FROM {}.message_dequeue()", [(5, "c")]),
    ("{}.channel_policy_clear('c')", [("",)]),
    ("id, status FROM {}.message_status('{{6,7}}'::bigint[])", [(6, "WAITING")]),
    ("{}.message_cancel(6)", [("MESSAGE_CANCELLED",)]),
    ("found FROM {}.check()", []),
    ("found FROM {}.repair()", []),
    ("version, breaking_version FROM {}.version_status()", [(1, None)]),
]  # fmt: skip


def live(conn: Connection, schema: str) -> None:
    """Go through the story."""
    for statement, answer in STORY:
        query = sql.SQL("SELECT ") + sql.SQL(statement).format(sql.Identifier(schema))
        assert conn.execute(query).fetchall() == answer, statement


@pytest.mark.parametrize("name", NAMES)
def test_a_queue_lives_under_any_name(conn: Connection, open_as: Connector, name: str) -> None:
    before = objects(conn)
    install(conn, name, name, wake_channel=name)
    listener = open_as()
    listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(name)))
    live(conn, name)
    event = next(listener.notifies(timeout=10, stop_after=1))
    assert (event.channel, '"type":"MESSAGE_CREATED","id":1' in event.payload) == (name, True)
    install(conn, name)
    Queue(name).check_version(conn)
    assert plan(conn, name).pending == ()
    [found] = status(conn)
    assert (found.schema, found.event_channel, found.wake_channel) == (name, name, name)
    assert found.drift == ()
    assert uninstall(conn, name).dropped_schema
    assert objects(conn) == before


@pytest.mark.parametrize("name", [*NAMES, "PUBLIC", "current_user"])
def test_a_role_has_any_name(conn: Connection, open_as: Connector, name: str) -> None:
    install(conn)
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    try:
        grant(conn, name, "producer", channel_prefix=name)
        grant(conn, name, "consumer")
        theirs = open_as(name)
        theirs.execute("SELECT lonny.message_create(%s, 'x', 0)", [name + "/"])
        assert theirs.execute("SELECT channel FROM lonny.message_dequeue()").fetchall() == [(name + "/",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
            theirs.execute("SELECT lonny.message_create('%', 'x', 0)")
        assert error.value.diag.message_primary is not None
        assert error.value.diag.message_primary.startswith(f'role "{name}" may create messages only in')
        revoke(conn, name, "consumer")
        revoke(conn, name, "producer")
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


# In the schema `trap`: every operator on types that the queue works with, every function of PostgreSQL whose
# name occurs in ours, a domain for every type whose name is no keyword. To use one raises "trapped".
TRAP: LiteralString = r"""
CREATE SCHEMA trap;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
DO $do$
DECLARE
  c_types CONSTANT regtype[] := '{bigint,integer,smallint,text,name,oid,bytea,tid,"char",boolean,numeric,
      double precision,interval,timestamp with time zone,regclass,anyarray,anycompatiblearray}';
  v_name   text;
  v_row    record;
  v_body   text := $$ BEGIN RAISE 'trapped'; END $$;
BEGIN
  FOR v_row IN
    SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result
    FROM pg_operator o
    WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprcode <> 0
      AND o.oprright = ANY (c_types) AND (o.oprleft = 0 OR o.oprleft = ANY (c_types))
  LOOP
    v_name := 'operator_' || md5(v_row::text);
    EXECUTE format('CREATE FUNCTION trap.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', v_name,
                   CASE WHEN v_row.l = 0 THEN '' ELSE v_row.l || ', ' END || v_row.r, v_row.result, v_body);
    EXECUTE format('CREATE OPERATOR trap.%s (FUNCTION = trap.%I%s, RIGHTARG = %s)', v_row.oprname, v_name,
                   CASE WHEN v_row.l = 0 THEN '' ELSE format(', LEFTARG = %s', v_row.l) END, v_row.r);
  END LOOP;

  FOR v_row IN
    SELECT DISTINCT p.proname, pg_get_function_result(p.oid) AS result,
           CASE WHEN p.proargmodes IS NULL THEN oidvectortypes(p.proargtypes)
                ELSE 'text, bigint' END AS arguments
    FROM pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind IN ('f', 'a')
      AND pg_get_function_result(p.oid) !~ 'internal|trigger|cstring|record|"any"'
      AND oidvectortypes(p.proargtypes) !~ 'internal|cstring|"any"$|"any",'
      AND EXISTS (SELECT FROM pg_proc ours
                  WHERE ours.pronamespace = 'lonny'::regnamespace
                    AND ours.prosrc ~* format('\m%s\(', p.proname))
  LOOP
    EXECUTE format('CREATE OR REPLACE FUNCTION trap.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L',
                   v_row.proname, v_row.arguments, v_row.result, v_body);
  END LOOP;

  FOREACH v_name IN ARRAY '{text,timestamptz,bytea,tid,oid,regclass,regprocedure,name,int8,bool}'::text[] LOOP
    EXECUTE format('CREATE DOMAIN trap.%I AS pg_catalog.%1$I CHECK (trap.clock_timestamp() IS NULL)', v_name);
  END LOOP;
END
$do$;
"""

# Views of the session itself, which come before all others unless pg_temp is in the path: with the names of
# what the queue has, and of what it reads in the catalog.
TEMPORARY: LiteralString = """
DO $do$
DECLARE
  v_name name;
BEGIN
  FOR v_name IN
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = 'lonny'::regnamespace AND c.relkind IN ('r', 'v', 'S')
    UNION
    SELECT unnest('{pg_class,pg_proc,pg_namespace,pg_index,pg_constraint,pg_roles,pg_locks,pg_database,
                    pg_stat_activity,pg_sequence,pg_attribute,pg_type,pg_enum,pg_language}'::name[])
  LOOP
    EXECUTE format('CREATE TEMP VIEW %I AS SELECT 1 / 0 AS oid', v_name);
  END LOOP;
END
$do$;
"""
PATHS: list[LiteralString] = ["trap, pg_temp, pg_catalog", "trap, pg_catalog"]  # or pg_temp comes first


@pytest.fixture
def set_traps(conn: Connection, role: str) -> None:
    install(conn)
    conn.execute(TRAP)
    for kind in ("producer", "consumer", "operator"):
        grant(conn, role, kind)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.usefixtures("set_traps")
def test_nothing_that_a_caller_puts_first_is_used(open_as: Connector, role: str, path: LiteralString) -> None:
    conn = open_as(role)
    conn.execute(TEMPORARY)
    conn.execute(sql.SQL("SET search_path = ") + sql.SQL(path))
    for statement in (
        "SELECT 1::bigint = 1::bigint",
        "SELECT 'a'::pg_catalog.text || 'b'::pg_catalog.text",
        "SELECT octet_length('a'::pg_catalog.text)",
        "SELECT clock_timestamp()",
        "SELECT 'a'::text",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="trapped"):
            conn.execute(statement)
    with pytest.raises(psycopg.errors.DivisionByZero):
        conn.execute("SELECT * FROM message")
    live(conn, "lonny")


@pytest.mark.usefixtures("set_traps")
def test_without_their_search_path_functions_fall_into_the_traps(conn: Connection) -> None:
    calls: dict[LiteralString, LiteralString] = {
        "message_create": "message_create('a', 'x', 1000)",
        "message_dequeue": "message_dequeue()",
        "channel_policy_set": "channel_policy_set('a', 1)",
        "check": "check()",
    }
    for function, call in calls.items():
        with conn.transaction(force_rollback=True):
            conn.execute(sql.SQL("ALTER FUNCTION lonny.{} RESET search_path").format(sql.SQL(function)))
            conn.execute("SET LOCAL search_path = trap, pg_catalog")
            with pytest.raises(psycopg.errors.RaiseException, match="trapped"):
                conn.execute(sql.SQL("SELECT lonny.{}").format(sql.SQL(call)))


def test_a_cast_of_the_callers_runs_with_the_callers_rights(
    conn: Connection, open_as: Connector, role: str
) -> None:
    install(conn)
    grant(conn, role, "producer")
    grant(conn, role, "consumer")
    conn.execute("""
        CREATE TYPE public.disguise AS (x integer);
        CREATE FUNCTION public.who(public.disguise) RETURNS text LANGUAGE sql RETURN current_user;
        CREATE CAST (public.disguise AS text) WITH FUNCTION public.who AS IMPLICIT;
    """)
    theirs = open_as(role)
    theirs.execute("SELECT lonny.message_create(row(1)::public.disguise, 'x', 1000)")
    assert theirs.execute("SELECT channel FROM lonny.message_dequeue()").fetchall() == [(role,)]


def test_a_sessions_settings_do_not_matter(conn: Connection, open_as: Connector, role: str) -> None:
    install(conn, event_channel="e", wake_channel="w")
    for kind in ("producer", "consumer", "operator"):
        grant(conn, role, kind)
    theirs = open_as(role)
    warnings: list[str | None] = []
    theirs.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    for setting in (
        "standard_conforming_strings = off",
        "backslash_quote = on",
        "transform_null_equals = on",
        "quote_all_identifiers = on",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = sql_standard",
        "bytea_output = escape",
        "extra_float_digits = -15",
        "row_security = off",
        "default_transaction_isolation = 'read uncommitted'",
        "timezone = 'Pacific/Kiritimati'",
        "enable_indexscan = off",
        "enable_indexonlyscan = off",
        "enable_nestloop = off",
        "plan_cache_mode = force_custom_plan",
        "cursor_tuple_fraction = 0",
        "plpgsql.extra_errors = 'all'",
        "plpgsql.extra_warnings = 'all'",
        "plpgsql.check_asserts = off",
    ):
        theirs.execute(sql.SQL("SET ") + sql.SQL(setting))
    live(theirs, "lonny")
    assert warnings == []
