"""The Makefile: the commands behind its targets, and what is said where something is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROOF = (
    "tests/model tests/proof tests/isolation tests/integration/test_pgbouncer.py"
    " tests/migration/test_upgrade.py"
)
PACKAGE = "postgresql-N-pgtap"


def run(*command: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    # Nothing else: a make that runs these tests hands its own options and variables down.
    environment = {"PATH": path or os.environ["PATH"]}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["demo"], "-m pylonny.demo"),
        (["demo", "KEEP=1"], "-m pylonny.demo --keep"),
        (["test"], "-m pytest --numprocesses auto --dist worksteal"),
        (["test", "ARGS=-k heartbeat", "JOBS=1"], "-m pytest --numprocesses 1 --dist worksteal -k heartbeat"),
        (["mutants", "ARGS=--only delete-unfenced"], "-m tests.mutants --only delete-unfenced"),
        (["proof"], f"-m pytest {PROOF} --hypothesis-profile=proof"),
        (["soak"], "-m tests.soak --minutes 30"),
        (["soak", "MINUTES=3"], "-m tests.soak --minutes 3"),
        (["render"], "-m pylonny render --schema 'lonny'"),
        (
            ["render", "SCHEMA=My Q", "EVENT_CHANNEL=e"],
            "-m pylonny render --schema 'My Q' --event-channel 'e'",
        ),
    ],
)
def test_a_target_ends_in_its_command(arguments: list[str], command: str) -> None:
    done = run("make", "--dry-run", "PYTHON=python3", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].strip() == f".venv/bin/python {command}"


def test_help_shows_every_target_that_one_may_want() -> None:
    shown = re.findall(r"^  make ([a-z-]+) +\S", run("make").stdout, re.MULTILINE)
    expected = {
        "help",
        "demo",
        "test",
        "proof",
        "soak",
        "lint",
        "bench",
        "prove",
        "mutants",
        "render",
        "snapshot",
        "docs",
        "test-all",
        "coverage",
        "ack",
        "pins",
        "pinned",
        "clean",
    }
    assert expected <= set(shown)


def test_ci_runs_lint_test_and_coverage_with_pinned_requirements() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-4:] == [
        "make pinned",
        "make lint",
        "make test",
        "make coverage",
    ]


def test_where_apt_is_not_it_says_what_to_install_and_fails(tmp_path: Path) -> None:
    done = run("/bin/sh", "tests/support/apt-install.sh", PACKAGE, path=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"no apt-get here: install {PACKAGE} (Debian's names, N for a version of PostgreSQL)\n"
    )


def test_without_pgtap_and_apt_make_does_not_go_on(tmp_path: Path) -> None:
    for name in ("sh", "ls"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    make = str(shutil.which("make"))
    done = run(make, "pgtap", f"PGTAP_SQL={tmp_path}/none", path=str(tmp_path))
    assert done.returncode == 2
    assert f"no apt-get here: install {PACKAGE} " in done.stderr
