"""One session of the psycopg driver, a process: `python -m pylonny.bench.session TASK`.

It connects, prints a line, waits for one, runs the script for as long as it is told and prints what it saw.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pylonny.bench.scripts import Json, Script

_VARIABLE = re.compile(r"(?<![:\w]):([a-z_]+)")


def placeholders(sql: str) -> str:
    """A step's SQL with psycopg's placeholders for the variables."""
    return _VARIABLE.sub(r"%(\1)s", sql.replace("%", "%%"))


def main(path: str) -> int:
    """Run the task that is in a file."""
    task = json.loads(Path(path).read_text())
    script = Script.from_json(task["script"])
    try:
        with psycopg.connect(task["dsn"], autocommit=True, prepare_threshold=0) as conn:
            print("connected", flush=True)
            if sys.stdin.readline():
                print(json.dumps(work(conn, script, task["seconds"])), flush=True)
    except psycopg.Error as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


def work(conn: psycopg.Connection[Any], script: Script, seconds: float) -> Json:
    """Round after round until the time is over."""
    queries = [(step, placeholders(step.sql).encode()) for step in script.steps]
    cursor = conn.cursor(row_factory=dict_row)
    sums = {step.name: 0.0 for step in script.steps}
    ends: list[float] = []
    durations: list[float] = []
    variables: dict[str, Any] = {}
    over = time.time() + seconds
    while (begin := time.time()) < over:
        now = begin
        if script.channels:
            variables["channel"] = random.randint(1, script.channels)  # noqa: S311 - which one does not matter
        for step, query in queries:
            if step.needs and not variables["n"]:
                continue
            if script.begin:
                conn.execute("BEGIN")
            cursor.execute(query, variables)
            rows = cursor.fetchall() if cursor.description else []
            if script.begin:
                conn.execute("COMMIT")
            if step.returns:
                variables |= rows[0] if rows else {"n": 0}
            before, now = now, time.time()
            sums[step.name] += now - before
        ends.append(now)
        durations.append(now - begin)
    return {"ends": ends, "durations": durations, "steps": sums}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
