"""The plans of the statements inside functions, as they really ran: auto_explain, not EXPLAIN of a copy."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from psycopg.errors import Diagnostic

    from tests.support.sessions import Connection

_SETTINGS = {
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "client_min_messages": "log",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One executed statement: its text, and its plan's root as in EXPLAIN (ANALYZE, BUFFERS, FORMAT json)."""

    query: str
    root: dict[str, Any]

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Every node of the plan, from the root down, those of subplans too."""
        pending = [self.root]
        while pending:
            node = pending.pop()
            yield node
            pending += node.get("Plans", [])

    def scans(self) -> set[tuple[str, str]]:
        """How each relation is read, e.g. {("Index Scan", "message_ready_idx"), ("Seq Scan", "wake")}."""
        return {
            (node["Node Type"], node.get("Index Name") or node["Relation Name"])
            for node in self.nodes()
            if node["Node Type"].endswith("Scan") and ("Index Name" in node or "Relation Name" in node)
        }

    def buffers(self) -> int:
        """Pages touched, in shared memory or read."""
        return int(self.root["Shared Hit Blocks"]) + int(self.root["Shared Read Blocks"])


@contextmanager
def capture_plans(conn: Connection) -> Generator[list[Plan]]:
    """Collect the plan of every statement that the connection executes in the block, nested ones included.

    They come in the order in which they ended. Needs a superuser.
    """
    plans: list[Plan] = []

    def collect(notice: Diagnostic) -> None:
        _, found, text = (notice.message_primary or "").partition("plan:\n")
        if found:
            plan = json.loads(text)
            plans.append(Plan(plan["Query Text"], plan["Plan"]))

    conn.execute("LOAD 'auto_explain'")
    for name, value in _SETTINGS.items():
        conn.execute("SELECT set_config(%s, %s, false)", [name, value])
    conn.add_notice_handler(collect)
    try:
        yield plans
    finally:
        conn.remove_notice_handler(collect)
        if conn.info.transaction_status != psycopg.pq.TransactionStatus.INERROR:
            for name in _SETTINGS:
                conn.execute(
                    "SELECT set_config(%s, reset_val, false) FROM pg_settings WHERE name = %s", [name, name]
                )
