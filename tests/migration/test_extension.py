"""The queue as an extension: created, used, updated, dumped, dropped; on a server that has its files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pylonny import __version__
from pylonny.cli import main
from pylonny.errors import InstallError
from pylonny.extension import DUMPED, RELEASES, render_extension, write_extension
from pylonny.migrate import grant, install, plan, revoke, status, uninstall
from pylonny.server import PrivateServer, ServerError, find_binaries
from pylonny.templates import render_install
from tests.migration.conftest import Connector, dump, objects
from tests.migration.next_version import change
from tests.migration.test_hostile import live
from tests.migration.test_moves import fill, go_on, move, states
from tests.migration.test_releases import RELEASES as SNAPSHOTS
from tests.migration.test_releases import checksums
from tests.migration.test_render import ledger, psql
from tests.support.databases import SETTINGS
from tests.support.sessions import Connection

README = (Path(__file__).parents[2] / "README.md").read_text()
NEXT = "0.2.0"  # made up, as tests/migration/next_version.py is
NAMES = [
    "lonny",
    "CAPITALS",
    "My Queue 1",
    "select",
    "x" * 63,
    "ä" * 31 + "x",
    "public.lonny",
    "%s -- /*\n🐘",
]


def copied(binaries: Path, copy: Path) -> Path:
    """The folder of the programs in a copy of a server, which has extensions of its own."""

    def config(what: str) -> Path:
        environment = os.environ | {"LD_LIBRARY_PATH": str(binaries.parent / "lib")}
        command = [str(binaries / "pg_config"), f"--{what}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return Path(done.stdout.strip())

    folders = {what: config(what) for what in ("bindir", "sharedir", "pkglibdir")}
    prefix = Path(os.path.commonpath(folders.values()))
    copies = {what: copy / folder.relative_to(prefix) for what, folder in folders.items()}
    # Programs and what they share are found by the place of the program itself.
    shutil.copytree(folders["bindir"], copies["bindir"])
    copies["sharedir"].mkdir(parents=True)
    for path in folders["sharedir"].iterdir():
        if path.name != "extension":
            (copies["sharedir"] / path.name).symlink_to(path)
    shutil.copytree(folders["sharedir"] / "extension", copies["sharedir"] / "extension")
    copies["pkglibdir"].symlink_to(folders["pkglibdir"])
    return copies["bindir"]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The folder of the server, and of the files."""
    folder = Path(tempfile.mkdtemp(prefix="pylonny-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[PrivateServer]:
    """A server that looks for extensions in `folder`: 18 is told to, an older one is a copy."""
    settings: dict[str, object] = dict(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        if is_told(find_binaries()):
            settings["extension_control_path"] = f"{home / 'share'}:$system"
        else:
            patch.setenv("PYLONNY_PG_BIN", str(copied(find_binaries(), home)))
        server = PrivateServer(home / "server", settings)
    with server:
        yield server


def is_told(binaries: Path) -> bool:
    """Whether a server can be told where extensions are."""
    return b"extension_control_path" in (binaries / "postgres").read_bytes()


@pytest.fixture(autouse=True)
def folder(server: PrivateServer, home: Path) -> Path:
    """Where the files of this release are, and those of no other."""
    share = home / "share"
    if not is_told(server.bin):
        share = Path(server.run("pg_config", "--sharedir").strip())
    for path in (share / "extension").glob("pylonny*"):
        path.unlink()
    write_extension(share / "extension", "events")
    return share / "extension"


@pytest.fixture
def next_root(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The templates of a next release, whose files are beside those of this one."""
    change(root)
    monkeypatch.setitem(RELEASES, NEXT, 2)
    for module in ("templates", "extension"):
        monkeypatch.setattr(f"pylonny.{module}.__version__", NEXT)
    names = [path.name for path in write_extension(folder, "events", root=root)]
    assert names == ["pylonny.control", "pylonny--0.2.0.sql", "pylonny--0.1.0--0.2.0.sql"]
    return root


@pytest.fixture
def mover(server: PrivateServer) -> Iterator[None]:
    """Drops the role that `fill` creates, when its databases are gone."""
    yield
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("DROP ROLE mover")


def create(conn: Connection, schema: str = "lonny", version: str | None = None) -> None:
    """Create the extension in a schema made for it."""
    name = sql.Identifier(schema)
    conn.execute(sql.SQL("CREATE SCHEMA {}").format(name))
    conn.execute(
        sql.SQL("CREATE EXTENSION pylonny SCHEMA {} VERSION {}").format(
            name, sql.Identifier(version or __version__)
        )
    )


def filled(conn: Connection, version: str | None = None) -> list[tuple[object, ...]]:
    """Create the extension and put messages of every state into it; the states."""
    create(conn, version=version)
    fill(conn)
    return states(conn)


def set_free(conn: Connection) -> None:
    """Make what the extension has members of nothing, so that a dump shows them."""
    # One after another: with a table go its types, from PostgreSQL 17 on.
    query = """
        SELECT o.type, o.identity
        FROM pg_depend d CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) o
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
          AND d.refobjid = (SELECT x.oid FROM pg_extension x WHERE x.extname = 'pylonny')
        ORDER BY d.classid = 'pg_type'::regclass, o.identity LIKE '%[]', o.identity LIMIT 1
        """
    count = 0
    while member := conn.execute(query).fetchone():
        conn.execute("ALTER EXTENSION pylonny DROP {} {}".format(*member).encode())
        count += 1
    assert count > 50
    conn.execute("DROP EXTENSION pylonny")


@pytest.mark.parametrize("name", NAMES)
def test_a_queue_lives_as_an_extension_of_who_is_no_superuser(
    conn: Connection, open_as: Connector, role: str, folder: Path, name: str
) -> None:
    write_extension(folder, name, name)
    schema = sql.Identifier(name)
    conn.execute(sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(schema, sql.Identifier(role)))
    before = objects(conn)
    theirs = open_as(role)
    theirs.execute(sql.SQL("CREATE EXTENSION pylonny SCHEMA {}").format(schema))
    live(theirs, name)
    [found] = status(theirs)
    assert (found.schema, found.owner, found.extension, found.drift) == (name, role, "pylonny", ())
    assert (found.event_channel, found.wake_channel, found.pending) == (name, name, ())
    theirs.execute("DROP EXTENSION pylonny")
    assert objects(conn) == before


@pytest.mark.parametrize("name", ['"', "'", "$function$", "\\", "'); DROP SCHEMA public CASCADE; --"])
def test_a_schema_whose_name_is_not_safe_is_refused(conn: Connection, name: str) -> None:
    conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    before = objects(conn)
    with pytest.raises(psycopg.Error, match='invalid character in extension "pylonny" schema'):
        conn.execute(sql.SQL("CREATE EXTENSION pylonny SCHEMA {}").format(sql.Identifier(name)))
    assert objects(conn) == before


@pytest.mark.parametrize("name", ["@extschema@", "@extowner@"])
def test_a_channel_in_which_postgresql_would_put_a_name_is_refused(name: str) -> None:
    for channels in ((name, None), (None, name)):
        with pytest.raises(Exception, match="cannot be the name of a channel in an extension"):
            render_extension(*channels)


@pytest.mark.parametrize(("name", "quoted"), [("lonny", "lonny"), ("My Queue 1", '"My Queue 1"')])
def test_the_extension_is_what_an_install_makes(
    server: PrivateServer, make_database: Callable[[], str], name: str, quoted: str
) -> None:
    installed, created = make_database(), make_database()
    with psycopg.connect(installed, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        install(conn, name, "events")
    with psycopg.connect(created, autocommit=True) as conn:
        create(conn, name)
        # All but the definitions of the functions, in which the schema is written in another way; and what it
        # has besides, for the roles to get their rights after an update.
        own = [("table", "template", f"{kind} roles_renew") for kind in ("constraint", "trigger")]
        found = [row[:3] for row in ledger(created, name)]
        assert set(own) <= set(found)
        assert [row for row in found if row not in own] == [row[:3] for row in ledger(installed, name)]
        set_free(conn)
        conn.execute(sql.SQL("DROP FUNCTION {}._roles_renew_later CASCADE").format(sql.Identifier(name)))
    made = dump(server, created).replace(f"(pg_catalog.parse_ident('{quoted}'))[1]", f"'{name}'")
    assert made == dump(server, installed).replace(f'"{name}"', quoted)


def test_one_has_it_once(conn: Connection) -> None:
    create(conn)
    before = objects(conn)
    with pytest.raises(psycopg.errors.DuplicateObject):
        create(conn, "another")
    conn.execute("DROP SCHEMA another")
    assert objects(conn) == before


def test_a_schema_with_a_queue_is_refused(server: PrivateServer, empty: str, conn: Connection) -> None:
    install(conn, event_channel="mine")
    conn.execute("SELECT lonny.message_create('a', 'stays', 1000)")
    before = objects(conn), dump(server, empty)
    with pytest.raises(psycopg.errors.DuplicateSchema) as error:
        conn.execute("CREATE EXTENSION pylonny SCHEMA lonny")
    assert error.value.diag.message_primary == (
        'schema "lonny" has a queue already, this script is for one that has none'
    )
    assert (objects(conn), dump(server, empty)) == before
    assert conn.execute("SELECT content FROM lonny.message").fetchall() == [(b"stays",)]


@pytest.mark.parametrize(
    "thing",
    [
        "TABLE public.message ()",
        "TYPE public.dequeued AS ()",
        "FUNCTION public._clock() RETURNS timestamptz LANGUAGE sql RETURN now()",
    ],
)
def test_what_others_have_in_the_schema_is_not_taken(conn: Connection, thing: str) -> None:
    conn.execute("CREATE TABLE public.mine ()")
    conn.execute(f"CREATE {thing}".encode())
    before = objects(conn)
    with pytest.raises(
        psycopg.Error, match=r"already exists|is not a member of extension|must be owner of function"
    ):
        conn.execute("CREATE EXTENSION pylonny")
    assert objects(conn) == before
    conn.execute(f"DROP {thing.partition('(')[0].partition(' AS')[0]}".encode())
    before = objects(conn)
    conn.execute("CREATE EXTENSION pylonny; DROP EXTENSION pylonny")
    assert objects(conn) == before


def test_a_role_that_may_not_create_anything_there_is_told(
    conn: Connection, open_as: Connector, role: str
) -> None:
    conn.execute("CREATE SCHEMA lonny")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="lonny"):
        open_as(role).execute("CREATE EXTENSION pylonny SCHEMA lonny")
    assert status(conn) == []


def test_install_and_uninstall_leave_it_alone(server: PrivateServer, empty: str, conn: Connection) -> None:
    create(conn)
    before = objects(conn), ledger(empty, "lonny")
    refusals: list[tuple[Callable[[], object], str]] = [
        (lambda: install(conn), "bring it up to date with  ALTER EXTENSION pylonny UPDATE"),
        (lambda: plan(conn), "bring it up to date with  ALTER EXTENSION pylonny UPDATE"),
        (lambda: uninstall(conn), "drop it with  DROP EXTENSION pylonny"),
    ]
    for refused, hint in refusals:
        with pytest.raises(InstallError) as error:
            refused()
        assert error.value.message == 'the queue in schema "lonny" belongs to the extension "pylonny"'
        assert error.value.hint == hint
    for script in (render_install(), render_install(from_version=1)):
        with pytest.raises(ServerError, match='schema "lonny" belongs to the extension "pylonny"'):
            psql(server, empty, script)
    assert (objects(conn), ledger(empty, "lonny")) == before


def test_a_part_of_it_is_not_dropped(conn: Connection) -> None:
    create(conn)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="extension pylonny requires it"):
        conn.execute("DROP TABLE lonny.message")


def test_what_depends_on_it_stops_a_drop_and_others_stay(conn: Connection) -> None:
    create(conn)
    conn.execute("CREATE VIEW v AS SELECT id FROM lonny.message")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        conn.execute("DROP EXTENSION pylonny")
    conn.execute("DROP VIEW v; CREATE TABLE lonny.mine (); DROP EXTENSION pylonny; TABLE lonny.mine")


def test_somebodys_change_is_drift(conn: Connection) -> None:
    create(conn)
    conn.execute("DROP INDEX lonny.message_ready_idx")
    [found] = status(conn)
    assert found.drift == ("table message: index message_ready_idx is missing",)


def test_roles_use_it(conn: Connection, open_as: Connector, role: str) -> None:
    create(conn)
    grant(conn, role, "producer", channel_prefix="mine")
    theirs = open_as(role)
    theirs.execute("SELECT lonny.message_create('mine', 'x', 0)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        theirs.execute("SELECT lonny.message_dequeue()")
    revoke(conn, role, "producer")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        theirs.execute("SELECT lonny.message_create('mine', 'x', 0)")


def test_psql_says_what_the_files_are_for(server: PrivateServer, empty: str, next_root: Path) -> None:
    del next_root
    files = render_extension()
    told = {
        "pylonny--0.2.0.sql": "CREATE EXTENSION pylonny",
        "pylonny--0.1.0--0.2.0.sql": "ALTER EXTENSION pylonny UPDATE TO '0.2.0'",
    }
    for name, statement in told.items():
        assert psql(server, empty, files[name]) == f'Use "{statement}" to load this file.\n'
    assert files == render_extension()


# Updates


def test_there_is_an_update_from_each_release() -> None:
    assert sorted(RELEASES) == [path.stem for path in SNAPSHOTS]
    for path in SNAPSHOTS:
        assert RELEASES[path.stem] == max(version for version, _ in checksums(path))


def test_an_update_loses_nothing_and_leaves_what_a_first_install_does(
    server: PrivateServer, mover: None, make_database: Callable[[], str], next_root: Path
) -> None:
    del mover
    updated, created = make_database(), make_database()
    with psycopg.connect(created, autocommit=True) as fresh:
        create(fresh, version=NEXT)
    with psycopg.connect(updated, autocommit=True) as conn:
        before = filled(conn, "0.1.0")
        mine = psycopg.connect(make_conninfo(updated, user="mover"), autocommit=True)
        with mine:
            mine.execute("SELECT lonny.message_create('mine', '9', 0)")
            conn.execute("SELECT lonny.message_cancel(9); SELECT setval('lonny.message_id_seq', 8)")
            conn.execute("ALTER EXTENSION pylonny UPDATE")
            # The role may call what has been put in the place of what it was granted.
            mine.execute("SELECT lonny.message_create('mine', '9', 0, label => 'new')")
            conn.execute("SELECT lonny.message_cancel(9); SELECT setval('lonny.message_id_seq', 8)")
        [found] = status(conn, root=next_root)
        assert (found.version, found.package_version, found.pending, found.drift) == (2, NEXT, (), ())
        assert found.event_channel == "events"
        # The first migration was run by another release.
        ours, theirs = (
            [row if isinstance(row[0], str) else row[:3] for row in ledger(dsn, "lonny")]
            for dsn in (updated, created)
        )
        assert ours == theirs
        members = "SELECT pg_describe_object(classid, objid, 0) FROM pg_depend WHERE deptype = 'e' ORDER BY 1"
        assert conn.execute(members).fetchall() == fresh_rows(created, members)
        assert states(conn) == before
        revoke(conn, "mover", "producer")
        # It keeps its right on the function that the update has renamed.
        conn.execute("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA lonny FROM mover")
        conn.execute("TRUNCATE lonny.message, lonny.wake, lonny.channel_policy")
        set_free(conn)
    with psycopg.connect(created, autocommit=True) as fresh:
        set_free(fresh)
    assert dump(server, updated) == dump(server, created)


def fresh_rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(query.encode()).fetchall()


def test_an_update_starts_from_its_release_or_not_at_all(
    empty: str, conn: Connection, next_root: Path
) -> None:
    del next_root
    create(conn, version="0.1.0")
    conn.execute("UPDATE lonny.migration SET checksum = 'x'")
    before = objects(conn), ledger(empty, "lonny")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="migrations that were changed"):
        conn.execute("ALTER EXTENSION pylonny UPDATE")
    assert (objects(conn), ledger(empty, "lonny")) == before


def test_it_is_the_schemas_owners_whoever_creates_and_updates_it(
    conn: Connection, role: str, next_root: Path
) -> None:
    # New functions would run with the rights of the superuser.
    conn.execute(sql.SQL("CREATE SCHEMA lonny AUTHORIZATION {}").format(sql.Identifier(role)))
    for statement in (
        "CREATE EXTENSION pylonny SCHEMA lonny VERSION '0.1.0'",
        "ALTER EXTENSION pylonny UPDATE",
    ):
        conn.execute(statement.encode())
        assert owners(conn) == {role}
        assert conn.execute("SELECT current_user").fetchone() == ("postgres",)
    [found] = status(conn, root=next_root)
    assert (found.owner, found.drift) == (role, ())
    # public is everybody's who owns the database.
    conn.execute("DROP EXTENSION pylonny; CREATE EXTENSION pylonny SCHEMA public")
    assert [found.owner for found in status(conn)] == ["postgres"]
    conn.execute("DROP EXTENSION pylonny")


def test_the_readmes_statements(conn: Connection) -> None:
    section = README.split("### As an extension\n")[1].split("\n### ")[0]
    [statements] = re.findall(r"^```sql\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    conn.execute(statements.encode())
    assert status(conn) == []


def test_a_transaction_goes_on_with_its_settings(open_as: Connector, next_root: Path) -> None:
    del next_root
    conn = open_as(autocommit=False)
    conn.execute("CREATE ROLE owner; CREATE SCHEMA lonny AUTHORIZATION owner")
    conn.execute("SET LOCAL lock_timeout = '7s'; SET LOCAL client_min_messages = error")
    names = ("role", "search_path", "lock_timeout", "client_min_messages", "standard_conforming_strings")

    def settings() -> list[object]:
        return [conn.execute(f"SHOW {name}".encode()).fetchone() for name in names]

    before = settings()
    for statement in (
        "CREATE EXTENSION pylonny SCHEMA lonny VERSION '0.1.0'",
        "ALTER EXTENSION pylonny UPDATE",
    ):
        conn.execute(statement.encode())
        assert owners(conn) == {"owner"}
        assert settings() == before
    conn.rollback()


def owners(conn: Connection) -> set[str]:
    """To whom tables and functions belong."""
    rows = conn.execute(
        """
        SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'lonny'::regnamespace
        UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'lonny'::regnamespace
        """
    )
    return {name for (name,) in rows.fetchall()}


def test_an_update_needs_read_committed(conn: Connection, next_root: Path) -> None:
    del next_root
    create(conn, version="0.1.0")
    conn.execute("SET default_transaction_isolation = 'serializable'")
    with pytest.raises(psycopg.errors.ActiveSqlTransaction, match="needs the isolation level READ COMMITTED"):
        conn.execute("ALTER EXTENSION pylonny UPDATE")


def test_an_update_waits_only_so_long(empty: str, conn: Connection, folder: Path, next_root: Path) -> None:
    del next_root
    create(conn, version="0.1.0")
    update = folder / "pylonny--0.1.0--0.2.0.sql"
    assert "lock_timeout = 2000;" in update.read_text()
    update.write_text(update.read_text().replace("lock_timeout = 2000;", "lock_timeout = 10;"))
    before = objects(conn)
    with psycopg.connect(empty) as working:
        working.execute("SELECT lonny.message_create('a', 'content', 1000)")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            conn.execute("ALTER EXTENSION pylonny UPDATE")
        assert objects(conn) == before
    conn.execute("ALTER EXTENSION pylonny UPDATE")


# Dumps


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_dump_and_restore(
    server: PrivateServer, mover: None, make_database: Callable[[], str], form: str
) -> None:
    del mover
    source, target = make_database(), make_database()
    with psycopg.connect(source, autocommit=True) as conn:
        before = filled(conn)
    move(server, source, target, form)
    with psycopg.connect(target, autocommit=True) as conn:
        [found] = status(conn)
        assert found.extension == "pylonny"
        go_on(conn, before)


@pytest.fixture
def owner(server: PrivateServer) -> Iterator[str]:
    """A role for databases that are gone before it."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("CREATE ROLE owner LOGIN")
        yield "owner"
        conn.execute("DROP ROLE owner")


def test_who_restores_a_dump_and_what_else_is_in_it_does_not_matter(
    server: PrivateServer, owner: str, mover: None, make_database: Callable[[], str]
) -> None:
    del mover
    source, target = make_database(), make_database()
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA lonny AUTHORIZATION owner; SET ROLE owner")
        conn.execute("CREATE EXTENSION pylonny SCHEMA lonny")
        conn.execute("RESET ROLE")
        fill(conn)
        # These come first in a dump.
        conn.execute("CREATE EXTENSION hstore SCHEMA lonny")
        conn.execute("CREATE COLLATION lonny.mine (provider = libc, locale = 'C')")
        before = states(conn)
    with psycopg.connect(target, autocommit=True) as conn:
        database = sql.Identifier(conn.info.dbname)
        conn.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = serializable").format(database)
        )
    move(server, source, target, "plain")
    with psycopg.connect(make_conninfo(target, user=owner), autocommit=True) as conn:
        conn.execute("SET default_transaction_isolation = 'read committed'")
        assert {name for name in owners(conn) if name != "postgres"} == {owner}
        [found] = status(conn)
        assert (found.owner, found.readable, found.drift) == (owner, True, ())
        go_on(conn, before)


def test_a_dump_is_restored_where_the_next_release_is(
    server: PrivateServer,
    mover: None,
    make_database: Callable[[], str],
    root: Path,
    request: pytest.FixtureRequest,
) -> None:
    del mover
    source, target = make_database(), make_database()
    with psycopg.connect(source, autocommit=True) as conn:
        before = filled(conn)
    request.getfixturevalue("next_root")
    script = server.run("pg_dump", f"--dbname={source}")
    printed = server.run("psql", "--no-psqlrc", "--quiet", f"--dbname={target}", stdin=script)
    # The one thing that a dump says of an extension's functions: what was granted on them.
    errors = [line for line in printed.splitlines() if "ERROR" in line]
    assert len(errors) == 1
    assert "function lonny.message_create(text, bytea, bigint, bigint) does not exist" in errors[0]
    with psycopg.connect(target, autocommit=True) as conn:
        [found] = status(conn, root=root)
        assert (found.package_version, found.drift) == (NEXT, ())
        assert states(conn) == before
        grant(conn, "mover", "producer", channel_prefix="mine")
        mine = psycopg.connect(make_conninfo(target, user="mover"), autocommit=True)
        with mine:
            mine.execute("SELECT lonny.message_create('mine', 'content', 1000, label => 'new')")


def test_rights_on_what_an_update_has_made_are_in_a_dump(
    server: PrivateServer, mover: None, make_database: Callable[[], str], next_root: Path
) -> None:
    del mover, next_root
    source, target = make_database(), make_database()
    with psycopg.connect(source, autocommit=True) as conn:
        filled(conn, "0.1.0")
        grant(conn, "mover", "consumer")
        conn.execute("ALTER EXTENSION pylonny UPDATE")
        rights = (
            "SELECT p.oid::regprocedure::text, p.proacl::text FROM pg_proc p"
            " WHERE p.pronamespace = 'lonny'::regnamespace AND p.proname <> '_roles_renew_later' ORDER BY 1"
        )
        granted = conn.execute(rights.encode()).fetchall()
    move(server, source, target, "plain")
    assert fresh_rows(target, rights) == granted
    with psycopg.connect(make_conninfo(target, user="mover"), autocommit=True) as mine:
        for call in ("message_create('mine', 'x', 0)", "message_dequeue()"):
            mine.execute(f"SELECT lonny.{call}".encode())


def test_what_is_in_a_dump_was_thought_about(conn: Connection) -> None:
    create(conn)
    names = {name for (name,) in conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'lonny'::regnamespace AND relkind IN ('r', 'S')"
    ).fetchall()}  # fmt: skip
    made_anew = {"migration", "template", "object"}
    hints = {"rotation", "wake_rotation", "generation", "generation_walk", "timer_mark"} | {
        "generation_at",
        "generation_horizon",
        "late_horizon",
        "timer_floor",
    }
    sleep = {"sleeper", "sleeper_at", "wake_up"}
    assert names == {*DUMPED} | made_anew | hints | sleep
    unlogged = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'lonny'::regnamespace AND relpersistence = 'u'"
    )
    lost = {name for (name,) in conn.execute(unlogged).fetchall()}
    assert hints | sleep <= lost  # a crash takes these too


