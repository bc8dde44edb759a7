"""The files of pgtap/ again, with every statement a transaction of its own.

That is how a queue is used, and a dequeue then does more of the work that is due for all than within a longer
transaction: the same answers have to come by two ways. (The files as they are: test_pgtap.py.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import pgtap

if TYPE_CHECKING:
    from pathlib import Path

    from pylonny.server import PrivateServer

FILES = [file for file in pgtap.FILES if file.name.startswith(("message_", "channel_", "scenario_"))]


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_pgtap_file_passes_without_its_transaction(
    server: PrivateServer, database: str, tmp_path: Path, file: Path
) -> None:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line not in ("BEGIN;\n", "ROLLBACK;\n")]
    assert len(kept) == len(lines) - 2
    alone = tmp_path / file.name
    alone.write_text("".join(kept), encoding="utf-8")
    output, wrong = pgtap.run(server, database, "lonny", alone)
    assert not wrong, output
