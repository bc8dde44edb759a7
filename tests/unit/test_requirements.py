"""requirements.txt: what CI installs, in one version each, with hashes, from wherever it is told to."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "requirements.txt").read_text()
PINS = [line.partition(" ")[0] for line in TEXT.splitlines() if re.match(r"[a-z]", line)]


def test_each_is_pinned_with_hashes_and_no_index_is_named() -> None:
    comment, *lines = TEXT.splitlines()
    assert comment.startswith("# ")
    for line in lines:
        assert re.fullmatch(
            r"[a-z0-9.-]+==[0-9a-z.]+( ; [^#]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line
        ), line
    assert TEXT.count("--hash") >= len(PINS) > 30
    assert "://" not in TEXT


def test_all_that_the_project_asks_for_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        asked += extra
    pinned = {name: version for name, _, version in (pin.partition("==") for pin in PINS)}
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        if name != "pylonny":
            assert name in pinned, f"{requirement}: make pins"
            assert requirement.specifier.contains(pinned[name]), f"{requirement}: make pins"
