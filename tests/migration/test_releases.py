"""The releases that there were: tests/releases has what each of them installed, from make snapshot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pylonny import __version__
from pylonny.migrate import install, status
from pylonny.server import PrivateServer
from pylonny.templates import Templates, render_install
from tests.migration.conftest import dump
from tests.support.sessions import Connection

RELEASES = sorted((Path(__file__).parents[1] / "releases").glob("*.sql"))
releases = pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)

_LEDGER_ROW = re.compile(
    r"VALUES \((\d+), '\w+', '([0-9a-f]{64})', '[\d.]+', (?:true|false), clock_timestamp"
)


def checksums(release: Path) -> Iterator[tuple[int, str]]:
    for version, checksum in _LEDGER_ROW.findall(release.read_text()):
        yield int(version), checksum


def psql(server: PrivateServer, dsn: str, release: Path) -> None:
    server.run(
        "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={dsn}", f"--file={release}"
    )


def test_there_are_releases() -> None:
    assert RELEASES


def test_the_snapshot_of_this_release_is_what_it_installs() -> None:
    [release] = [path for path in RELEASES if path.stem == __version__]
    assert release.read_text() == render_install(), "make snapshot, until it is released"


@releases
def test_no_migration_was_changed_after_its_release(release: Path) -> None:
    ours = {(file.version, file.checksum) for file in Templates().files}
    theirs = set(checksums(release))
    assert theirs
    assert theirs <= ours


@releases
def test_every_release_is_brought_up_to_date(
    server: PrivateServer, empty: str, conn: Connection, release: Path
) -> None:
    psql(server, empty, release)
    conn.execute("SELECT lonny.message_create('a', 'content', 1000)")
    install(conn)
    [found] = status(conn)
    assert (found.package_version, found.pending, found.drift) == (__version__, (), ())
    upgraded = dump(server, empty)
    conn.execute("DROP SCHEMA lonny CASCADE")
    install(conn)
    assert upgraded == dump(server, empty)
