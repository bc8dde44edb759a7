"""The answers of the queue's functions: the labels of the enums in SQL, and rows that are not messages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self


class DeleteResult(StrEnum):
    """What became of a delete."""

    MESSAGE_DELETED = "MESSAGE_DELETED"
    """The message is gone when the transaction commits."""
    MESSAGE_NOT_FOUND = "MESSAGE_NOT_FOUND"
    """There is no such message: it was deleted or cancelled."""
    MESSAGE_STATE_INVALID = "MESSAGE_STATE_INVALID"
    """The message was dequeued or deferred since: it is no longer this worker's. Nothing changed."""


class DeferResult(StrEnum):
    """What became of a defer."""

    MESSAGE_DEFERRED = "MESSAGE_DEFERRED"
    """The message will be dequeued again once its delay is over."""
    MESSAGE_NOT_FOUND = "MESSAGE_NOT_FOUND"
    """There is no such message: it was deleted or cancelled."""
    MESSAGE_STATE_INVALID = "MESSAGE_STATE_INVALID"
    """The message was dequeued or deferred since: it is no longer this worker's. Nothing changed."""


class HeartbeatResult(StrEnum):
    """What became of a heartbeat."""

    MESSAGE_HEARTBEATED = "MESSAGE_HEARTBEATED"
    """The lock holds for another `lock_ms` from now, or for as long as it did if that is longer."""
    MESSAGE_NOT_FOUND = "MESSAGE_NOT_FOUND"
    """There is no such message: it was deleted or cancelled."""
    MESSAGE_STATE_INVALID = "MESSAGE_STATE_INVALID"
    """The lock is lost. Nothing changed; stop working on the message."""
    MESSAGE_BUSY = "MESSAGE_BUSY"
    """Another transaction is finishing the message right now; a heartbeat does not wait. Nothing changed."""


class CancelResult(StrEnum):
    """What became of a cancel."""

    MESSAGE_CANCELLED = "MESSAGE_CANCELLED"
    """The message is gone when the transaction commits."""
    MESSAGE_NOT_FOUND = "MESSAGE_NOT_FOUND"
    """There is no such message: it was deleted or cancelled."""
    MESSAGE_STATE_INVALID = "MESSAGE_STATE_INVALID"
    """A worker has the message: it is locked. Nothing changed."""


class MessageStatus(StrEnum):
    """Where a message is in its life."""

    WAITING = "WAITING"
    """For its delay, or for its channel's policy."""
    READY = "READY"
    """The next dequeue may take it."""
    LOCKED = "LOCKED"
    """A worker has it, or had it, and nobody has noticed yet that its lock expired."""


@dataclass(frozen=True, slots=True)
class MessageState:
    """What Queue.status tells of a message. Times are the server's."""

    id: int
    status: MessageStatus
    channel: str
    """The channel that it was created in, or a random name if in none."""
    num_attempts: int
    """How often it was dequeued."""
    created_at: datetime
    dequeue_at: datetime
    """When it is or was due: the time of its creation or deferral, plus the delay."""
    locked_at: datetime | None
    """When it was dequeued last; None if never."""
    unlock_at: datetime | None
    """When the lock of its last dequeue ends or ended; None if it was not dequeued since it was deferred."""


@dataclass(frozen=True, slots=True)
class NotAvailable:
    """No message can be had at the moment."""

    retry_ms: int | None
    """Milliseconds until something that is known already can become available; None if nothing is known."""


class Content(bytes):
    """What a message carries, and the state that a deferral leaves with it: bytes, and ways to read them."""

    __slots__ = ()

    @classmethod
    def from_json(cls, value: object) -> Self:
        """`value` as JSON in UTF-8. Raises what json.dumps raises for a value that has no JSON."""
        return cls(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode())

    def text(self) -> str:
        """The bytes as UTF-8. Raises UnicodeDecodeError."""
        return self.decode()

    def json(self) -> Any:  # noqa: ANN401
        """The bytes as JSON. Raises json.JSONDecodeError or UnicodeDecodeError, both of them ValueErrors."""
        return json.loads(self)
