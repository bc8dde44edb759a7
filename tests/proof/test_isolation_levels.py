"""Every operation in every isolation level: it works, or raises 40001, or (a dequeue) refuses with 25001.

Beside each of them another session's operation, in all orders of their snapshots and commits. Afterwards the
queue is in order, no limit was exceeded on the way, and each message that was committed can be had.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest
from psycopg import IsolationLevel
from psycopg.errors import ActiveSqlTransaction, SerializationFailure

from tests.integration.test_promises import OPERATIONS, do, prepare
from tests.support.drain import assert_in_order, drain
from tests.support.queue import serve, stop_clock, work
from tests.support.sessions import IMPATIENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Connect
    from tests.support.sessions import Connection

LEVELS = {
    "read committed": IsolationLevel.READ_COMMITTED,
    "repeatable read": IsolationLevel.REPEATABLE_READ,
    "serializable": IsolationLevel.SERIALIZABLE,
}
SNAPSHOTS = [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]
DONE = {"MESSAGE_DELETED", "MESSAGE_DEFERRED", "MESSAGE_HEARTBEATED", "MESSAGE_CANCELLED"}
# max_concurrency and interval. Four are locked: with a limit of four nothing else is in the channel, so that
# what comes in meanwhile is the only thing that waits for a place.
FULL = 4
POLICIES = [(None, None), (7, None), (7, 10), (FULL, None)]
FEW_POLICIES = POLICIES[3:]
# Of the operations those that are least like another one: what make test is content with.
FEW = ["create", "dequeue a batch", "delete", "defer", "cancel", "pause", "clear"]

# Who does what when: each takes its snapshot, does its operation, commits; 3 takes what is there.
ORDERS = {
    "done before, not seen": "1snapshot 2snapshot 2do 2commit 3work 1do 1commit",
    "open meanwhile, committed after it": "2snapshot 2do 1snapshot 1do 1commit 3work 2commit",
    "open meanwhile, committed before it": "1snapshot 2snapshot 2do 1do 2commit 3work 1commit",
    "done meanwhile": "1snapshot 1do 2snapshot 2do 2commit 3work 1commit",
}


class _Session:
    """One that does an operation in a transaction of its own; `failed` if it was told to try again."""

    def __init__(self, conn: Connection, name: str, messages: dict[str, list[int]]) -> None:
        self.failed = False
        self.conn = conn
        self.name = name
        self.messages = messages

    def step(self, what: str) -> None:
        if self.failed:
            return
        steps: dict[str, Callable[[], object]] = {
            "snapshot": lambda: self.conn.execute("SELECT FROM lonny.message LIMIT 1"),
            "do": lambda: do(self.conn, self.name, self.messages),
            "commit": self.conn.commit,
        }
        try:
            steps[what]()
        except SerializationFailure:
            self.conn.rollback()
            self.failed = True
        except ActiveSqlTransaction:
            assert self.name.startswith("dequeue")
            assert self.conn.isolation_level in SNAPSHOTS
            self.conn.rollback()
            self.failed = True


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_alone_each_operation_works_in_each_level_but_a_dequeue_refuses_where_it_would_be_wrong(
    connect: Connect, level: IsolationLevel
) -> None:
    admin, conn = connect(), connect(autocommit=False)
    conn.set_isolation_level(level)
    stop_clock(admin)
    for name, query in OPERATIONS.items():
        ours, _ = prepare(admin, 7, 10)
        if name.startswith("dequeue") and level in SNAPSHOTS:
            with pytest.raises(ActiveSqlTransaction) as raised:
                do(conn, name, ours)
            assert raised.value.sqlstate == "25001"
            assert "READ COMMITTED" in str(raised.value)
            conn.rollback()
            continue
        ((result,),) = conn.execute(query, ours if "%" in query else None).fetchall()[:1]
        conn.commit()
        if name in ("delete", "defer", "heartbeat", "cancel", "defer with a delay"):
            assert result in DONE
        assert_in_order(admin)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_no_operation_beside_another_one_leaves_the_queue_in_disorder(
    connect: Connect, order: str, at_length: bool
) -> None:
    admin = connect()
    sessions = [connect(autocommit=False, options=IMPATIENT) for _ in range(2)]
    stop_clock(admin)
    names, policies = (list(OPERATIONS), POLICIES) if at_length else (FEW, FEW_POLICIES)
    # The first session has one snapshot for its transaction, the second one has it every other time.
    for n, (first, second, policy) in enumerate(product(names, names, policies)):
        level = SNAPSHOTS[n % 4 == 3]  # the strictest one tells many to try again, who then do nothing
        has_snapshot = n // 2 % 2 == 1 and not second.startswith("dequeue")
        sessions[0].set_isolation_level(level)
        sessions[1].set_isolation_level(level if has_snapshot else IsolationLevel.READ_COMMITTED)
        messages = prepare(admin, *policy)
        if policy[0] == FULL:
            admin.execute("SELECT lonny.message_cancel(id) FROM lonny.message WHERE channel = 'a'")
            serve(admin, within_ms=0)
        ones = [_Session(*one) for one in zip(sessions, (first, second), messages, strict=True)]
        try:
            for step in order.split():
                if step == "3work":
                    work(admin, within_ms=0)
                else:
                    ones[int(step[0]) - 1].step(step[1:])
            # They work on different messages, so it takes the strictest level to find one against the other.
            failed = [one.name for one in ones if one.failed and not one.name.startswith("dequeue")]
            assert not failed or level is IsolationLevel.SERIALIZABLE
            assert_in_order(admin)
            drain(admin)
        except Exception as error:
            error.add_note(f"{first}, beside {second}, under {policy}")
            raise
