"""A journal of a queue that is used by many at once, and what it says about the queue's promises.

It is written in the transactions that it is about, so that it says what was committed and nothing else. All
times are the server's, and where a moment is only known to lie between two, the one is taken that excuses
more: the audit never accuses falsely.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.sessions import Connection

# A function for each of the queue's, which calls it and says what came of it. But message_dequeue, to which
# it makes a difference whether it is a transaction of its own, is called without one: a trigger writes down
# what it did, and its caller gives a receipt for what it said.
JOURNAL = """
CREATE SCHEMA journal;
CREATE TABLE journal.creation (id bigint, channel text);
CREATE TABLE journal.delivery (
  id bigint, num_attempts integer, channel text,
  began_at timestamptz, locked_at timestamptz, unlock_at timestamptz, due_at timestamptz);
CREATE TABLE journal.receipt (id bigint, num_attempts integer, is_unlocked boolean, state bytea);
CREATE TABLE journal.extension (id bigint, num_attempts integer, unlock_at timestamptz);
CREATE TABLE journal.ending (
  id bigint, num_attempts integer, result text, state bytea, answered_at timestamptz, transaction xid8);
CREATE TABLE journal.closing (transaction xid8, at timestamptz);
CREATE TABLE journal.policy (
  id bigint, channel text, max_concurrency integer, release_interval_ms bigint,
  began_at timestamptz, committed_at timestamptz);

CREATE FUNCTION journal.microseconds(p_at timestamptz) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$
  SELECT (extract(epoch FROM p_at) * 1000000)::bigint
$$;

CREATE FUNCTION journal.create(p_channel text, p_count integer, p_lock_ms bigint, p_delay_ms bigint)
RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
  v_ids bigint[];
BEGIN
  IF p_count = 1 THEN
    v_ids := ARRAY[lonny.message_create(p_channel, 'x', p_lock_ms, p_delay_ms)];
  ELSE
    v_ids := ARRAY (SELECT lonny.message_create_many(array_fill(p_channel, ARRAY[p_count]),
                      array_fill('x'::bytea, ARRAY[p_count]), ARRAY[p_lock_ms], ARRAY[p_delay_ms]));
  END IF;
  RETURN QUERY
  INSERT INTO journal.creation SELECT u.id, p_channel FROM unnest(v_ids) AS u (id) RETURNING creation.id;
END $$;

CREATE FUNCTION journal.dequeue_inside(p_max_messages integer, p_lock_ms bigint)
RETURNS TABLE (id bigint, num_attempts integer, is_unlocked boolean, state bytea, retry_ms bigint)
LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY SELECT d.id, d.num_attempts, d.is_unlocked, d.state, d.retry_ms
                 FROM lonny.message_dequeue(p_max_messages, p_lock_ms) d;
END $$;

CREATE FUNCTION journal.deliver() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO journal.delivery
  VALUES (NEW.id, NEW.num_attempts, NEW.channel, statement_timestamp(), NEW.locked_at, NEW.unlock_at,
          NEW.dequeue_at);
  RETURN NULL;
END $$;
CREATE TRIGGER deliver AFTER UPDATE ON lonny.message FOR EACH ROW
  WHEN (NEW.status = 'LOCKED' AND (OLD.status <> 'LOCKED' OR NEW.num_attempts <> OLD.num_attempts))
  EXECUTE FUNCTION journal.deliver();

CREATE FUNCTION journal.delete(p_id bigint, p_num_attempts integer) RETURNS text LANGUAGE sql AS $$
  INSERT INTO journal.ending
  SELECT p_id, p_num_attempts, r.result, NULL, clock_timestamp(), pg_current_xact_id()
    FROM (SELECT lonny.message_delete(p_id, p_num_attempts)::text AS result OFFSET 0) r
  RETURNING result
$$;

CREATE FUNCTION journal.delete_many(p_ids bigint[], p_num_attempts integer[])
RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  v_results text[] := ARRAY (SELECT d.result::text FROM lonny.message_delete_many(p_ids, p_num_attempts) d);
BEGIN
  RETURN QUERY
  INSERT INTO journal.ending
  SELECT u.id, u.num_attempts, u.result, NULL, clock_timestamp(), pg_current_xact_id()
    FROM unnest(p_ids, p_num_attempts, v_results) AS u (id, num_attempts, result)
  RETURNING ending.result;
