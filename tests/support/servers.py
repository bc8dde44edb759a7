"""Servers that are killed, and come back."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from pylonny.server import ServerError
from tests.support.sessions import wait_until

if TYPE_CHECKING:
    from pylonny.server import PrivateServer

_PATIENCE = 60.0  # seconds, for what takes a few

# What a crash may take is what a server in use could lose too: its memory is gone, its disk is not.
DURABLE = {"fsync": "on", "full_page_writes": "on"}


def kill(server: PrivateServer) -> None:
    """As the machine's memory running out would: the postmaster gets no chance to do anything."""
    pid = int((server.data / "postmaster.pid").read_text().splitlines()[0])
    os.kill(pid, signal.SIGKILL)


def start(server: PrivateServer) -> None:
    """Start a server again; it refuses as long as one of the former's processes lives."""

    def starts() -> bool:
        with suppress(ServerError):
            server.start()
            return True
        return False

    wait_until(starts, "the server starts again", _PATIENCE)
