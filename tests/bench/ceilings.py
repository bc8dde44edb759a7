"""What a queue reaches at most whose functions are declared as `message_create` is, one message a call.

The shares of these two against the bare table say what the calls cost, and what the leases; the rest is what
a queue of channels adds. Neither is a queue: nothing is checked, and nothing is ever given back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from pylonny.bench.scripts import Step
from pylonny.bench.systems import CONTENT, LOCK_MS, Connection, Floor, Left, count_left, execute, life
from pylonny.bench.workloads import WORKLOADS, Workload
from pylonny.templates import quote_identifier

_DECLARED = (
    "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
    " SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off"
)


class Ceiling(ABC):
    """A table behind three functions, for one message without a channel each."""

    name: str
    taken: str
    """The condition that a row is taken."""

    def __init__(self, schema: str) -> None:
        self._schema = quote_identifier(schema)

    def supports(self, workload: Workload) -> bool:
        """Neither batches nor channels, it notifies nobody, and what an old snapshot does to it is known."""
        return not (workload.batch > 1 or workload.channels or workload.notify or workload.beside_snapshot)

    @abstractmethod
    def definitions(self) -> tuple[str, ...]:
        """The table `message`, and the functions `message_create`, `message_dequeue`, `message_delete`."""

    def install(self, conn: Connection, workload: Workload) -> str | None:  # noqa: ARG002 - all need the same
        """Create the table and the functions."""
        for statement in self.definitions():
            execute(conn, statement)
        return None

    def load(self, conn: Connection, workload: Workload, count: int) -> None:  # noqa: ARG002
        """Create the messages by the function, all in one statement."""
        execute(conn, f"SELECT count({self._create}) FROM generate_series(1, %s::integer)", count)
        execute(conn, f"VACUUM (ANALYZE) {self._schema}.message")

    def steps(self, workload: Workload) -> tuple[Step, Step, Step]:  # noqa: ARG002
        """A call each, with the arguments that ours have."""
        return life(
            f"SELECT {self._create}",
            f"SELECT 1 AS n, * FROM {self._schema}.message_dequeue(1, NULL)",
            f"SELECT {self._schema}.message_delete(:id::bigint, :num_attempts::integer)",
        )

    def left(self, conn: Connection) -> Left:
        """Go by `taken`."""
        return count_left(conn, f"SELECT {self.taken} FROM {self._schema}.message")

    @property
    def _create(self) -> str:
        return f"{self._schema}.message_create(NULL, {CONTENT}, {LOCK_MS}::bigint, 0::bigint)"


class Calls(Ceiling):
    """The bare table's own statements, each in a function."""

    name = "bare table, in functions"
    taken = "taken"

    def __init__(self, schema: str) -> None:
        super().__init__(schema)
        self._floor = Floor(schema)

    def install(self, conn: Connection, workload: Workload) -> str | None:
        """Create the bare table, and the functions."""
        self._floor.install(conn, workload)
        return super().install(conn, workload)

    def definitions(self) -> tuple[str, ...]:
        """The statements with parameters in the place of what is sent."""
        create, dequeue, delete = (step.sql for step in self._floor.steps(WORKLOADS["W1"]))
        return (
            f"""\
CREATE FUNCTION {self._schema}.message_create(channel text, content bytea, lock_ms bigint, delay_ms bigint)
RETURNS bigint {_DECLARED} AS $$
DECLARE
  v_id bigint;
BEGIN
  {create.replace(CONTENT, "message_create.content")} INTO v_id;
  RETURN v_id;
END $$""",
            f"""\
CREATE FUNCTION {self._schema}.message_dequeue(max_messages integer, lock_ms bigint)
RETURNS TABLE (num_attempts integer, id bigint, content bytea) ROWS 10 {_DECLARED} AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY {dequeue};
END $$""",
            f"""\
CREATE FUNCTION {self._schema}.message_delete(id bigint, num_attempts integer)
RETURNS boolean {_DECLARED} AS $$
#variable_conflict use_column
BEGIN
  {delete.replace(":id::bigint", "message_delete.id")};
  RETURN FOUND;
END $$""",
        )


class Leases(Ceiling):
    """A table with the columns and indexes of leases, and fencing tokens.

    A dequeue looks whether a lock is over, as a real one must, but then finds nothing: no run may leave one
    for LOCK_MS. Delays only order.
    """

    name = "leases only, in functions"
    taken = "unlock_at IS NOT NULL"

    def definitions(self) -> tuple[str, ...]:
        """What a queue with leases needs, and no more."""
        return (
            f"""\
CREATE TABLE {self._schema}.message (
  id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  lock_ms      bigint      NOT NULL,
  created_at   timestamptz NOT NULL,
  dequeue_at   timestamptz NOT NULL,
  unlock_at    timestamptz,
  num_attempts integer     NOT NULL DEFAULT 0,
  content      bytea       NOT NULL,
  state        bytea
)""",
            f"CREATE INDEX ON {self._schema}.message (dequeue_at, id) WHERE unlock_at IS NULL",
            f"CREATE INDEX ON {self._schema}.message (unlock_at, id) WHERE unlock_at IS NOT NULL",
            f"""\
CREATE FUNCTION {self._schema}.message_create(channel text, content bytea, lock_ms bigint, delay_ms bigint)
RETURNS bigint {_DECLARED} AS $$
DECLARE
  v_now timestamptz := clock_timestamp();
  v_id  bigint;
BEGIN
  INSERT INTO {self._schema}.message AS m (lock_ms, created_at, dequeue_at, content)
  VALUES (message_create.lock_ms, v_now, v_now + message_create.delay_ms * interval '1 ms',
          message_create.content)
  RETURNING m.id INTO v_id;
  RETURN v_id;
END $$""",
            f"""\
CREATE FUNCTION {self._schema}.message_dequeue(max_messages integer, lock_ms bigint)
RETURNS TABLE (id bigint, content bytea, state bytea, num_attempts integer, unlock_at timestamptz) ROWS 10
{_DECLARED} AS $$
DECLARE
  v_now  timestamptz := clock_timestamp();
  v_held record;
BEGIN
  SELECT m.ctid INTO v_held
    FROM {self._schema}.message m
   WHERE m.unlock_at IS NULL AND NOT EXISTS (SELECT FROM {self._schema}.message x WHERE x.unlock_at <= v_now)
   ORDER BY m.dequeue_at, m.id LIMIT 1
     FOR NO KEY UPDATE SKIP LOCKED;
  IF FOUND THEN
    RETURN QUERY
    UPDATE {self._schema}.message m
       SET unlock_at = v_now + COALESCE(message_dequeue.lock_ms, m.lock_ms) * interval '1 ms',
           num_attempts = m.num_attempts + 1
     WHERE m.ctid = v_held.ctid
    RETURNING m.id, m.content, m.state, m.num_attempts, m.unlock_at;
  END IF;
END $$""",
            # Not "unlock_at IS NOT NULL": if few rows are locked when it is analysed, it goes by that index.
            f"""\
CREATE FUNCTION {self._schema}.message_delete(id bigint, num_attempts integer)
RETURNS boolean {_DECLARED} AS $$
BEGIN
  DELETE FROM {self._schema}.message m
   WHERE m.id = message_delete.id AND m.num_attempts = message_delete.num_attempts;
  RETURN FOUND;
END $$""",
        )


CEILINGS = (Calls, Leases)
