"""A multi-tenant message queue that is nothing but PostgreSQL.

    python -m pylonny install --dsn postgresql:///app

    from pylonny import Queue

    queue = Queue("lonny")
    queue.channel("tenant-1").message.create(conn, content=b"hello", lock_ms=30_000)

Names are loaded when first used, so that a worker that only dequeues never imports the template engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pylonny.consumer import AsyncDelivery, Backoff, DeadLetter, Delivery, Outcome, RetryPolicy
    from pylonny.errors import (
        ConflictError,
        ConnectionLostError,
        DatabaseError,
        Error,
        InstallError,
        InvalidArgumentError,
        InvalidNameError,
        ListenError,
        NotInstalledError,
        PermissionDeniedError,
        TransactionError,
        VersionMismatchError,
        WaitTimeoutError,
    )
    from pylonny.events import (
        ChannelPolicyChanged,
        MessageCreated,
        MessageDeferred,
        MessageDeleted,
        decode_event,
    )
    from pylonny.queue import (
        AsyncBatch,
        AsyncChannel,
        AsyncMessage,
        AsyncQueue,
        Batch,
        Channel,
        Message,
        Queue,
    )
    from pylonny.results import (
        CancelResult,
        Content,
        DeferResult,
        DeleteResult,
        HeartbeatResult,
        MessageState,
        MessageStatus,
        NotAvailable,
    )

__version__ = "0.1.0"

__all__ = [
    "AsyncBatch",
    "AsyncChannel",
    "AsyncDelivery",
    "AsyncMessage",
    "AsyncQueue",
    "Backoff",
    "Batch",
    "CancelResult",
    "Channel",
    "ChannelPolicyChanged",
    "ConflictError",
    "ConnectionLostError",
    "Content",
    "DatabaseError",
    "DeadLetter",
    "DeferResult",
    "DeleteResult",
    "Delivery",
    "Error",
    "HeartbeatResult",
    "InstallError",
    "InvalidArgumentError",
    "InvalidNameError",
    "ListenError",
    "Message",
    "MessageCreated",
    "MessageDeferred",
    "MessageDeleted",
    "MessageState",
    "MessageStatus",
    "NotAvailable",
    "NotInstalledError",
    "Outcome",
    "PermissionDeniedError",
    "Queue",
    "RetryPolicy",
    "TransactionError",
    "VersionMismatchError",
    "WaitTimeoutError",
    "__version__",
    "decode_event",
]

_MODULES = {
    "AsyncBatch": "queue",
    "AsyncChannel": "queue",
    "AsyncDelivery": "consumer",
    "AsyncMessage": "queue",
    "AsyncQueue": "queue",
    "Backoff": "consumer",
    "Batch": "queue",
    "CancelResult": "results",
    "Channel": "queue",
    "ChannelPolicyChanged": "events",
    "ConflictError": "errors",
    "ConnectionLostError": "errors",
    "Content": "results",
    "DatabaseError": "errors",
    "DeadLetter": "consumer",
    "DeferResult": "results",
    "DeleteResult": "results",
    "Delivery": "consumer",
    "Error": "errors",
    "HeartbeatResult": "results",
    "InstallError": "errors",
    "InvalidArgumentError": "errors",
    "InvalidNameError": "errors",
    "ListenError": "errors",
    "Message": "queue",
    "MessageCreated": "events",
    "MessageDeferred": "events",
    "MessageDeleted": "events",
    "MessageState": "results",
    "MessageStatus": "results",
    "NotAvailable": "results",
    "NotInstalledError": "errors",
    "Outcome": "consumer",
    "PermissionDeniedError": "errors",
    "Queue": "queue",
    "RetryPolicy": "consumer",
    "TransactionError": "errors",
    "VersionMismatchError": "errors",
    "WaitTimeoutError": "errors",
    "decode_event": "events",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
