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
    from pylonny.errors import InstallError, InvalidNameError, PylonnyError
    from pylonny.queue import Channel, Message, NotAvailable, Queue
    from pylonny.results import DeferResult, DeleteResult, HeartbeatResult

__version__ = "0.1.0"

__all__ = [
    "Channel",
    "DeferResult",
    "DeleteResult",
    "HeartbeatResult",
    "InstallError",
    "InvalidNameError",
    "Message",
    "NotAvailable",
    "PylonnyError",
    "Queue",
    "__version__",
]

_MODULES = {
    "Channel": "queue",
    "DeferResult": "results",
    "DeleteResult": "results",
    "HeartbeatResult": "results",
    "InstallError": "errors",
    "InvalidNameError": "errors",
    "Message": "queue",
    "NotAvailable": "queue",
    "PylonnyError": "errors",
    "Queue": "queue",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
