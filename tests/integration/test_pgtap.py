"""The files of pgtap/, each under every schema name, in a database of its own.

One file alone: `pytest -k "pgtap and message_create"`. The same under pg_prove: `make prove`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import pgtap
from tests.support.databases import SCHEMAS, SQL

if TYPE_CHECKING:
    from pathlib import Path

    from pylonny.server import PrivateServer

_NAMES = [file.stem for file in pgtap.FILES]


def test_every_public_function_has_its_file() -> None:
    functions = {path.stem for path in (SQL / "functions").glob("[!_]*.sql")}
    assert len(functions) == 18
    assert functions <= set(_NAMES)


@pytest.mark.parametrize("schema", SCHEMAS, indirect=True)
@pytest.mark.parametrize("file", pgtap.FILES, ids=_NAMES)
def test_pgtap(server: PrivateServer, database: str, schema: str, file: Path) -> None:
    output, wrong = pgtap.run(server, database, schema, file)
    if wrong:
        pytest.fail("\n".join([f"pgtap/{file.name}, schema {schema}", *wrong, "", output]), pytrace=False)
