"""Every pair of operations, interleaved: isolationtester's output is as expected/ has it.

PYLONNY_EXPECTED=write in the environment has the files written anew, to be read before they are committed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.isolation.specs import PREPARE, WAITERS, specs
from tests.support.queue import stop_clock

if TYPE_CHECKING:
    from pylonny.server import PrivateServer

SPECS = specs()
# Of those about a channel make test is content with a few.
FEW = ["channel_create", "channel_dequeue", "channel_delete"]
PAIRS = [
    pytest.param(name, marks=() if name in FEW or name.startswith("message") else pytest.mark.at_length)
    for name in SPECS
]
EXPECTED = Path(__file__).parent / "expected"


@pytest.fixture
def prepared(database: str) -> str:
    with psycopg.connect(database, autocommit=True) as conn:
        stop_clock(conn)
        conn.execute(PREPARE)
    return database


@pytest.mark.parametrize("name", PAIRS)
def test_pair(server: PrivateServer, prepared: str, name: str) -> None:
    tester = server.bin.parent / "lib" / "pgxs" / "src" / "test" / "isolation" / "isolationtester"
    assert tester.exists(), f"{tester} not found: install it (Debian: apt-get install postgresql-client-15)"
    found = server.run(str(tester), prepared, stdin=SPECS[name])
    file = EXPECTED / f"{name}.out"
    if os.environ.get("PYLONNY_EXPECTED") == "write":
        file.write_text(found)
    assert found == file.read_text()


@pytest.mark.parametrize("name", SPECS)
def test_it_is_expected_that_none_errs_or_deadlocks_and_none_waits_but_for_its_message(name: str) -> None:
    expected = (EXPECTED / f"{name}.out").read_text()
    assert expected.count("starting permutation") == SPECS[name].count("\npermutation")
    assert "ERROR" not in expected
    waiting = set(re.findall(r"^step (\w+): .*<waiting \.\.\.>$", expected, re.MULTILINE))
    assert waiting <= (WAITERS if name.startswith("message") else set())
    # check finds nothing, whoever commits first.
    faults = re.findall(r"^kind\|message_id\|found\n-+\+-+\+-+\n(.*)$", expected, re.MULTILINE)
    assert set(faults) == {"(0 rows)"}


def test_there_is_no_other_expected_file() -> None:
    assert {file.stem for file in EXPECTED.iterdir()} == set(SPECS)
