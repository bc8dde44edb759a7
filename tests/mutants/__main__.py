"""`make mutants`: break the SQL in one place at a time, and see that `make test` notices."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.mutants.mutants import MUTANTS, Mutant

_ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("README.md")
_UNTOUCHED = shutil.ignore_patterns(".*", "__pycache__")
# Of course these see every edit: they compare texts.
_NOT_ASKED = (
    "--ignore=tests/unit/test_mutants.py",
    "--deselect=tests/migration/test_releases.py::test_the_snapshot_of_this_release_is_what_it_installs",
)
_FAILED = re.compile(r"^FAILED (\S+?\.py::.*?)(?: - .*)?$", re.MULTILINE)
_HEAD = """\
# Mutants

Does a test fail when the SQL is wrong? Each line below is a small edit of the SQL, and a test of `make test`
that fails with it and passes without. The edits are in [mutants.py](mutants.py). This page is written by
`make mutants`, which tries all of them (`make mutants ARGS="--only ID"`: one, whose line is renewed).

| mutant | what it breaks | where | killed by |
|---|---|---|---|
"""
_ROW = re.compile(r"^\| ([a-z0-9-]+) \| .* \|$", re.MULTILINE)


class Tree:
    """A copy of the project, to be broken; the tests of it use this environment and its programs."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "tree"
        shutil.copytree(_ROOT, self._root, ignore=_UNTOUCHED)
        for name in (".ci", ".gitignore", ".venv"):
            if (_ROOT / name).exists():
                (self._root / name).symlink_to(_ROOT / name)
        self._sound: set[str] = set()
        self._unsound: set[str] = set()

    def killer(self, mutant: Mutant) -> str | None:
        """The first test that fails with the mutant and passes without it; None if no test does.

        Raises RuntimeError if something else than a test failed.
        """
        file = self._root / "sql" / "functions" / f"{mutant.function}.sql"
        original = mutant.original()
        while True:
            file.write_text(mutant.mutate(original), encoding="utf-8")
            test = self._first_to_fail(mutant.test()) or self._first_to_fail("tests", "pgtap")
            file.write_text(original, encoding="utf-8")
            if test is None or test in self._sound:
                return test
            (self._unsound if self._first_to_fail(test) else self._sound).add(test)

    def _first_to_fail(self, *tests: str) -> str | None:
        """The ID of it, or None."""
        options = ["--exitfirst", "--timeout=120", "--tb=short", "-p", "no:cacheprovider"]
        options += [f"--deselect={test}" for test in self._unsound]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *_NOT_ASKED, *tests],
            cwd=self._root,
            env=os.environ | {"PYTHONPATH": str(self._root), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return None
        if found := _FAILED.search(done.stdout):
            return found[1]
        raise RuntimeError(f"no test failed, but pytest did:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")


def main(arguments: Sequence[str]) -> int:
    """Try the mutants; 0 if each was killed."""
    parser = argparse.ArgumentParser(prog="make mutants ARGS=...", description=__doc__)
    parser.add_argument("--only", metavar="ID", action="append", help="this one (may be given again)")
    only: list[str] = parser.parse_args(arguments).only or []
    if unknown := set(only) - {mutant.id for mutant in MUTANTS}:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not only or mutant.id in only]
    survived = 0
    console = Console(highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="pylonny-mutants-") as folder,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        tree = Tree(Path(folder))
        task = progress.add_task("", total=len(chosen))
        for mutant in chosen:
            progress.update(task, description=mutant.id)
            begun = time.monotonic()
            killer = tree.killer(mutant)
            survived += killer is None
            console.print(
                f"{mutant.id}:",
                "[red]survived[/]" if killer is None else f"killed by {escape(killer)}",
                f"({time.monotonic() - begun:.0f} s)",
            )
            _write(mutant, killer)
            progress.advance(task)
    console.print(f"{len(chosen)} mutants, {len(chosen) - survived} killed.")
    return 1 if survived else 0


def _write(mutant: Mutant, killer: str | None) -> None:
    """Renew the mutant's line of the table."""
    text = TABLE.read_text(encoding="utf-8") if TABLE.exists() else ""
    rows = {row[1]: row[0] for row in _ROW.finditer(text)}
    test = f"`{killer.removeprefix('tests/')}`" if killer else "**nothing**"
    rows[mutant.id] = f"| {mutant.id} | {mutant.breaks} | {mutant.function} | {test} |"
    table = [rows[known.id] for known in MUTANTS if known.id in rows]
    TABLE.write_text(_HEAD + "\n".join(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
