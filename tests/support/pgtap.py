"""Running of pgTAP files: by psql, as the programs that they are, judged by what TAP they print."""

from __future__ import annotations

import re
from pathlib import Path

from psycopg.conninfo import make_conninfo

from pylonny.server import PrivateServer, ServerError
from tests.support.databases import options

FOLDER = Path(__file__).parents[2] / "pgtap"
FILES = sorted(FOLDER.glob("*.sql"))

_RESULT = re.compile(r"^(not )?ok\b(.*)$", re.MULTILINE)
_PLAN = re.compile(r"^1\.\.(\d+)$", re.MULTILINE)
_COMPLAINT = re.compile(r"^.+:\d+: (?:ERROR|FATAL|WARNING): .*$", re.MULTILINE)


def run(server: PrivateServer, dsn: str, schema: str, file: Path) -> tuple[str, list[str]]:
    """Run a file in a database; its output, and what is wrong with it: nothing if it passed.

    Wrong are a failed test, a skipped one, an error, a warning, and another number of tests than planned.
    """
    arguments = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--file=-"]
    dbname = make_conninfo(dsn, options=options(schema))
    try:
        output = server.run("psql", *arguments, f"--dbname={dbname}", stdin=file.read_text(encoding="utf-8"))
        ended = True
    except ServerError as error:
        output, ended = str(error), False
    output = output.replace("psql:<stdin>:", f"{file.name}:")
    return output, _wrong(output, ended)


def _wrong(output: str, ended: bool) -> list[str]:
    results = [(bool(failed), text) for failed, text in _RESULT.findall(output)]
    plan = _PLAN.search(output)
    wrong = _COMPLAINT.findall(output)
    wrong += [f"failed:{text}" for failed, text in results if failed]
    wrong += [
        f"skipped:{text}" for _, text in results if re.search(r"# (?:SKIP|TODO)\b", text, re.IGNORECASE)
    ]
    if not ended and not wrong:
        wrong.append("psql failed")
    if plan is None:
        wrong.append("no plan")
    elif int(plan[1]) != len(results):
        wrong.append(f"{len(results)} tests, not the {plan[1]} that were planned")
    return wrong
