"""The demo's child processes."""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, cast

_FINISH_SECONDS = 10.0  # for a child to finish what it has in hand


class DemoError(Exception):
    """The demo cannot go on; says why."""


class Child:
    """A Python module run as a process: it says "ready", begins when told to, ends when its input ends.

    It has a process group of its own, out of reach of the terminal's Ctrl-C: its parent ends it. If the
    parent is killed, its input ends all the same.

    Raises DemoError, from any method, if it ended otherwise than it should, with what it said last.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - see kill
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            process_group=0,
        )
        self._input = cast(IO[str], self._process.stdin)
        self._output = cast(IO[str], self._process.stdout)

    def expect_ready(self) -> None:
        """Wait until it says that it is ready."""
        if self._output.readline() != "ready\n":
            raise DemoError(f"the {self.name} did not start: {self._last_words()}")

    def begin(self, line: str = "") -> None:
        """Tell it to begin, and with what."""
        with suppress(BrokenPipeError):  # `is_running` will say why
            self._input.write(line + "\n")
            self._input.flush()

    def has_said(self, line: str) -> bool:
        """Whether it has said that by now. What it says is consumed."""
        heard = select.select([self._output], [], [], 0)[0]
        return bool(heard) and self._output.readline() == line + "\n"

    def is_running(self) -> bool:
        """False once it has ended as it should."""
        status = self._process.poll()
        if status:
            raise DemoError(f"the {self.name} ended with status {status}: {self._last_words()}")
        return status is None

    def finish(self) -> None:
        """End its input and wait until it has ended."""
        with suppress(BrokenPipeError):
            self._input.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_FINISH_SECONDS)
        if self.is_running():
            raise DemoError(f"the {self.name} did not end within {_FINISH_SECONDS:.0f} seconds")

    def kill(self) -> None:
        """End it with SIGKILL, if it still runs: it can do nothing about it, nor tell the database."""
        self._process.kill()
        self._process.wait()
        self._output.close()
        self._errors.close()
        with suppress(BrokenPipeError):
            self._input.close()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or ["it did not say why"]
        last = max(number for number, line in enumerate(lines) if line and not line[0].isspace())
        return " ".join(line.strip() for line in lines[last:])  # a traceback's error, of several lines maybe
