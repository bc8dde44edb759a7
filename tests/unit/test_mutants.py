"""The list of `make mutants`: every edit still fits the SQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.__main__ import TABLE
from tests.mutants.mutants import MUTANTS, Mutant
from tests.support.databases import SQL

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_a_mutant_is_one_edit_and_its_first_test_is_there(mutant: Mutant) -> None:
    assert mutant.mutate(mutant.original()) != mutant.original()
    assert (ROOT / mutant.test().partition("::")[0]).exists()
    if "test_" not in mutant.first:
        assert (ROOT / "pgtap" / f"{mutant.first or mutant.function}.sql").exists()


def test_no_two_mutants_are_the_same() -> None:
    assert len({mutant.id for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.function, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


def test_every_public_function_has_a_mutant() -> None:
    functions = {path.stem for path in (SQL / "functions").glob("[!_]*.sql")}
    assert functions <= {mutant.function for mutant in MUTANTS}


def test_the_table_has_every_mutant_and_each_was_killed() -> None:
    table = TABLE.read_text(encoding="utf-8")
    for mutant in MUTANTS:
        line = f"| {mutant.id} | {mutant.breaks} | {mutant.function} | `"
        assert line in table, f'make mutants ARGS="--only {mutant.id}"'
