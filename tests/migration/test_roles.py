"""What was granted to roles outlives installs, upgrades, renamings and dumps, and goes with the queue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import DependentObjectsStillExist, InsufficientPrivilege

from pylonny.cli import main
from pylonny.errors import InstallError
from pylonny.migrate import grant, install, revoke, status, uninstall
from pylonny.server import PrivateServer
from tests.migration import next_version
from tests.migration.conftest import Connector, Rows, dump
from tests.support.sessions import Connection

CREATE = "SELECT lonny.message_create('a', 'content', 1000)"


def roles(conn: Connection, schema: str = "lonny") -> Rows:
    """Each role, what it is, and the channels that it is bound to."""
    query = sql.SQL("SELECT role::text, kind, channel_prefix FROM {}() ORDER BY role::oid, kind")
    return conn.execute(query.format(sql.Identifier(schema, "_roles"))).fetchall()


def refused(conn: Connection, statement: LiteralString) -> str:
    with pytest.raises(InsufficientPrivilege) as error:
        conn.execute(statement)
    return error.value.diag.message_primary or ""


@pytest.mark.parametrize("schema", ["lonny", 'My "Queue" 1', "a$function$ü", "it's"])
def test_a_role_may_and_may_no_more(conn: Connection, open_as: Connector, role: str, schema: str) -> None:
    install(conn, schema)
    theirs = open_as(role)
    create = sql.SQL("SELECT {}('a/b', 'content', 1000)").format(sql.Identifier(schema, "message_create"))
    for prefix in (None, "a/"):
        grant(conn, role, "producer", schema, prefix)
        assert roles(conn, schema) == [(f'"{role}"', "producer", prefix)]
        theirs.execute(create)
    revoke(conn, role, "producer", schema)
    assert roles(conn, schema) == []
    with pytest.raises(InsufficientPrivilege):
        theirs.execute(create)


def test_an_install_keeps_what_was_granted(
    conn: Connection, open_as: Connector, server: PrivateServer, empty: str, role: str
) -> None:
    install(conn)
    grant(conn, role, "producer", channel_prefix="a")
    grant(conn, role, "operator")
    before = dump(server, empty)
    install(conn)
    assert dump(server, empty) == before
    conn.execute("DROP FUNCTION lonny.message_create, lonny.channel_explain, lonny.version_status")
    conn.execute(sql.SQL("REVOKE EXECUTE ON FUNCTION lonny.check FROM {}").format(sql.Identifier(role)))
    theirs = open_as(role)
    install(conn)
    assert dump(server, empty) == before
    theirs.execute(CREATE)
    assert "only in channels that begin with 'a'" in refused(theirs, CREATE.replace("'a'", "'b'"))


def test_the_namesake_of_a_function_that_an_upgrade_has_renamed_is_granted_too(
    conn: Connection, open_as: Connector, role: str, root: Path
) -> None:
    install(conn)
    grant(conn, role, "producer")
    grant(conn, role, "consumer")
    theirs = open_as(role)
    theirs.execute(CREATE)
    next_version.change(root)
    install(conn, root=root)
    assert conn.execute("SELECT to_regprocedure('lonny._message_create_1(text, bytea, bigint, bigint)')")
    theirs.execute("SELECT lonny.message_create('a', 'content', 1000, label => 'new')")
    labels = [
        theirs.execute("SELECT label FROM lonny.message_dequeue()").fetchall(),
        theirs.execute("SELECT label FROM lonny.message_dequeue()").fetchall(),
    ]
    assert labels == [[(None,)], [("new",)]]


def test_a_role_that_is_renamed_is_the_same_and_one_that_has_its_name_is_not(
    conn: Connection, open_as: Connector, role: str
) -> None:
    install(conn)
    grant(conn, role, "producer", channel_prefix="mine")
    names = {"old": sql.Identifier(role), "new": sql.Identifier("renamed role")}
    conn.execute(sql.SQL("ALTER ROLE {old} RENAME TO {new}").format(**names))
    try:
        conn.execute(sql.SQL("CREATE ROLE {old} LOGIN").format(**names))
        install(conn)
        assert roles(conn) == [('"renamed role"', "producer", "mine")]
        assert "only in channels that begin with 'mine'" in refused(open_as("renamed role"), CREATE)
        assert "permission denied for schema lonny" in refused(open_as(role), CREATE)
    finally:
        conn.execute(sql.SQL("DROP ROLE IF EXISTS {old}").format(**names))
        conn.execute(sql.SQL("ALTER ROLE {new} RENAME TO {old}").format(**names))


def test_a_role_is_dropped_with_what_it_was_granted(conn: Connection) -> None:
    install(conn)
    conn.execute("CREATE ROLE short_lived LOGIN")
    grant(conn, "short_lived", "producer", channel_prefix="mine")
    with pytest.raises(DependentObjectsStillExist):
        conn.execute("DROP ROLE short_lived")
    conn.execute("DROP OWNED BY short_lived; DROP ROLE short_lived")
    assert roles(conn) == []
    install(conn)
    assert [found.drift for found in status(conn)] == [()]
    conn.execute("CREATE ROLE short_lived LOGIN")
    install(conn)
    assert roles(conn) == []
    grant(conn, "short_lived", "consumer")
    revoke(conn, "short_lived", "consumer")
    conn.execute("DROP ROLE short_lived")


def test_a_dump_has_what_was_granted(
    conn: Connection,
    server: PrivateServer,
    make_database: Callable[[], str],
    empty: str,
    role: str,
) -> None:
    install(conn, "My Q")
    grant(conn, role, "producer", "My Q", "mine")
    grant(conn, role, "consumer", "My Q")
    script = server.run("pg_dump", f"--dbname={empty}")
    restored = make_database()
    server.run(
        "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={restored}", stdin=script
    )
    with psycopg.connect(restored) as theirs:
        assert roles(theirs, "My Q") == [(f'"{role}"', "consumer", None), (f'"{role}"', "producer", "mine")]
        install(theirs, "My Q")
    assert dump(server, restored) == dump(server, empty)
    with psycopg.connect(make_conninfo(restored, user=role)) as theirs:
        theirs.execute("""SELECT "My Q".message_create('mine', 'content', 1000)""")
        refused(theirs, """SELECT "My Q".message_create('other', 'content', 1000)""")
    with psycopg.connect(restored) as theirs:
        theirs.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))


# Who grants


@pytest.fixture
def installer(conn: Connection, role: str) -> str:
    """A role that owns a schema, and nothing else."""
    conn.execute(sql.SQL("CREATE SCHEMA lonny AUTHORIZATION {}").format(sql.Identifier(role)))
    return role


def test_an_installer_without_any_other_right_grants(
    conn: Connection, open_as: Connector, installer: str
) -> None:
    owner = open_as(installer)
    install(owner)
    conn.execute("CREATE ROLE worker LOGIN")
    try:
        grant(owner, "worker", "producer", channel_prefix="a")
        grant(conn, "worker", "consumer")  # as a superuser may
        theirs = open_as("worker")
        theirs.execute(CREATE)
        assert theirs.execute("SELECT channel FROM lonny.message_dequeue()").fetchone() == ("a",)
        with pytest.raises(InstallError) as error:
            revoke(theirs, "worker", "consumer")
        assert error.value.message == f'the queue in schema "lonny" belongs to role "{installer}"'
        install(owner)
        revoke(owner, "worker", "consumer")
        assert roles(conn) == [("worker", "producer", "a")]
    finally:
        conn.execute("DROP OWNED BY worker; DROP ROLE worker")


def test_an_installer_in_a_schema_of_another_says_what_its_owner_has_to_grant(
    conn: Connection, open_as: Connector, role: str
) -> None:
    conn.execute("CREATE SCHEMA lonny")
    conn.execute(sql.SQL("GRANT CREATE, USAGE ON SCHEMA lonny TO {}").format(sql.Identifier(role)))
    owner = open_as(role)
    install(owner)
    conn.execute("CREATE ROLE worker LOGIN")
    try:
        with pytest.raises(InstallError) as error:
            grant(owner, "worker", "producer")
        assert error.value.message == (
            f'role "{role}" may not let "worker" use schema "lonny", which is not its own'
        )
        assert error.value.hint == "Have its owner run  GRANT USAGE ON SCHEMA lonny TO worker  and try again."
        conn.execute("GRANT USAGE ON SCHEMA lonny TO worker")
        grant(owner, "worker", "producer")
        open_as("worker").execute(CREATE)
        revoke(owner, "worker", "producer")
        assert roles(conn) == []
    finally:
        conn.execute("DROP OWNED BY worker; DROP ROLE worker")


def test_an_uninstall_takes_it_back_and_the_schema_stays_as_it_was(
    conn: Connection, server: PrivateServer, empty: str, role: str
) -> None:
    conn.execute("CREATE SCHEMA lonny")
    before = dump(server, empty)
    install(conn)
    grant(conn, role, "producer", channel_prefix="a")
    grant(conn, role, "operator")
    uninstall(conn)
    assert dump(server, empty) == before


def test_a_damaged_queue_is_uninstalled_all_the_same(conn: Connection, role: str) -> None:
    install(conn)
    grant(conn, role, "producer")
    conn.execute("DROP FUNCTION lonny.role_revoke")
    assert uninstall(conn).dropped_schema


# The command


def test_the_command(
    conn: Connection,
    open_as: Connector,
    empty: str,
    role: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--dsn", empty])
        out, err = capsys.readouterr()
        return code, out.rstrip("\n"), err.rstrip("\n")

    def failed(command: str, reason: str) -> tuple[int, str, str]:
        return 1, "", f"python -m pylonny {command}: {reason}"

    missing = (
        'there is no queue of pylonny in schema "lonny"; see what is installed with python -m pylonny status'
    )
    assert run("grant", role, "--as", "producer") == failed("grant", missing)
    assert run("revoke", role, "--as", "producer") == failed("revoke", missing)
    install(conn)
    place = f'the queue in schema "lonny" of database "{conninfo_to_dict(empty)["dbname"]}"'
    assert run("grant", role, "--as", "operator") == (
        0,
        f'Granted: role "{role}" is an operator of {place}.',
        "",
    )
    assert run("grant", role, "--as", "producer", "--channel-prefix", "a/") == (
        0,
        f'Granted: role "{role}" is a producer of {place}, in channels that begin with "a/".',
        "",
    )
    assert roles(conn) == [(f'"{role}"', "operator", None), (f'"{role}"', "producer", "a/")]
    assert "only in channels that begin with 'a/'" in refused(open_as(role), CREATE)
    assert run("revoke", role, "--as", "operator") == (
        0,
        f'Revoked: role "{role}" is not an operator of {place}.',
        "",
    )
    nobody = 'role "no body" does not exist; Create it with CREATE ROLE "no body" LOGIN or correct the name.'
    assert run("grant", "no body", "--as", "consumer") == failed("grant", nobody)
    assert run("revoke", "no body", "--as", "consumer") == failed("revoke", nobody)
    assert run("grant", role, "--as", "producer", "--channel-prefix", "") == failed(
        "grant",
        "invalid channel_prefix: ''; Give 1 to 512 bytes, or NULL for all channels.",
    )
    assert run("grant", role, "--as", "consumer", "--channel-prefix", "a")[::2] == (
        2,
        "python -m pylonny grant: --channel-prefix is for producers; leave it out, or give --as producer",
    )
    assert run("grant", role, "--as", "consumer", "--schema", "other") == failed(
        "grant", missing.replace('"lonny"', '"other"')
    )
