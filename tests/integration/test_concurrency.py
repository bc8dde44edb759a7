"""Producers and workers in processes of their own do all that they may do, and the queue keeps its promises.

What they do follows from a seed, which a failure shows; PYLONNY_SEED=<number> in the environment has them
do the same again, as far as the system that runs them lets them. What they were given, and when, is in a
journal, which is held against the promises at the end. Nothing is judged by how long it took: a slow
machine makes a run longer, and gives it more locks that expire.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from tests.support.fleet import Fleet
from tests.support.load import Run, lines, prepare
from tests.support.waits import OPTIONS as LOG_WAITS
from tests.support.waits import logged

if TYPE_CHECKING:
    from pylonny.server import PrivateServer
    from tests.conftest import Connect
    from tests.support.waits import Wait


@pytest.mark.timeout(400)
def test_nothing_is_lost_doubled_stuck_or_over_a_limit_whatever_producers_and_workers_do(
    server: PrivateServer, database: str, connect: Connect
) -> None:
    seed = int(os.environ.get("PYLONNY_SEED") or secrets.randbelow(10**6))
    print(f"PYLONNY_SEED={seed}")
    conn = connect()
    prepare(conn)
    log_offset = server.log.stat().st_size
    with Fleet(seed) as fleet:
        run = Run(fleet, conn, make_conninfo(database, options=LOG_WAITS), messages=1800)
        run.finish()
    run.audit()

    with server.log.open("rb") as log:
        log.seek(log_offset)
        waits = logged(log.read().decode(errors="replace"))
    print(f"{len(waits)} waits for one and the same message")
    others = [wait for wait in waits if not _is_for_one_message(wait)]
    assert not others, lines(others)


def _is_for_one_message(wait: Wait) -> bool:
    """Whether it waited for another that was deleting, deferring, cancelling or taking the same message."""
    enders = ("journal.delete", "journal.defer", "journal.cancel")
    return wait.kind in ("transaction", "tuple") and any(ender in wait.query for ender in enders)
