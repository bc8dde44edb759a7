"""The gate of the coverage: when it fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from tests.support.coverage import LEAST, Coverage, Statement

PASSED, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED


def exit_status(coverage: Coverage, before: int = PASSED) -> int:
    session = SimpleNamespace(exitstatus=before)
    coverage.pytest_sessionfinish(cast("pytest.Session", session))
    return int(session.exitstatus)


@pytest.mark.parametrize(
    ("executed", "missing", "status"), [(0, 0, FAILED), (95, 5, PASSED), (94, 6, FAILED), (100, 0, PASSED)]
)
def test_it_fails_below_95_percent(executed: int, missing: int, status: int) -> None:
    coverage = Coverage()
    coverage.counts.update({Statement("message_create", number, 1, "IF"): 3 for number in range(executed)})
    coverage.counts.update({Statement("message_delete", number, 1, "IF"): 0 for number in range(missing)})
    assert exit_status(coverage) == status
    assert exit_status(coverage, FAILED) == FAILED
    assert LEAST == 0.95


def test_it_fails_if_one_refusal_was_not_shown() -> None:
    coverage = Coverage()
    coverage.counts.update({Statement("message_create", number, 1, "IF"): 1 for number in range(100)})
    lines = coverage.bodies["message_dequeue"].split("\n")
    [line] = [number for number, text in enumerate(lines, start=1) if "RAISE EXCEPTION" in text]
    refusal = Statement("message_dequeue", 1, line, "RAISE")
    coverage.counts[refusal] = 0
    assert coverage.missing() == [refusal]
    assert exit_status(coverage) == FAILED
    coverage.counts[refusal] = 1
    assert exit_status(coverage) == PASSED


def test_one_that_only_undoes_is_no_refusal() -> None:
    coverage = Coverage()
    lines = coverage.bodies["_message_try_offer"].split("\n")
    [line] = [number for number, text in enumerate(lines, start=1) if "RAISE EXCEPTION" in text]
    assert not coverage.refuses(Statement("_message_try_offer", 1, line, "RAISE"))
