"""The loop of a worker, Queue.consume and AsyncQueue.consume, and how failures are retried."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from time import monotonic
from typing import Any, Protocol, Self

import psycopg

from pylonny.adapters import AsyncPool, Pool
from pylonny.errors import ConnectionLostError, Error
from pylonny.operations import AC, AsyncRunner, C, Runner, milliseconds
from pylonny.queue import AsyncMessage, AsyncQueue, Message, Queue
from pylonny.results import Content, HeartbeatResult, NotAvailable
from pylonny.sessions import (
    AsyncSession,
    Connect,
    Do,
    Give,
    Listen,
    Routine,
    Session,
    Sleep,
    Wait,
    conninfo_of,
)

logger = logging.getLogger("pylonny")

_SLICE = 0.1  # seconds from one look at the stop event to the next

_stopped_by_sigterm: list[Stop] = []  # those of the loops in the main thread, of which asyncio may run many


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

    `queue` is run over psycopg; `deliver` makes what is given of a Hold; the others are those of
    Queue.consume.
    """

    def __init__(
        self,
        queue: Queue | AsyncQueue,
        deliver: Callable[[Hold], Any],
        *,
        lock_ms: int | timedelta,
        listen: str | None,
        poll_ms: int | timedelta,
        retry: RetryPolicy | None,
        stop: Stop,
    ) -> None:
        self._queue = queue
        self._deliver = deliver
        self._lock_ms = milliseconds(lock_ms)
        self._listen = listen
        self._poll = milliseconds(poll_ms) / 1000
        self._retry = retry or Backoff()
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
        third = max(self._lock_ms, 30) / 3000  # seconds; a lock of nothing needs no heartbeat
        pause = third
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
                pause = min(1.0, third / 3)
                logger.warning("heartbeat of message %s failed: %s", held.message.id, error)
            else:
                pause = third
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


class Delivery(Message[C]):
    """A message of Queue.consume, which keeps it locked until the next one is asked for.

    In `with message:` an exception is logged, and the retry policy says what becomes of the message; it ends
    there. KeyboardInterrupt, SystemExit and the like go on, and leave the message to its lock.
    """

    __slots__ = ("_held", "_loop", "_session")

    _held: Hold
    _loop: Loop
    _session: Session

    def __init__(self, held: Hold, runner: Runner[C], loop: Loop, session: Session) -> None:
        super().__init__(*_values(held.message), runner)
        # As its base, frozen, has it; assignments would fail.
        object.__setattr__(self, "_held", held)
        object.__setattr__(self, "_loop", loop)
        object.__setattr__(self, "_session", session)

    @property
    def is_lost(self) -> bool:
        """Whether a heartbeat found that the message is another's, or gone: stop working on it."""
        return self._held.is_lost

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        for _ in self._session.run(self._loop.failed(self._held, error)):
            pass
        return True


class AsyncDelivery(AsyncMessage[AC]):
    """A message of AsyncQueue.consume, which keeps it locked until the next one is asked for.

    In `async with message:` an exception is logged, and the retry policy says what becomes of the message; it
    ends there. asyncio.CancelledError and the like go on, and leave the message to its lock.
    """

    __slots__ = ("_held", "_loop", "_session")

    _held: Hold
    _loop: Loop
    _session: AsyncSession

    def __init__(self, held: Hold, runner: AsyncRunner[AC], loop: Loop, session: AsyncSession) -> None:
        super().__init__(*_values(held.message), runner)
        # As its base, frozen, has it; assignments would fail.
        object.__setattr__(self, "_held", held)
        object.__setattr__(self, "_loop", loop)
        object.__setattr__(self, "_session", session)

    @property
    def is_lost(self) -> bool:
        """Whether a heartbeat found that the message is another's, or gone: stop working on it."""
        return self._held.is_lost

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        async for _ in self._session.run(self._loop.failed(self._held, error)):
            pass
        return True


