"""The loop of a worker: what Queue.consume and AsyncQueue.consume share, and how failures are retried."""

from __future__ import annotations

import logging
import random
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

import psycopg

from pylonny.errors import ConnectionLostError, Error
from pylonny.operations import milliseconds
from pylonny.results import HeartbeatResult, NotAvailable
from pylonny.sessions import Connect, Do, Give, Listen, Routine, Sleep, Wait

if TYPE_CHECKING:
    from pylonny.queue import AsyncMessage, AsyncQueue, Message, Queue

logger = logging.getLogger("pylonny")

_SLICE = 0.1  # seconds from one look at the stop event to the next


class Outcome(Enum):
    """What a retry policy can answer beside a delay or a DeadLetter."""

    LEAVE = "leave"
    """Do nothing: the message is delivered again when its lock expires."""
    DELETE = "delete"
    """Remove the message: it is lost."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What a retry policy can answer: move the message to this channel, where it counts as a new one.

    See Message.dead_letter. Workers get it from there too: pause the channel to keep them from it.
    """

    channel: str


RetryPolicy = Callable[[int], int | timedelta | Outcome | DeadLetter]
"""What to do after a failure, by the number of attempts so far: defer for so many milliseconds, or else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """A retry policy: defer for longer and longer.

    The first delay is `first_ms` milliseconds, each further one `factor` times as long, none longer than
    `max_ms`; of each, up to the fraction `jitter` is left out at random, so that what failed together does
    not come back together. It goes on for ever, or for `max_attempts`, and then `exhausted` says what becomes
    of the message. Raises ValueError if one of these two is given without the other.
    """

    first_ms: int = 1000
    factor: float = 2.0
    max_ms: int = 3_600_000
    jitter: float = 0.2
    max_attempts: int | None = None
    exhausted: Outcome | DeadLetter | None = None

    def __post_init__(self) -> None:
        if (self.max_attempts is None) != (self.exhausted is None):
            raise ValueError(
                "max_attempts and exhausted go together:"
                " say what becomes of a message, as in exhausted=DeadLetter('failed')"
            )

    def __call__(self, num_attempts: int) -> int | Outcome | DeadLetter:
        """The delay in milliseconds after that many attempts, or `exhausted`."""
        if self.max_attempts is not None and self.exhausted is not None and num_attempts >= self.max_attempts:
            return self.exhausted
        return self.delay_ms(num_attempts)

    def delay_ms(self, num_attempts: int) -> int:
        """The delay in milliseconds after that many attempts."""
        longest = min(self.max_ms, self.first_ms * self.factor ** min(num_attempts - 1, 100))
        return round(longest * (1 - self.jitter * random.random()))  # noqa: S311 - no secret


BACKOFF: Final = Backoff()


class Stop(Protocol):
    """What tells a loop to stop: a threading.Event or an asyncio.Event."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...

    def set(self) -> None:
        """Tell it to stop."""
        ...


class Hold:
    """A message while its worker has it: `message` is run over psycopg, on the connections of the loop."""

    __slots__ = ("is_lost", "message")

    def __init__(self, message: Message | AsyncMessage) -> None:
        self.message = message
        self.is_lost = False


