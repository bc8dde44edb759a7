"""The answers of the queue's functions: the labels of the enums in SQL."""

from __future__ import annotations

from enum import StrEnum


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