END $$;

CREATE FUNCTION journal.defer(p_id bigint, p_num_attempts integer, p_delay_ms bigint, p_state bytea)
RETURNS text LANGUAGE sql AS $$
  INSERT INTO journal.ending
  SELECT p_id, p_num_attempts, r.result, p_state, clock_timestamp(), pg_current_xact_id()
    FROM (SELECT lonny.message_defer(p_id, p_num_attempts, p_delay_ms, p_state)::text AS result OFFSET 0) r
  RETURNING result
$$;

CREATE FUNCTION journal.cancel(p_id bigint) RETURNS text LANGUAGE sql AS $$
  INSERT INTO journal.ending
  SELECT p_id, NULL, r.result, NULL, clock_timestamp(), pg_current_xact_id()
    FROM (SELECT lonny.message_cancel(p_id)::text AS result OFFSET 0) r
  RETURNING result
$$;

CREATE FUNCTION journal.heartbeat(p_id bigint, p_num_attempts integer, p_lock_ms bigint)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  v_result text := lonny.message_heartbeat(p_id, p_num_attempts, p_lock_ms)::text;
BEGIN
  INSERT INTO journal.extension
  SELECT m.id, m.num_attempts, m.unlock_at FROM lonny.message m
   WHERE m.id = p_id AND v_result = 'MESSAGE_HEARTBEATED';
  RETURN v_result;
END $$;
"""

# What nothing would ever move, as one snapshot shows it: it waits for no time, nobody is to look at its
# channel, and its channel's policy is not what holds it: that is neither paused, nor at its limit, nor has
# it a ready one that the next has to keep its distance from. Or it is locked for ever.
STUCK = """
SELECT m.id, m.channel, m.status::text, p.max_concurrency, p.release_interval_ms, o.num, o.num_ready
  FROM lonny.message m
  LEFT JOIN lonny._policy_in_force p ON p.channel = m.channel
  LEFT JOIN (SELECT channel, count(*) AS num, count(*) FILTER (WHERE status = 'READY') AS num_ready
               FROM lonny.message WHERE status <> 'WAITING' GROUP BY channel) o ON o.channel = m.channel
 WHERE m.timer_at IS NULL
   AND (m.status = 'LOCKED'
        OR m.status = 'WAITING'
           AND NOT EXISTS (SELECT FROM lonny.wake w WHERE w.channel = m.channel)
           AND NOT COALESCE(o.num >= p.max_concurrency OR p.max_concurrency = 0, false)
           AND NOT COALESCE(p.release_interval_ms > 0 AND o.num_ready > 0, false))
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A dequeue that was committed, one message of it. Times are in microseconds since 1970."""

    id: int
    num_attempts: int
    channel: str
    began_at: int
    """When the dequeue was called, at the latest."""
    locked_at: int
    unlock_at: int
    """When its lock ended: the last that it was extended to."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the caller of a dequeue got, one message of it."""

    id: int
    num_attempts: int
    is_unlocked: bool
    state: bytes | None


@dataclass(frozen=True, slots=True)
class Ending:
    """The answer of a delete, a defer or (num_attempts None) a cancel, committed at the earliest at `at`."""

    id: int
    num_attempts: int | None
    result: str
    state: bytes | None
    answered_at: int
    at: int


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a channel's policy, committed between these times."""

    id: int
    channel: str
    max_concurrency: int | None
    release_interval_ms: int | None
    began_at: int
    committed_at: int
    """Far in the future if its committer was gone before it could say when."""


@dataclass
class Journal:
    """All that was committed."""

    created: list[int] = field(default_factory=list[int])
    deliveries: list[Delivery] = field(default_factory=list[Delivery])
    receipts: list[Receipt] = field(default_factory=list[Receipt])
    endings: list[Ending] = field(default_factory=list[Ending])
    versions: list[Version] = field(default_factory=list[Version])

    @classmethod
    def read(cls, conn: Connection) -> Journal:
        def rows(query: LiteralString) -> list[tuple[Any, ...]]:
            return conn.execute(sql.SQL(query)).fetchall()

        return cls(
            [id_ for (id_,) in rows("SELECT id FROM journal.creation")],
            [Delivery(*row) for row in rows(_DELIVERIES)],
            [
                Receipt(*row)
                for row in rows("SELECT id, num_attempts, is_unlocked, state FROM journal.receipt")
            ],
            [Ending(*row) for row in rows(_ENDINGS)],
            [Version(*row) for row in rows(_VERSIONS)],
        )