class Loop:
    """The routines of one consumer: its deliveries, its heartbeats, what follows on a failure.

    `queue` is run over psycopg; `deliver` makes what is given of a Hold; `lock` and `poll` are milliseconds.
    """

    def __init__(
        self,
        queue: Queue | AsyncQueue,
        deliver: Callable[[Hold], Any],
        *,
        lock_ms: int | timedelta,
        listen: str | None,
        poll_ms: int | timedelta,
        retry: RetryPolicy,
        stop: Stop,
    ) -> None:
        self._queue = queue
        self._deliver = deliver
        self._lock_ms = milliseconds(lock_ms)
        self._listen = listen
        self._poll = milliseconds(poll_ms) / 1000
        self._retry = retry
        self._stop = stop
        self._held: Hold | None = None
        self._lost = 0  # connections, since the last dequeue that succeeded
        self.over = threading.Event()

    def deliveries(self) -> Routine:
        """Give one message after the other, over a connection that is made anew when it is lost."""
        reconnect = Backoff(first_ms=100, max_ms=10_000)
        was_connected = False
        while not self._stop.is_set():
            try:
                yield Connect()
                if self._listen is not None:
                    yield Listen(self._listen)
                was_connected = True
                while not self._stop.is_set():
                    yield from self._next()
            except ConnectionLostError as error:
                if not was_connected:
                    raise
                self._lost += 1
                logger.warning("connecting again: %s", error)
                yield from _pause(reconnect.delay_ms(self._lost) / 1000, self._stop)

    def heartbeats(self) -> Routine:
        """Keep the lock of the message that is held, over a connection of its own, until the loop is over."""
        is_connected = False
        pause = self._lock_ms / 3000
        while not self.over.is_set():
            yield from _pause(pause, self.over)
            held = self._held
            if held is None or held.is_lost or self.over.is_set():
                continue
            try:
                if not is_connected:
                    yield Connect()
                    is_connected = True
                result = yield Do(held.message.heartbeat)
            except (Error, psycopg.Error) as error:
                is_connected = False
                pause = min(1.0, self._lock_ms / 10_000)
                logger.warning("heartbeat of message %s failed: %s", held.message.id, error)
            else:
                pause = self._lock_ms / 3000
                held.is_lost = result in (
                    HeartbeatResult.MESSAGE_NOT_FOUND,
                    HeartbeatResult.MESSAGE_STATE_INVALID,
                )

    def failed(self, held: Hold, error: Exception) -> Routine:
        """Do with a message whose worker has failed what the retry policy says."""
        message = held.message
        outcome = self._retry(message.num_attempts)
        finish: Callable[[Any], Any] | None
        match outcome:
            case Outcome.LEAVE:
                what, finish = "leave", None
            case Outcome.DELETE:
                what, finish = "delete", message.delete
            case DeadLetter(channel):
                what = f"to channel {channel}"
                finish = partial(message.dead_letter, channel=channel, lock_ms=self._lock_ms)
            case delay_ms:
                what = f"again in {milliseconds(delay_ms)} ms"
                finish = partial(message.defer, delay_ms=delay_ms)
        logger.error(
            "message %s of channel %s, attempt %s: %s",
            message.id,
            message.channel,
            message.num_attempts,
            what,
            exc_info=error,
        )
        if finish is None:
            return
        try:
            # Unlike the others it does not wait for a transaction that has its hands on the message.
            if (yield Do(message.heartbeat)) is HeartbeatResult.MESSAGE_BUSY:
                logger.error("message %s is left: an open transaction finishes it", message.id)
            else:
                yield Do(finish)
        except (Error, psycopg.Error) as another:
            logger.warning("message %s is left until its lock expires: %s", message.id, another)

    def _next(self) -> Routine:
        """Give a message, or wait until there may be one."""
        taken = yield Do(lambda conn: self._queue.dequeue(conn, lock_ms=self._lock_ms))
        self._lost = 0
        if isinstance(taken, NotAvailable):
            seconds = self._poll if taken.retry_ms is None else min(taken.retry_ms / 1000, self._poll)
            yield from _pause(seconds, self._stop, Wait)
            return
        self._held = Hold(taken)
        try:
            yield Give(self._deliver(self._held))
        finally:
            self._held = None


def _pause(seconds: float, stop: Stop, step: type[Sleep | Wait] = Sleep) -> Routine:
    """Let time pass until something arrives, or one is to stop."""
    end = monotonic() + seconds
    while not stop.is_set() and (left := end - monotonic()) > 0:
        if (yield step(min(left, _SLICE))):
            return


@contextmanager
def stopped_by_sigterm(stop: Stop) -> Generator[None]:
    """Have SIGTERM set the event, unless the program does something else with it; once, then it kills."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def handle(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