# The command


def test_the_command(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    empty: str,
    conn: Connection,
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = main(arguments)
        out, err = capsys.readouterr()
        return done, out.rstrip("\n"), err.rstrip("\n")

    out = tmp_path / "a" / "b"
    names = ["pylonny.control", f"pylonny--{__version__}.sql"]
    assert run("extension", "--out", str(out), "--event-channel", "events") == (
        0,
        "\n".join(f"{out / name}" for name in names),
        "",
    )
    assert {path.name: path.read_text() for path in out.iterdir()} == render_extension("events")
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "pylonny", "extension", "--out", str(tmp_path / "file")]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("python -m pylonny extension: ")
    assert len(failed.stderr.splitlines()) == 1

    create(conn)
    assert run("status")[1].splitlines() == [
        "SCHEMA  VERSION  PYLONNY            EVENT CHANNEL  WAKE CHANNEL  OWNER",
        f"lonny   1        {__version__} (extension)  events         none          postgres",
    ]
    refused = 'the queue in schema "lonny" belongs to the extension "pylonny"'
    update, drop = "ALTER EXTENSION pylonny UPDATE", "DROP EXTENSION pylonny"
    for arguments, remedy in (
        (["install"], f"bring it up to date with {update}"),
        (["install", "--dry-run"], f"bring it up to date with {update}"),
        (["uninstall", "--yes"], f"drop it with {drop}"),
    ):
        assert run(*arguments) == (1, "", f"python -m pylonny {arguments[0]}: {refused}; {remedy}")
    assert run("check") == (0, 'Nothing is wrong with the queue in schema "lonny".', "")
