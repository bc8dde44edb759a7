"""Installing: what it does, doing it again, and when it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from pylonny import __version__, migrate, templates
from pylonny.errors import InstallError, InvalidNameError
from pylonny.migrate import KEEP, Installed, Plan, install, plan, status, uninstall
from pylonny.templates import Templates
from tests.migration.conftest import Connector, Rows, add_file, objects
from tests.support.sessions import Connection


def ledger(conn: Connection, schema: str = "lonny") -> Rows:
    query = sql.SQL("SELECT version, name, checksum, package_version, applied_at FROM {} ORDER BY version")
    return conn.execute(query.format(sql.Identifier(schema, "migration"))).fetchall()


def source(conn: Connection) -> Rows:
    return conn.execute("SELECT proname, prosrc FROM pg_proc ORDER BY oid").fetchall()


def event_channel(conn: Connection) -> str | None:
    [found] = status(conn)
    assert conn.execute("SELECT lonny._event_channel()").fetchone() == (found.event_channel,)
    return found.event_channel


def test_an_install_records_its_migrations(conn: Connection) -> None:
    migrations = [file for file in Templates().files if file.version is not None]
    done = install(conn)
    assert done == Installed("lonny", len(migrations), tuple(file.path for file in migrations), None)
    assert [row[:4] for row in ledger(conn)] == [
        (file.version, file.name, file.checksum, __version__) for file in migrations
    ]
    assert conn.execute(
        "SELECT bool_and(applied_at <= clock_timestamp()) FROM lonny.migration"
    ).fetchone() == (True,)


def test_a_second_install_changes_nothing(conn: Connection) -> None:
    install(conn)
    conn.execute("SELECT lonny.message_create('a', 'stays', 1000)")
    before = objects(conn), ledger(conn), conn.execute("TABLE lonny.message").fetchall()
    done = install(conn)
    assert done.applied == ()
    assert (objects(conn), ledger(conn), conn.execute("TABLE lonny.message").fetchall()) == before


def test_a_second_install_restores_functions_and_what_public_may(conn: Connection) -> None:
    functions = """
        SELECT p.oid::regprocedure::text, p.prosrc, has_function_privilege('pg_monitor', p.oid, 'EXECUTE')
        FROM pg_proc p WHERE p.pronamespace = 'lonny'::regnamespace ORDER BY 1
    """
    install(conn)
    before = conn.execute(functions).fetchall()
    conn.execute("DROP FUNCTION lonny.message_status(bigint[])")
    conn.execute("CREATE OR REPLACE FUNCTION lonny._clock() RETURNS timestamptz RETURN now()")
    conn.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lonny TO PUBLIC")
    assert conn.execute(functions).fetchall() != before
    install(conn)
    assert conn.execute(functions).fetchall() == before


def test_the_event_channel_stays_until_another_is_given(conn: Connection) -> None:
    assert install(conn, "lonny").event_channel is None
    assert event_channel(conn) is None
    assert install(conn, "lonny", "it's").event_channel == "it's"
    assert install(conn, "lonny").event_channel == "it's"
    assert install(conn, "lonny", KEEP).event_channel == "it's"
    assert event_channel(conn) == "it's"
    assert install(conn, "lonny", "other").event_channel == "other"
    assert event_channel(conn) == "other"
    assert install(conn, "lonny", None).event_channel is None
    assert install(conn, "lonny").event_channel is None
    assert event_channel(conn) is None


def test_the_wake_channel_stays_until_another_is_given_and_so_does_each_beside_the_other(
    conn: Connection,
) -> None:
    def channels(done: Installed) -> tuple[str | None, str | None]:
        assert [(found.event_channel, found.wake_channel) for found in status(conn)] == [
            (done.event_channel, done.wake_channel)
        ]
        return done.event_channel, done.wake_channel

    assert channels(install(conn, wake_channel="it's")) == (None, "it's")
    assert channels(install(conn, event_channel="events")) == ("events", "it's")
    assert channels(install(conn, wake_channel="other")) == ("events", "other")
    planned = plan(conn, event_channel=None)
    assert (planned.event_channel, planned.wake_channel) == (None, "other")
    assert channels(install(conn, event_channel=None)) == (None, "other")
    assert channels(install(conn, wake_channel=None)) == (None, None)


def test_a_backslash_means_itself_whatever_the_server_thinks_of_it(conn: Connection) -> None:
    conn.execute("SET standard_conforming_strings = off")
    conn.execute("SET backslash_quote = on")
    conn.execute("SET escape_string_warning = off")
    assert install(conn, "a\\'b", "c\\'d").event_channel == "c\\'d"
    assert install(conn, "a\\'b").event_channel == "c\\'d"
    assert [(found.schema, found.event_channel) for found in status(conn)] == [("a\\'b", "c\\'d")]
    assert conn.execute("SHOW standard_conforming_strings").fetchone() == ("off",)


def test_two_queues_in_one_database_do_not_touch_each_other(conn: Connection) -> None:
    install(conn, "one", "first")
    one = objects(conn)
    install(conn, "two", "second")
    assert [(found.schema, found.event_channel) for found in status(conn)] == [
        ("one", "first"),
        ("two", "second"),
    ]
    uninstall(conn, "two")
    assert objects(conn) == one


def test_an_install_is_part_of_the_callers_transaction(open_as: Connector) -> None:
    conn = open_as(autocommit=False)
    before = objects(conn)
    conn.execute("SET LOCAL search_path = public")
    conn.execute("SET LOCAL client_min_messages = debug1")
    install(conn)
    assert conn.execute("SHOW search_path").fetchone() == ("public",)
    assert conn.execute("SHOW client_min_messages").fetchone() == ("debug1",)
    assert status(conn)
    conn.rollback()
    assert objects(conn) == before


def test_a_refusal_leaves_the_callers_transaction_usable(open_as: Connector) -> None:
    conn = open_as(autocommit=False)
    conn.execute("CREATE SCHEMA lonny CREATE TABLE mine ()")
    conn.execute("SET LOCAL search_path = lonny")
    with pytest.raises(InstallError):
        install(conn)
    assert conn.execute("SHOW search_path").fetchone() == ("lonny",)
    assert conn.execute("SELECT count(*) FROM mine").fetchone() == (0,)


def test_the_connections_factories_do_not_matter(open_as: Connector) -> None:
    conn: psycopg.Connection[Any] = open_as(
        row_factory=dict_row, cursor_factory=psycopg.RawCursor, prepare_threshold=0
    )
    assert install(conn, "lonny", "events").event_channel == "events"
    assert install(conn).event_channel == "events"
    assert [found.version for found in status(conn)] == [1]
    assert uninstall(conn).dropped_schema


def test_the_search_path_does_not_matter(conn: Connection) -> None:
    conn.execute("CREATE SCHEMA trap")
    for function in (
        "current_setting(text)",
        "set_config(text, text, boolean)",
        "hashtextextended(text, integer)",
    ):
        conn.execute(
            sql.SQL(
                "CREATE FUNCTION trap.{} RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE ''trapped''; END'"
            ).format(sql.SQL(function))
        )
    conn.execute("CREATE VIEW trap.pg_class AS SELECT 1 / 0 AS oid")
    conn.execute("CREATE VIEW trap.pg_namespace AS SELECT 1 / 0 AS oid")
    conn.execute("SET search_path = trap, pg_catalog")
    install(conn)
    install(conn)
    assert [found.schema for found in status(conn)] == ["lonny"]
    assert uninstall(conn).dropped_schema


# Where it may go


def test_an_empty_schema_is_used_and_no_right_to_create_one_is_needed(
    conn: Connection, open_as: Connector, role: str
) -> None:
    conn.execute(sql.SQL("CREATE SCHEMA lonny AUTHORIZATION {}").format(sql.Identifier(role)))
    before = objects(conn)
    theirs = open_as(role)
    install(theirs)
    install(theirs)
    assert [found.owner for found in status(conn)] == [role]
    theirs.execute("SELECT lonny.message_create('a', 'content', 1000)")
    assert not uninstall(theirs).dropped_schema
    assert objects(conn) == before


def test_a_schema_of_somebody_else_is_used_if_one_may(
    conn: Connection, open_as: Connector, role: str
) -> None:
    conn.execute("CREATE SCHEMA lonny")
    conn.execute(sql.SQL("GRANT CREATE, USAGE ON SCHEMA lonny TO {}").format(sql.Identifier(role)))
    install(open_as(role))
    assert [found.owner for found in status(conn)] == [role]


def test_the_rights_on_a_schema_that_was_there_before_stay(conn: Connection) -> None:
    before = objects(conn)
    install(conn, "public")
    rights = "SELECT has_schema_privilege('pg_monitor', 'public', 'USAGE')"
    assert conn.execute(rights).fetchone() == (True,)
    uninstall(conn, "public")
    assert objects(conn) == before


def test_what_others_have_in_the_schema_does_not_matter(
    conn: Connection, open_as: Connector, role: str
) -> None:
    install(conn)
    conn.execute(sql.SQL("GRANT CREATE, USAGE ON SCHEMA lonny TO {}").format(sql.Identifier(role)))
    theirs = open_as(role)
    theirs.execute("CREATE TABLE lonny.theirs (id serial)")
    theirs.execute("CREATE FUNCTION lonny.f() RETURNS integer RETURN 1")
    theirs.execute("CREATE FUNCTION lonny.message_create(integer) RETURNS integer RETURN 1")  # a name of ours
    theirs.execute("GRANT SELECT ON lonny.theirs TO PUBLIC")
    rights = """
        SELECT has_table_privilege('pg_monitor', 'lonny.theirs', 'SELECT'), proacl
        FROM pg_proc WHERE proname = 'f' OR proname = 'message_create' AND pronargs = 1
    """
    before = objects(conn), conn.execute(rights).fetchall()
    install(conn)
    assert (objects(conn), conn.execute(rights).fetchall()) == before


@pytest.mark.parametrize("grant", ["CREATE", "USAGE"])
def test_a_schema_where_one_may_not_create_is_refused(
    conn: Connection, open_as: Connector, role: str, grant: LiteralString
) -> None:
    conn.execute("CREATE SCHEMA lonny")
    conn.execute(sql.SQL("GRANT {} ON SCHEMA lonny TO {}").format(sql.SQL(grant), sql.Identifier(role)))
    with pytest.raises(InstallError) as error:
        install(open_as(role))
    assert error.value.message == f'role "{role}" may not create anything in schema "lonny"'
    assert error.value.hint == f'have its owner run  GRANT CREATE, USAGE ON SCHEMA lonny TO "{role}"'
    conn.execute(sql.SQL("GRANT CREATE, USAGE ON SCHEMA lonny TO {}").format(sql.Identifier(role)))
    install(open_as(role))


def test_a_role_that_may_not_create_schemas_is_told_what_to_ask_for(
    conn: Connection, open_as: Connector, role: str
) -> None:
    with pytest.raises(InstallError) as error:
        install(open_as(role), "My Jobs")
    database = conn.info.dbname
    assert error.value.message == f'role "{role}" may not create schema "My Jobs" in database "{database}"'
    grant = f'GRANT CREATE ON DATABASE {database} TO "{role}"'
    create = f'CREATE SCHEMA "My Jobs" AUTHORIZATION "{role}"'
    assert error.value.hint == f"have its owner run  {grant}  or  {create}"
    conn.execute(grant.encode())
    install(open_as(role), "My Jobs")


def test_the_queue_of_another_role_is_refused(conn: Connection, open_as: Connector, role: str) -> None:
    install(conn)
    conn.execute(sql.SQL("GRANT ALL ON SCHEMA lonny TO {}").format(sql.Identifier(role)))
    before = objects(conn)
    with pytest.raises(InstallError) as error:
        install(open_as(role))
    assert error.value.message == f'the queue in schema "lonny" belongs to role "postgres", not to "{role}"'
    assert error.value.hint == 'connect as "postgres", or become it with PGOPTIONS="-c role=postgres"'
    assert objects(conn) == before


@pytest.mark.parametrize(
    "thing",
    [
        "CREATE TABLE lonny.mine ()",
        "CREATE TABLE lonny.migration (version integer)",
        "CREATE VIEW lonny.mine AS SELECT 1",
        "CREATE SEQUENCE lonny.mine",
        "CREATE TYPE lonny.mine AS ENUM ()",
        "CREATE DOMAIN lonny.mine AS text",
        "CREATE FUNCTION lonny.mine() RETURNS integer RETURN 1",
        'CREATE COLLATION lonny.mine FROM "C"',
        "CREATE TEXT SEARCH CONFIGURATION lonny.mine (COPY = simple)",
    ],
)
def test_a_schema_that_has_anything_in_it_is_refused(conn: Connection, thing: str) -> None:
    conn.execute("CREATE SCHEMA lonny")
    conn.execute(thing.encode())
    before = objects(conn)
    with pytest.raises(InstallError) as error:
        install(conn)
    assert error.value.message == 'schema "lonny" is not empty and not a queue of pylonny'
    assert error.value.hint == "choose another schema, or empty this one"
    assert objects(conn) == before
    assert status(conn) == []


def test_the_schemas_of_postgresql_are_refused(conn: Connection) -> None:
    with pytest.raises(InstallError, match='schema "information_schema" is not empty'):
        install(conn, "information_schema")
    with pytest.raises(InvalidNameError, match='keeps the prefix "pg_" to itself'):
        install(conn, "pg_catalog")


def test_default_privileges_do_not_make_a_schema_full(conn: Connection) -> None:
    conn.execute("CREATE SCHEMA lonny")
    conn.execute("ALTER DEFAULT PRIVILEGES IN SCHEMA lonny GRANT SELECT ON TABLES TO PUBLIC")
    install(conn)
    assert [found.schema for found in status(conn)] == ["lonny"]


# On which server, and how


def test_an_old_server_is_refused(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if this one were as old to us as PostgreSQL 14 is: the real comparison, with another number.
    monkeypatch.setattr(templates, "OPENING", templates.OPENING.replace("150000", "990000"))
    before = objects(conn)
    with pytest.raises(InstallError) as error:
        install(conn)
    [(version,)] = conn.execute("SHOW server_version").fetchall()
    assert error.value.message == f"PostgreSQL 15 or newer is needed, this server is {version}"
    assert error.value.hint == "upgrade the server, or use another"
    assert objects(conn) == before


@pytest.mark.parametrize(
    "level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE]
)
def test_an_isolation_level_that_cannot_see_is_refused(
    open_as: Connector, level: psycopg.IsolationLevel
) -> None:
    conn = open_as()
    conn.isolation_level = level
    with pytest.raises(InstallError, match=r"READ COMMITTED, not (REPEATABLE READ|SERIALIZABLE)"):
        install(conn)


def test_a_read_only_session_changes_nothing_and_says_so(conn: Connection) -> None:
    conn.read_only = True
    with pytest.raises(InstallError, match="read-only transaction"):
        install(conn)


@pytest.mark.parametrize("event_channel", ["", "x" * 64, "a\0b"])
def test_an_event_channel_that_cannot_be_is_refused_before_anything_is_done(
    conn: Connection, event_channel: str
) -> None:
    before = objects(conn)
    with pytest.raises(InvalidNameError):
        install(conn, "lonny", event_channel)
    assert objects(conn) == before


# Migrations


def test_a_template_that_fails_leaves_nothing_and_is_named(conn: Connection, root: Path) -> None:
    add_file(root, "functions/broken.sql", "SELECT 1;\n\nSELECT {{ schema }}.nothing();\n")
    before = objects(conn)
    with pytest.raises(InstallError) as error:
        install(conn, root=root)
    assert error.value.message == "functions/broken.sql, line 3: function lonny.nothing() does not exist"
    assert isinstance(error.value.__cause__, psycopg.errors.UndefinedFunction)
    assert objects(conn) == before


def test_a_new_migration_is_run_once(conn: Connection, root: Path) -> None:
    install(conn, root=root)
    first = ledger(conn)
    add_file(root, "migrations/0002_second.sql", "CREATE TABLE {{ schema }}.second ();\n")
    assert install(conn, root=root) == Installed("lonny", 2, ("migrations/0002_second.sql",), None)
    assert install(conn, root=root) == Installed("lonny", 2, (), None)
    assert ledger(conn)[:1] == first
    assert [row[:2] for row in ledger(conn)[1:]] == [(2, "second")]
    assert uninstall(conn, root=root).dropped_schema


def test_a_migration_that_fails_is_not_recorded(conn: Connection, root: Path) -> None:
    install(conn, root=root)
    before = objects(conn), ledger(conn)
    add_file(root, "migrations/0002_second.sql", "CREATE TABLE {{ schema }}.second ();\nSELECT 1 / 0;\n")
    with pytest.raises(InstallError, match=r"migrations/0002_second\.sql: division by zero"):
        install(conn, root=root)
    assert (objects(conn), ledger(conn)) == before


def test_a_migration_that_was_changed_is_refused(conn: Connection, root: Path) -> None:
    install(conn, root=root)
    before = objects(conn), ledger(conn)
    with (root / "migrations/0001_initial.sql").open("a") as file:
        file.write("-- a change\n")
    with pytest.raises(InstallError) as error:
        install(conn, root=root)
    assert error.value.message == 'migrations/0001_initial.sql is not what was run in schema "lonny"'
    assert (
        error.value.hint
        == "a released migration is frozen: restore the file, and make the change in a new one"
    )
    assert (objects(conn), ledger(conn)) == before


def test_a_migration_is_breaking_if_its_header_says_so(conn: Connection, root: Path) -> None:
    install(conn, root=root)
    add_file(root, "migrations/0002_second.sql", "-- Second.\n--\n-- Breaking: it has to be.\nSELECT 1;\n")
    add_file(
        root, "migrations/0003_third.sql", "-- Third.\n--\n-- Not breaking: it need not be.\nSELECT 1;\n"
    )
    install(conn, root=root)
    flags = "SELECT version, is_breaking FROM lonny.migration ORDER BY version"
    assert conn.execute(flags).fetchall() == [(1, False), (2, True), (3, False)]


def test_a_queue_that_this_release_cannot_use_any_more_is_refused(conn: Connection) -> None:
    install(conn)
    conn.execute("INSERT INTO lonny.migration VALUES (9, 'later', 'x', '9.8.7', true, now())")
    conn.execute("INSERT INTO lonny.migration VALUES (10, 'latest', 'x', '9.9', false, now())")
    before = objects(conn), ledger(conn)
    for change in (install, plan, uninstall):
        with pytest.raises(InstallError) as error:
            change(conn)
        assert error.value.message == (
            'the queue in schema "lonny" has migration 9, of pylonny 9.8.7;'
            f" this is {__version__}, which does not know it"
        )
        assert error.value.hint == "upgrade pylonny"
    assert (objects(conn), ledger(conn)) == before


@pytest.mark.parametrize(
    "later",
    [
        "INSERT INTO lonny.migration VALUES (9, 'later', 'x', '9.8.7', false, now())",
        "UPDATE lonny.template SET package_version = '9.8.7', checksum = 'x'",
    ],
)
def test_a_queue_of_a_newer_release_is_left_alone(conn: Connection, later: str) -> None:
    install(conn, "lonny", "events")
    conn.execute(later.encode())
    conn.execute("CREATE OR REPLACE FUNCTION lonny._clock() RETURNS timestamptz RETURN now()")
    before = objects(conn), ledger(conn), source(conn)
    [(version,)] = conn.execute("SELECT max(version) FROM lonny.migration").fetchall()
    assert install(conn) == Installed("lonny", version, (), "events", "9.8.7")
    assert plan(conn) == Plan("lonny", version, (), (), "events", "9.8.7")
    with pytest.raises(InstallError) as error:
        install(conn, "lonny", "other")
    assert error.value.message == (
        'the queue in schema "lonny" is of pylonny 9.8.7;'
        f" this is {__version__}, which does not set its channels"
    )
    assert (objects(conn), ledger(conn), source(conn)) == before
    assert [found.package_version for found in status(conn)] == ["9.8.7"]


def test_a_plan_is_what_an_install_does(conn: Connection, root: Path) -> None:
    before = objects(conn)
    files = Templates().files
    assert plan(conn, "lonny", "events") == Plan(
        "lonny",
        None,
        tuple(file.path for file in files if file.version is not None),
        tuple(file.path for file in files if file.version is None),
        "events",
    )
    assert objects(conn) == before
    install(conn, "lonny", "events")
    assert plan(conn) == Plan("lonny", 1, (), (), "events")
    add_file(root, "migrations/0002_second.sql", "CREATE TABLE {{ schema }}.second ();\n")
    with (root / "functions/_clock.sql").open("a") as file:
        file.write("-- a change\n")
    before = objects(conn)
    expected = Plan("lonny", 1, ("migrations/0002_second.sql",), ("functions/_clock.sql",), "events")
    assert plan(conn, root=root) == expected
    assert objects(conn) == before
    install(conn, root=root)
    assert plan(conn, root=root) == Plan("lonny", 2, (), (), "events")


def test_an_install_goes_to_the_version_that_one_expects_or_nowhere(conn: Connection, root: Path) -> None:
    before = objects(conn)
    for attempt in (install, plan):
        with pytest.raises(InstallError) as error:
            attempt(conn, to=2)
        assert error.value.message == (
            'schema "lonny" would have migration 1 then, not 2: that is the last one of pylonny'
            f" {__version__}"
        )
        assert error.value.hint == "install the pylonny whose last migration that is"
    assert objects(conn) == before
    assert install(conn, to=1).version == 1
    add_file(root, "migrations/0002_second.sql", "CREATE TABLE {{ schema }}.second ();\n")
    with pytest.raises(InstallError, match="would have migration 2 then, not 1"):
        install(conn, root=root, to=1)
    assert install(conn, root=root, to=2).version == 2
    # Not known to this package, and newer, but what is expected.
    assert install(conn, to=2).newer == __version__


def test_what_every_install_runs_is_recorded(conn: Connection, root: Path) -> None:
    rows = "SELECT path, checksum, package_version, applied_at <= clock_timestamp() FROM lonny.template"
    install(conn, root=root)
    for _ in range(2):
        assert sorted(conn.execute(rows).fetchall()) == sorted(
            (file.path, file.checksum, __version__, True)
            for file in Templates(root=root).files
            if file.version is None
        )
        contents = (root / "install.sql").read_text()
        (root / "install.sql").write_text(
            contents.replace('{% include "functions/message_status.sql" %}', "")
        )
        install(conn, root=root)


def test_everything_that_is_created_is_known_to_uninstall(conn: Connection) -> None:
    install(conn)
    kinds = {"table": "TABLE", "view": "VIEW", "sequence": "SEQUENCE", "type": "TYPE", "function": "FUNCTION"}
    rows = conn.execute(
        """
        SELECT o.type, coalesce(o.name, trim('"' FROM split_part(split_part(o.identity, '.', 2), '(', 1)))
        FROM pg_depend d CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) o
        WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = 'lonny'::regnamespace
        """
    ).fetchall()
    found = {(kinds[kind], name) for kind, name in rows}
    ours = migrate.created(Templates().files)
    assert ours <= found
    assert {name for kind, name in found - ours if kind != "SEQUENCE"} == set()
    assert all(name.endswith("_id_seq") for _, name in found - ours)
