"""The demo's own tables, as an application would have them beside the queue, and looks at how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

# No unique constraint anywhere: it would hide the very doubles that the check at the end looks for.
TABLES = """
CREATE SCHEMA demo;
CREATE TABLE demo.file (
    message_id bigint, channel text, path text, size bigint,
    created_at timestamptz DEFAULT clock_timestamp()
);
CREATE TABLE demo.delivery (
    message_id bigint, num_attempts integer, channel text, worker integer, is_unlocked boolean,
    locked_at timestamptz, unlock_at timestamptz
);
CREATE TABLE demo.result (
    message_id bigint, num_attempts integer, worker integer, sha256 bytea, error text,
    done_at timestamptz DEFAULT clock_timestamp()
);
CREATE INDEX ON demo.file (message_id);
CREATE INDEX ON demo.delivery (message_id);
CREATE INDEX ON demo.result (message_id);
"""

_Connection = psycopg.Connection[Any]


@dataclass(slots=True)
class Tenant:
    """A package and its channel: how many files it has, and what has become of their messages."""

    name: str
    total: int
    rule: str = ""
    waiting: int = 0
    ready: int = 0
    locked: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """The whole queue at one moment, `seconds` after the start."""

    seconds: float
    tenants: list[Tenant]

    def all(self) -> Tenant:
        """The sum of the tenants."""
        return together("all", self.tenants)


def together(name: str, tenants: Sequence[Tenant]) -> Tenant:
    """Several tenants as if they were one."""
    return Tenant(
        name,
        total=sum(tenant.total for tenant in tenants),
        waiting=sum(tenant.waiting for tenant in tenants),
        ready=sum(tenant.ready for tenant in tenants),
        locked=sum(tenant.locked for tenant in tenants),
        done=sum(tenant.done for tenant in tenants),
    )


def look(conn: _Connection, schema: str, seconds: float, tenants: Sequence[Tenant]) -> Look:
    """Count every tenant's messages by their status."""
    now = {tenant.name: Tenant(tenant.name, tenant.total, tenant.rule) for tenant in tenants}
    query = sql.SQL("SELECT channel, status::text, count(*) FROM {}.message GROUP BY channel, status")
    for name, status, count in conn.execute(query.format(sql.Identifier(schema))):
        setattr(now[name], status.lower(), count)
    for name, count in conn.execute(
        """
        SELECT f.channel, count(DISTINCT r.message_id)
        FROM demo.result r JOIN demo.file f USING (message_id)
        GROUP BY f.channel
        """
    ):
        now[name].done = count
    return Look(seconds, list(now.values()))


def any_delivery(conn: _Connection) -> bool:
    """Whether any message was delivered yet."""
    return _exists(conn, "SELECT FROM demo.delivery LIMIT 1")


def has_session(conn: _Connection, name: str) -> bool:
    """Whether a client of that name is connected."""
    return _exists(conn, "SELECT FROM pg_stat_activity WHERE application_name = %s", name)


def held_by(conn: _Connection, worker: int) -> dict[int, int]:
    """The messages that were delivered to a worker and have no result: num_attempts by the message's id."""
    query = """
        SELECT d.message_id, max(d.num_attempts) FROM demo.delivery d
        WHERE d.worker = %s AND NOT EXISTS (SELECT FROM demo.result r WHERE r.message_id = d.message_id)
        GROUP BY d.message_id
        """
    return dict(conn.execute(query, (worker,)).fetchall())


def returned_from(conn: _Connection, worker: int, held: dict[int, int]) -> set[int]:
    """Which of the messages that a dead worker held were delivered to another one since, as unlocked."""
    query = """
        SELECT d.message_id
        FROM demo.delivery d JOIN unnest(%s::bigint[], %s::integer[]) AS h(message_id, num_attempts)
            ON d.message_id = h.message_id AND d.num_attempts = h.num_attempts + 1
        WHERE d.is_unlocked AND d.worker <> %s
        """
    rows = conn.execute(query, (list(held), list(held.values()), worker))
    return {message_id for (message_id,) in rows}


def _exists(conn: _Connection, query: LiteralString, *values: object) -> bool:
    return conn.execute(query, values).fetchone() is not None