def _values(
    message: Message[Any] | AsyncMessage[Any],
) -> tuple[int, str, Content, Content | None, int, bool, datetime]:
    """The fields of a message that the caller sees."""
    return (
        message.id,
        message.channel,
        message.content,
        message.state,
        message.num_attempts,
        message.is_unlocked,
        message.unlock_at,
    )


def consume(
    runner: Runner[C],
    source: str | psycopg.Connection[Any] | Pool,
    *,
    lock_ms: int | timedelta,
    listen: str | None,
    poll_ms: int | timedelta,
    retry: RetryPolicy | None,
    stop: Stop | None,
) -> Generator[Delivery[C]]:
    """The deliveries of Queue.consume; `runner` is for what the body does with them."""

    def deliver(held: Hold) -> Delivery[C]:
        return Delivery(held, runner, loop, session)

    stop = stop or threading.Event()
    conninfo = _conninfo(source)
    session, heart = Session(conninfo=conninfo), Session(conninfo=conninfo)
    queue = Queue(runner.statements.schema)
    loop = Loop(queue, deliver, lock_ms=lock_ms, listen=listen, poll_ms=poll_ms, retry=retry, stop=stop)
    beating = threading.Thread(target=_finish, args=(heart, loop.heartbeats()), daemon=True)
    beating.start()
    try:
        with stopped_by_sigterm(stop):
            yield from session.run(loop.deliveries())
    finally:
        loop.over.set()
        beating.join()
        session.close()


async def consume_async(
    runner: AsyncRunner[AC],
    source: str | psycopg.AsyncConnection[Any] | AsyncPool,
    *,
    lock_ms: int | timedelta,
    listen: str | None,
    poll_ms: int | timedelta,
    retry: RetryPolicy | None,
    stop: Stop | None,
) -> AsyncGenerator[AsyncDelivery[AC]]:
    """The deliveries of AsyncQueue.consume; `runner` is for what the body does with them."""

    def deliver(held: Hold) -> AsyncDelivery[AC]:
        return AsyncDelivery(held, runner, loop, session)

    stop = stop or threading.Event()
    conninfo = await _async_conninfo(source)
    session, heart = AsyncSession(conninfo=conninfo), AsyncSession(conninfo=conninfo)
    queue = AsyncQueue(runner.statements.schema)
    loop = Loop(queue, deliver, lock_ms=lock_ms, listen=listen, poll_ms=poll_ms, retry=retry, stop=stop)
    beating = asyncio.create_task(_async_finish(heart, loop.heartbeats()))
    deliveries = session.run(loop.deliveries())
    try:
        with stopped_by_sigterm(stop):
            async for message in deliveries:
                yield message
    finally:
        loop.over.set()
        await deliveries.aclose()
        await beating
        await session.close()


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
    if not is_main or signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, _on_sigterm):
        yield
        return
    _stopped_by_sigterm.append(stop)
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        yield
    finally:
        _stopped_by_sigterm.remove(stop)
        if not _stopped_by_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _on_sigterm(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for stop in _stopped_by_sigterm:
        stop.set()


def _conninfo(source: str | psycopg.Connection[Any] | Pool) -> str:
    if isinstance(source, str):
        return source
    if isinstance(source, psycopg.Connection):
        return conninfo_of(source)
    with source.connection() as conn:
        return conninfo_of(conn)


async def _async_conninfo(source: str | psycopg.AsyncConnection[Any] | AsyncPool) -> str:
    if isinstance(source, str):
        return source
    if isinstance(source, psycopg.AsyncConnection):
        return conninfo_of(source)
    async with source.connection() as conn:
        return conninfo_of(conn)


def _finish(session: Session, routine: Routine) -> None:
    """Run a routine that gives nothing to its end."""
    for _ in session.run(routine):
        pass
    session.close()


async def _async_finish(session: AsyncSession, routine: Routine) -> None:
    """Run a routine that gives nothing to its end."""
    async for _ in session.run(routine):
        pass
    await session.close()
