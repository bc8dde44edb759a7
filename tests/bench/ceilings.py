"""How fast a queue could be at most whose operations are functions declared as ours are.

The shares of these two against the bare table say what the calls cost, and what the leases; the rest is what
a queue of channels adds. Neither is a queue: nothing is checked, nothing that is over is ever given back.
"""

from __future__ import annotations

from pylonny.bench.scripts import Step
from pylonny.bench.systems import CONTENT, LOCK_MS, Connection, Left, count_left, execute, life
from pylonny.bench.workloads import Workload
from pylonny.templates import quote_identifier

_DECLARED = (
    "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
    " SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off"
)


class Ceiling:
    """A table behind three functions, for one message without a channel each."""

    name: str
    ddl: tuple[str, ...]
    """The table `message`, and the functions `create_message`, `dequeue_message`, `delete_message`."""
    taken: str
    """The condition that a row is taken."""

    def __init__(self, schema: str) -> None:
        self._schema = quote_identifier(schema)

    def supports(self, workload: Workload) -> bool:
        """Neither batches nor channels, it notifies nobody, and what an old snapshot does to it is known."""
        return not (workload.batch > 1 or workload.channels or workload.notify or workload.beside_snapshot)

    def install(self, conn: Connection, workload: Workload) -> str | None:  # noqa: ARG002 - all need the same
        """Create them."""
        for statement in self.ddl:
            execute(conn, statement.format(schema=self._schema, declared=_DECLARED))
        return None

    def load(self, conn: Connection, workload: Workload, count: int) -> None:  # noqa: ARG002
        """Create them one by one, in one statement."""
        execute(conn, f"SELECT count({self._create}) FROM generate_series(1, %s::integer)", count)
        execute(conn, f"VACUUM (ANALYZE) {self._schema}.message")

    def steps(self, workload: Workload) -> tuple[Step, Step, Step]:  # noqa: ARG002
        """A call each, with the arguments that ours have."""
        return life(
            f"SELECT {self._create}",
            f"SELECT id AS n, * FROM {self._schema}.dequeue_message(1, NULL)",
            f"SELECT {self._schema}.delete_message(:id::bigint, :num_attempts::integer)",
        )

    def left(self, conn: Connection) -> Left:
        """Go by what says that it is taken."""
        return count_left(conn, f"SELECT {self.taken} FROM {self._schema}.message")

    @property
    def _create(self) -> str:
        return f"{self._schema}.create_message(NULL, {CONTENT}, {LOCK_MS}::bigint, 0::bigint)"


class Calls(Ceiling):
    """The bare table and its three statements."""

    name = "bare table, in functions"
    taken = "taken"
    ddl = (
        """\
CREATE TABLE {schema}.message (
  id      bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  taken   boolean NOT NULL DEFAULT false,
  content bytea   NOT NULL
)""",
        """\
CREATE FUNCTION {schema}.create_message(channel text, content bytea, lock_ms bigint, delay_ms bigint)
RETURNS bigint {declared} AS $$
DECLARE
  v_id bigint;
BEGIN
  INSERT INTO {schema}.message AS m (content) VALUES (create_message.content) RETURNING m.id INTO v_id;
  RETURN v_id;
END $$""",
        """\
CREATE FUNCTION {schema}.dequeue_message(max_messages integer, lock_ms bigint)
RETURNS TABLE (id bigint, content bytea, num_attempts integer) ROWS 10
{declared} AS $$
BEGIN
  RETURN QUERY
  WITH next AS MATERIALIZED (
    SELECT x.id FROM {schema}.message x WHERE NOT x.taken ORDER BY x.id LIMIT 1 FOR UPDATE SKIP LOCKED)
  UPDATE {schema}.message m SET taken = true FROM next WHERE m.id = next.id RETURNING m.id, m.content, 1;
END $$""",
        """\
CREATE FUNCTION {schema}.delete_message(id bigint, num_attempts integer)
RETURNS boolean {declared} AS $$
BEGIN
  DELETE FROM {schema}.message m WHERE m.id = delete_message.id;
  RETURN FOUND;
END $$""",
    )


class Leases(Ceiling):
    """A table with due times, locks that end and fencing tokens; an index of what is ready, one of locks."""

    name = "leases only, in functions"
    taken = "unlock_at IS NOT NULL"
    ddl = (
        """\
CREATE TABLE {schema}.message (
  id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  lock_ms      bigint      NOT NULL,
  created_at   timestamptz NOT NULL,
  dequeue_at   timestamptz NOT NULL,
  unlock_at    timestamptz,
  num_attempts integer     NOT NULL DEFAULT 0,
  content      bytea       NOT NULL,
  state        bytea
)""",
        "CREATE INDEX ON {schema}.message (dequeue_at, id) WHERE unlock_at IS NULL",
        "CREATE INDEX ON {schema}.message (unlock_at, id) WHERE unlock_at IS NOT NULL",
        """\
CREATE FUNCTION {schema}.create_message(channel text, content bytea, lock_ms bigint, delay_ms bigint)
RETURNS bigint {declared} AS $$
DECLARE
  v_now timestamptz := clock_timestamp();
  v_id  bigint;
BEGIN
  INSERT INTO {schema}.message AS m (lock_ms, created_at, dequeue_at, content)
  VALUES (create_message.lock_ms, v_now, v_now + create_message.delay_ms * interval '1 ms',
          create_message.content)
  RETURNING m.id INTO v_id;
  RETURN v_id;
END $$""",
        """\
CREATE FUNCTION {schema}.dequeue_message(max_messages integer, lock_ms bigint)
RETURNS TABLE (id bigint, content bytea, state bytea, num_attempts integer, unlock_at timestamptz) ROWS 10
{declared} AS $$
DECLARE
  v_now  timestamptz := clock_timestamp();
  v_held record;
BEGIN
  SELECT m.ctid INTO v_held
    FROM {schema}.message m
   WHERE m.unlock_at IS NULL AND NOT EXISTS (SELECT FROM {schema}.message x WHERE x.unlock_at <= v_now)
   ORDER BY m.dequeue_at, m.id LIMIT 1
     FOR NO KEY UPDATE SKIP LOCKED;
  IF FOUND THEN
    RETURN QUERY
    UPDATE {schema}.message m
       SET unlock_at = v_now + COALESCE(dequeue_message.lock_ms, m.lock_ms) * interval '1 ms',
           num_attempts = m.num_attempts + 1
     WHERE m.ctid = v_held.ctid
    RETURNING m.id, m.content, m.state, m.num_attempts, m.unlock_at;
  END IF;
END $$""",
        """\
CREATE FUNCTION {schema}.delete_message(id bigint, num_attempts integer)
RETURNS boolean {declared} AS $$
BEGIN
  -- Not "unlock_at IS NOT NULL": where few rows are locked when it is analysed, it would go by that index.
  DELETE FROM {schema}.message m
   WHERE m.id = delete_message.id AND m.num_attempts = delete_message.num_attempts;
  RETURN FOUND;
END $$""",
    )