_DELIVERIES = """
SELECT d.id, d.num_attempts, d.channel, journal.microseconds(d.began_at), journal.microseconds(d.locked_at),
       journal.microseconds(GREATEST(d.unlock_at, e.unlock_at))
  FROM journal.delivery d
  LEFT JOIN (SELECT id, num_attempts, max(unlock_at) AS unlock_at FROM journal.extension GROUP BY 1, 2) e
       USING (id, num_attempts)
 ORDER BY d.locked_at, d.id
"""
_ENDINGS = """
SELECT e.id, e.num_attempts, e.result, e.state, journal.microseconds(e.answered_at),
       journal.microseconds(COALESCE(c.at, e.answered_at))
  FROM journal.ending e LEFT JOIN journal.closing c USING (transaction)
 ORDER BY e.answered_at
"""
_VERSIONS = """
SELECT p.id, p.channel, p.max_concurrency, p.release_interval_ms, journal.microseconds(p.began_at),
       journal.microseconds(COALESCE(p.committed_at, '2200-01-01'))
  FROM journal.policy p ORDER BY p.id
"""


@dataclass
class Audit:
    """What a journal says."""

    findings: list[str] = field(default_factory=list[str])
    """Broken promises, one a line."""
    num_at_limit: int = 0
    """Dequeues after which as many messages of the channel were held as its limit allows."""
    num_spaced: int = 0
    """Dequeues that had to keep an interval from the one before."""


def audit(journal: Journal, *, with_crashes: bool = False) -> Audit:
    """Hold a journal, of a queue that was emptied in the end, against the promises.

    with_crashes: of the server, or of who dequeued; so a delivery need not have reached anybody.
    """
    result = Audit()
    result.findings += _lives(journal, with_crashes=with_crashes)
    channels: defaultdict[str, list[Delivery]] = defaultdict(list)
    for delivery in sorted(journal.deliveries, key=lambda d: d.locked_at):
        channels[delivery.channel].append(delivery)
    ends = _ends(journal)
    for channel, deliveries in channels.items():
        versions = [version for version in journal.versions if version.channel == channel]
        _limits(result, deliveries, versions, ends)
        _intervals(result, deliveries, versions)
    return result


def _lives(journal: Journal, *, with_crashes: bool) -> Iterable[str]:
    """Nothing is lost, nothing doubled, and a lock is good for as long as it holds."""
    deliveries: defaultdict[int, list[Delivery]] = defaultdict(list)
    for delivery in journal.deliveries:
        deliveries[delivery.id].append(delivery)
    endings: defaultdict[int, list[Ending]] = defaultdict(list)
    for ending in journal.endings:
        endings[ending.id].append(ending)
    if len(set(journal.created)) != len(journal.created):
        yield "an id was given to two messages"
    for id_ in deliveries.keys() - set(journal.created):
        yield f"{id_} was delivered, but its creation was rolled back"
    taken = Counter((delivery.id, delivery.num_attempts) for delivery in journal.deliveries)
    given = Counter((receipt.id, receipt.num_attempts) for receipt in journal.receipts)
    if given - taken or (taken - given and not with_crashes):
        yield f"locked, but given to nobody: {taken - given}; not locked, or given twice: {given - taken}"
    receipts = {(receipt.id, receipt.num_attempts): receipt for receipt in journal.receipts}
    for id_ in journal.created:
        life = sorted(deliveries[id_], key=lambda d: d.num_attempts)
        yield from _life(id_, life, endings[id_], receipts)


