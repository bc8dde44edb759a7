"""Processes that use the queue at the same time, each with a random number generator of its own.

    with Fleet(seed) as fleet:
        workers = [fleet.start(work, dsn) for _ in range(8)]
        fleet.order("stop")
        results = [worker.result() for worker in workers]

A task is a function `task(orders, ...)`. It rests by `orders.rest`, which ends early if there is reason to,
so that nobody ever waits for a resting process; and it ends when `orders.stop` says so, or when the test is
gone.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from multiprocessing import get_context
from multiprocessing.connection import wait
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection as Pipe
    from multiprocessing.context import ForkServerProcess

# A fork of the test itself would share its connections and its server's guard. These are forks of a process
# that has nothing but what they all import, which takes longer than the fork.
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["psycopg", "pytest", "tests.support.chaos"])
_DEADLINE = 60.0  # seconds; for what takes a few


class Orders:
    """The end of the pipe that a process has: what it is told, and what it reports."""

    def __init__(self, pipe: Pipe[Any, Any], seed: str) -> None:
        self.random = Random(seed)  # noqa: S311 (nothing secret)
        self.calm = False  # do the work, without mishaps, and nothing else
        self.stop = False
        self._going = False
        self._pipe = pipe

    def rest(self, seconds: float) -> None:
        """Let time pass: the whole of it, unless it becomes calm or is to stop meanwhile."""
        deadline = time.monotonic() + seconds
        was_calm = self.calm
        while not self.stop and self.calm == was_calm and self._listen(deadline - time.monotonic()):
            pass

    def wait_for_go(self) -> None:
        """Say that all is prepared, and wait until the others are prepared too."""
        self._pipe.send(("ready", None))
        while not self._going and not self.stop:
            self._listen(_DEADLINE)

    def chance(self, probability: float) -> bool:
        """True as often as that; never once it has become calm."""
        return not self.calm and self.random.random() < probability

    def die(self) -> NoReturn:
        """End as a process does whose machine fails: nothing is finished, closed or said."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")

    def _listen(self, seconds: float) -> bool:
        """Obey the next order; False if none comes within that time."""
        if not self._pipe.poll(max(seconds, 0.0)):
            return False
        try:
            order = self._pipe.recv()
        except (EOFError, ConnectionResetError):  # the test is gone
            order = "stop"
        self.calm = self.calm or order == "calm"
        self.stop = self.stop or order == "stop"
        self._going = self._going or order == "go"
        return True


def _run(task: Callable[..., object], pipe: Pipe[Any, Any], seed: str, args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the test too, which then ends its fleet
    try:
        said = ("result", task(Orders(pipe, seed), *args))
    except BaseException:  # noqa: BLE001 (the test raises it)
        said = ("error", traceback.format_exc())
    try:
        pipe.send(said)
    except (BrokenPipeError, ConnectionResetError):
        os._exit(1)  # the test is gone


class Member:
    """One process of a fleet."""

    def __init__(self, task: Callable[..., object], seed: str, args: tuple[Any, ...]) -> None:
        self.task = task
        self.args = args
        self._heard: tuple[str, Any] | None = None
        self.pipe, pipe = _CONTEXT.Pipe()
        self.process: ForkServerProcess = _CONTEXT.Process(
            target=_run, args=(task, pipe, seed, args), daemon=True
        )
        self.process.start()
        pipe.close()  # so that either end notices if the other is gone

    @property
    def has_said(self) -> bool:
        """Whether it has said something that nobody has asked for yet: its result, or its end."""
        return self._hear(0) is not None

    @property
    def is_killed(self) -> bool:
        """Whether it was killed, by itself or by the test. AssertionError if it has failed in another way."""
        heard = self._hear(0)
        if heard is None or heard[0] in ("ready", "result"):
            return False
        assert heard == ("exit", -signal.SIGKILL), heard[1]
        return True

    @property
    def is_silent(self) -> bool:
        """Whether nothing of it was read that is still to be asked for."""
        return self._heard is None

    def order(self, order: str) -> None:
        """Tell it; if it has ended, in whatever way, that is for those to find who ask for its result."""
        try:
            self.pipe.send(order)
        except (BrokenPipeError, ConnectionResetError):
            self.process.join()

    def result(self) -> Any:
        """Wait for the end of its task. AssertionError, with the traceback, if it raised."""
        return self._receive("result")

    def wait_until_ready(self) -> None:
        """Wait until its task waits for go."""
        self._receive("ready")

    def end(self) -> None:
        """Kill it, if it still lives."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()

    def _receive(self, expected: str) -> Any:
        heard = self._hear(_DEADLINE)
        assert heard is not None, f"{self.task.__name__} has said nothing for {_DEADLINE} s"
        kind, value = heard
        assert kind == expected, value
        self._heard = None
        return value

    def _hear(self, timeout: float) -> tuple[str, Any] | None:
        if self._heard is None and self.pipe.poll(timeout):
            try:
                self._heard = self.pipe.recv()
            except (EOFError, ConnectionResetError):
                self.process.join()
                self._heard = ("exit", self.process.exitcode)
        return self._heard


class Fleet:
    """All processes of a test; those that still run at its end are killed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._started = 0
        self._orders: list[str] = []
        self.members: list[Member] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.process.kill()  # all of them first: one after the other they would see each other's end
        for member in self.members:
            member.end()

    def start(self, task: Callable[..., object], *args: Any) -> Member:
        """Start a process. The task and its arguments must be picklable."""
        self._started += 1
        member = Member(task, f"{self._seed}/{self._started}", args)
        for order in self._orders:
            member.order(order)
        self.members.append(member)
        return member

    def replace(self, member: Member) -> Member:
        """Start another process in the place of one that was killed."""
        member.end()
        self.members.remove(member)
        return self.start(member.task, *member.args)

    def order(self, order: str) -> None:
        """Tell all, and those that are started later too: `go`, `calm` or `stop`."""
        self._orders.append(order)
        for member in self.members:
            member.order(order)

    def go(self) -> None:
        """Wait until all are prepared, and let them begin at the same moment."""
        for member in self.members:
            member.wait_until_ready()
        self.order("go")

    def listen(self, seconds: float) -> None:
        """Wait until a process says something that was not heard before, or for so long."""
        wait([member.pipe for member in self.members if member.is_silent], timeout=seconds)
