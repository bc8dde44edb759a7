"""The package: built, installed into an environment that has nothing else than it says it needs, and used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from packaging.requirements import Requirement

from pylonny import __version__
from pylonny.templates import render_install
from tests.support.databases import SQL

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = SQL.parent
WHEEL = f"pylonny-{__version__}-py3-none-any.whl"


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a command prints; it has to succeed."""
    # Nothing of the tests' own environment may help it.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_"))}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=clean | (env or {}), cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(source: Path, folder: Path, target: str) -> Path:
    """The sdist, wheel or editable wheel of a source tree."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, cwd=source)
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("editable"), "wheel:editable")


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_the_wheel_has_the_package_and_the_templates_and_nothing_else(wheel: Path) -> None:
    found = contents(wheel)
    assert wheel.name == WHEEL
    package = {path for path in (ROOT / "pylonny").rglob("*") if path.suffix in (".py", ".typed")}
    expected = {path.relative_to(ROOT).as_posix(): path for path in package}
    expected |= {f"pylonny/sql/{path.relative_to(SQL).as_posix()}": path for path in SQL.rglob("*.*")}
    theirs = {name for name in found if ".dist-info/" not in name}
    assert theirs == set(expected)
    assert all(found[name] == path.read_bytes() for name, path in expected.items())


def test_the_sdist_makes_the_same_wheel_and_has_the_tests(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as file:
        file.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    assert unpacked.name == f"pylonny-{__version__}"
    assert (unpacked / "tests" / "integration" / Path(__file__).name).is_file()
    assert (unpacked / "Makefile").is_file()
    assert contents(build(unpacked, tmp_path / "wheel", "wheel")) == contents(wheel)


# An environment


@dataclass(frozen=True)
class Environment:
    """A virtual environment with a pylonny in it."""

    folder: Path
    kind: str
    variables: dict[str, str]

    def run(self, *command: str) -> str:
        program, *arguments = command
        return run(self.folder / "bin" / program, *arguments, env=self.variables, cwd=self.folder)


def needed(name: str, extras: frozenset[str] = frozenset()) -> Iterator[Distribution]:
    """What a distribution needs, and what that needs, as installed here."""
    for text in distribution(name).requires or []:
        requirement = Requirement(text)
        contexts = [{"extra": extra} for extra in extras or {""}]
        if requirement.marker is None or any(map(requirement.marker.evaluate, contexts)):
            yield distribution(requirement.name)
            yield from needed(requirement.name, frozenset(requirement.extras))


@pytest.fixture(scope="module", params=["wheel", "editable", "zip"])
def environment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, wheel: Path, editable: Path
) -> Environment:
    """Empty, but for `pip install 'pylonny[binary]'`; zip: of pylonny only the wheel, in the path."""
    folder = tmp_path_factory.mktemp(request.param)
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    [site] = (folder / "lib").glob("python*/site-packages")
    for found in needed("pylonny", frozenset({"binary"})):
        for file in found.files or []:
            if ".." not in file.parts and file.suffix != ".pyc":
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), target)
    if request.param == "zip":
        return Environment(folder, "zip", {"PYTHONPATH": str(wheel)})
    built = wheel if request.param == "wheel" else editable
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", built)
    run(*pip, "check")
    return Environment(folder, request.param, {})


def commands(environment: Environment) -> Iterator[tuple[str, ...]]:
    yield "python", "-m", "pylonny"
    if environment.kind != "zip":
        yield ("pylonny",)


def test_it_is_the_one_that_was_installed(environment: Environment) -> None:
    code = "import pylonny, sys; print(pylonny.__file__); print(pylonny.__version__)"
    path, version = environment.run("python", "-c", code).splitlines()
    places = {"wheel": str(environment.folder), "editable": str(ROOT / "pylonny"), "zip": f"/{WHEEL}/"}
    assert places[environment.kind] in path
    assert version == __version__


def test_the_command_is_there_and_says_what_it_would_run(environment: Environment) -> None:
    for command in commands(environment):
        assert environment.run(*command, "--version") == f"pylonny {__version__}\n"
        rendered = environment.run(*command, "render", "--schema", "jobs", "--no-event-channel")
        assert rendered == render_install("jobs")


def test_a_queue_is_installed_and_used(environment: Environment, database: str) -> None:
    code = f"""
import psycopg
from pylonny import Message, Queue

with psycopg.connect({database!r}, autocommit=True) as conn:
    queue = Queue("packaged")
    queue.check_version(conn)
    queue.message.create(conn, content="hello", lock_ms=1000)
    match queue.dequeue(conn):
        case Message() as message:
            print(message.content.text(), message.delete(conn).value)
"""
    for command in commands(environment):
        options = ("--schema", "packaged", "--dsn", database)
        assert "Installed: " in environment.run(*command, "install", *options)
        assert environment.run("python", "-c", code) == "hello MESSAGE_DELETED\n"
        assert "Uninstalled: " in environment.run(*command, "uninstall", "--yes", *options)
    with psycopg.connect(database) as conn:
        assert conn.execute("SELECT to_regnamespace('packaged')").fetchone() == (None,)


def test_each_extra_is_what_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text()
    extras = {
        extra.strip()
        for names in re.findall(r"pylonny\[([a-z, ]+)\]|`\[([a-z]+)\]`", readme)
        for name in names
        for extra in name.split(",")
        if extra
    }
    provided = set(distribution("pylonny").metadata.get_all("Provides-Extra") or [])
    assert extras
    assert extras <= provided