def _life(
    id_: int,
    deliveries: list[Delivery],
    endings: list[Ending],
    receipts: dict[tuple[int, int], Receipt],
) -> Iterable[str]:
    attempts = [delivery.num_attempts for delivery in deliveries]
    if attempts != list(range(1, len(attempts) + 1)):
        yield f"{id_} was delivered with the numbers {attempts}"
    last = [e for e in endings if e.result in ("MESSAGE_DELETED", "MESSAGE_CANCELLED")]
    if len(last) != 1:
        yield f"{id_} was removed {len(last)} times: lost or doubled"
    elif last[0].num_attempts not in (None, len(attempts)):
        yield f"{id_} was deleted as number {last[0].num_attempts} and delivered as number {len(attempts)}"

    deferred: dict[int | None, Ending] = {}
    for ending in endings:
        if ending.result == "MESSAGE_DEFERRED":
            if ending.num_attempts in deferred:
                yield f"{id_} was deferred twice as number {ending.num_attempts}"
            deferred[ending.num_attempts] = ending
    state = None
    for before, after in pairwise([None, *deliveries]):
        assert after is not None
        defer = deferred.get(before.num_attempts) if before else None
        state = defer.state if defer and defer.state is not None else state
        receipt = receipts.get((after.id, after.num_attempts))
        if receipt and receipt.state != state:
            yield f"{id_} came with the state {receipt.state!r}, not {state!r}"
        if before is None:
            is_unlocked = False
        else:
            is_unlocked = defer is None
            free_at = defer.at if defer else before.unlock_at
            if after.locked_at < free_at:
                yield f"{id_} was delivered {free_at - after.locked_at} us before its lock as {before} ended"
        if receipt and receipt.is_unlocked != is_unlocked:
            yield f"{id_} came with is_unlocked {receipt.is_unlocked} as number {after.num_attempts}"

    unlock_at = {delivery.num_attempts: delivery.unlock_at for delivery in deliveries}
    ended: set[int | None] = {None}  # a cancel has no number, and may find it locked
    for ending in endings:
        if ending.num_attempts not in ended:
            if ending.result in ("MESSAGE_DELETED", "MESSAGE_DEFERRED"):
                ended.add(ending.num_attempts)
            elif ending.answered_at < unlock_at.get(ending.num_attempts or 0, 0):
                yield f"{ending} although its lock held until {unlock_at[ending.num_attempts or 0]}"


def _ends(journal: Journal) -> dict[tuple[int, int], int]:
    """When deliveries were ended, at the earliest."""
    return {
        (ending.id, ending.num_attempts): ending.at
        for ending in journal.endings
        if ending.num_attempts is not None and ending.result in ("MESSAGE_DELETED", "MESSAGE_DEFERRED")
    }


def _in_force(delivery: Delivery, versions: list[Version]) -> range:
    """Which versions (by place; -1: none yet) a dequeue may have found to be the newest that is committed."""
    first = sum(version.committed_at < delivery.began_at for version in versions) - 1
    last = sum(version.began_at <= delivery.locked_at for version in versions) - 1
    return range(first, last + 1)


def _limits(
    result: Audit, deliveries: list[Delivery], versions: list[Version], ends: dict[tuple[int, int], int]
) -> None:
    """Never more of a channel are held than its limit: each from its lock to its end or the lock's."""
    held: list[Delivery] = []
    num_seen = 0
    for delivery in deliveries:
        while num_seen < len(deliveries) and deliveries[num_seen].locked_at <= delivery.locked_at:
            held.append(deliveries[num_seen])
            num_seen += 1
        held = [
            other
            for other in held
            if delivery.locked_at
            < min(other.unlock_at, ends.get((other.id, other.num_attempts), other.unlock_at))
        ]
        limits = [versions[i].max_concurrency if i >= 0 else None for i in _in_force(delivery, versions)]
        if None in limits:
            continue
        limit = max(limit for limit in limits if limit is not None)
        num_held = 1 + sum(other is not delivery for other in held)
        result.num_at_limit += num_held == limit
        if num_held > limit:
            result.findings.append(f"{num_held} held, limit {limit}: {delivery}")


def _intervals(result: Audit, deliveries: list[Delivery], versions: list[Version]) -> None:
    """Never less than the interval passes between two dequeues, if it was in force at the first one too."""
    for before, after in pairwise(deliveries):
        places = range(_in_force(before, versions).start, _in_force(after, versions).stop)
        intervals = [versions[i].release_interval_ms or 0 if i >= 0 else 0 for i in places]
        passed, interval = after.locked_at - before.locked_at, min(intervals) * 1000
        result.num_spaced += interval > 0
        if passed < interval:
            result.findings.append(f"{passed} us, interval {interval} us: {before}, {after}")
