"""The queue as a plain Python program: what it promises, without SQL, sessions or indexes.

It says what one client sees of it. Every operation takes the time from `clock`, in whole microseconds since
the clock was stopped; what is given and returned in milliseconds ends in `_ms`.

Three things are left open. Whether a create looks if its message is released at once: `admit` tells. And two
that depend on how much a dequeue does for others: whether a lock that is over was noticed, and whether a
waiting message was released ahead of its turn. A dequeue that is its own transaction does all that is due;
after any other these are not known (`is_exact`, `Message.is_noticed`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

BUSY_MS = 50
LOOK_MS = 200
FAR_MS = 1000  # beside an old snapshot


@dataclass
class Message:
    id: int
    channel: str | None
    content: bytes
    lock_ms: int
    created_at: int
    dequeue_at: int
    status: str
    state: bytes | None = None
    num_attempts: int = 0
    locked_at: int | None = None
    unlock_at: int | None = None  # None: not dequeued since its creation or deferral
    is_noticed: bool = True  # False: it may still be locked, although its lock is over

    @property
    def place(self) -> tuple[int, int]:
        return (self.dequeue_at, self.id)


@dataclass(frozen=True)
class Policy:
    max_concurrency: int | None
    release_interval_ms: int | None

    @property
    def interval(self) -> int:
        """In microseconds; 0 if there is none."""
        return (self.release_interval_ms or 0) * 1000


@dataclass(frozen=True)
class Delivery:
    """What a dequeue returns of a message."""

    id: int
    channel: str | None
    content: bytes
    state: bytes | None
    num_attempts: int
    is_unlocked: bool
    unlock_at: int


@dataclass
class Model:
    lanes: dict[str | None, int]  # the place of each channel in the rotation
    clock: int = 0
    messages: dict[int, Message] = field(default_factory=dict[int, Message])
    policies: dict[str | None, Policy] = field(default_factory=dict[str | None, Policy])
    # The releases of a channel that an interval may have to be counted from, each until its timer ends: pairs
    # of (end of the timer, release).
    releases: dict[str | None, set[tuple[int, int]]] = field(
        default_factory=dict[str | None, set[tuple[int, int]]]
    )
    served: int = 0
    is_exact: bool = True

    # Operations

    def create(self, id_: int, channel: str | None, content: bytes, lock_ms: int, delay_ms: int) -> None:
        self.messages[id_] = Message(
            id=id_,
            channel=channel,
            content=content,
            lock_ms=lock_ms,
            created_at=self.clock,
            dequeue_at=self.clock + delay_ms * 1000,
            status=self._status_after(channel, delay_ms),
        )

    def admit(self, id_: int) -> None:
        """A create that is a transaction of its own may find that its message is released at once."""
        message = self.messages[id_]
        assert message in self._released(message.channel)
        message.status = "READY"

    def dequeue(self, max_messages: int, lock_ms: int | None, *, is_alone: bool) -> list[Delivery]:
        self._tend(is_alone=is_alone)
        deliveries: list[Delivery] = []
        for _ in range(max_messages):
            first = self._next()
            if first is None:
                break
            deliveries.append(self._take(first, lock_ms))
        return deliveries

    def delete(self, id_: int, num_attempts: int) -> str:
        if (answer := self._fence(id_, num_attempts)) is not None:
            return answer
        del self.messages[id_]
        return "MESSAGE_DELETED"

    def defer(self, id_: int, num_attempts: int, delay_ms: int, state: bytes | None) -> str:
        if (answer := self._fence(id_, num_attempts)) is not None:
            return answer
        message = self.messages[id_]
        message.status = self._status_after(message.channel, delay_ms)
        message.dequeue_at = self.clock + delay_ms * 1000
        message.unlock_at = None
        message.is_noticed = True
        message.state = message.state if state is None else state
        return "MESSAGE_DEFERRED"

    def heartbeat(self, id_: int, num_attempts: int, lock_ms: int | None, *, was_locked: bool) -> str:
        """`was_locked` decides where it is not known whether the end of the lock was noticed."""
        message = self.messages.get(id_)
        if message is None:
            return "MESSAGE_NOT_FOUND"
        if message.num_attempts == num_attempts and not message.is_noticed and was_locked:
            message.status = "LOCKED"
        if message.num_attempts != num_attempts or message.status != "LOCKED" or message.unlock_at is None:
            return "MESSAGE_STATE_INVALID"
        message.is_noticed = True
        message.lock_ms = message.lock_ms if lock_ms is None else lock_ms
        message.unlock_at = max(message.unlock_at, self.clock + message.lock_ms * 1000)
        return "MESSAGE_HEARTBEATED"

    def cancel(self, id_: int) -> str:
        message = self.messages.get(id_)
        if message is None:
            return "MESSAGE_NOT_FOUND"
        if self.is_held(message):
            return "MESSAGE_STATE_INVALID"
        del self.messages[id_]
        return "MESSAGE_CANCELLED"

    def policy_set(self, channel: str, max_concurrency: int | None, release_interval_ms: int | None) -> None:
        self.policies.pop(channel, None)
        if max_concurrency is not None or release_interval_ms:
            self.policies[channel] = Policy(max_concurrency, release_interval_ms)

    def rolled_back_to(self, before: Model) -> Model:
        """What is left when a transaction that began with `before` is rolled back: only time and turns."""
        before.clock = self.clock
        before.served = self.served
        before.is_exact = False
        return before

    # What can be seen

    def is_held(self, message: Message) -> bool:
        """Whether a worker has it, and nobody else can get it."""
        return message.status == "LOCKED" and (message.unlock_at or 0) > self.clock

    def known_events(self) -> set[int]:
        """The times to come at which something changes: a delay, a lock or an interval ends."""
        events = {m.dequeue_at for m in self.messages.values() if not self.is_held(m)}
        events |= {m.unlock_at for m in self.messages.values() if self.is_held(m) and m.unlock_at}
        events |= {at for timers in self.releases.values() for at, _ in timers}
        return {at for at in events if at > self.clock}

    def is_available(self, at: int) -> bool:
        """Whether a dequeue would take something at that time, if nothing happened until then."""
        now, self.clock = self.clock, at
        try:
            return any(self._released(channel) for channel in self.lanes)
        finally:
            self.clock = now

    def forgotten_releases(self, channel: str) -> list[int]:
        """The releases whose timer is over: whether a longer interval counts from them is left open."""
        return [released_at for at, released_at in self.releases.get(channel, ()) if at <= self.clock]

    # How it works

    def _status_after(self, channel: str | None, delay_ms: int) -> str:
        return "WAITING" if delay_ms > 0 or channel in self.policies else "READY"

    def _fence(self, id_: int, num_attempts: int) -> str | None:
        message = self.messages.get(id_)
        if message is None:
            return "MESSAGE_NOT_FOUND"
        if message.num_attempts != num_attempts or message.unlock_at is None:
            return "MESSAGE_STATE_INVALID"
        return None

    def _released(self, channel: str | None) -> list[Message]:
        """What of a channel may be taken now, in order."""
        messages = [m for m in self.messages.values() if m.channel == channel]
        due = sorted(
            (m for m in messages if not self.is_held(m) and m.dequeue_at <= self.clock),
            key=lambda m: m.place,
        )
        policy = self.policies.get(channel)
        if policy is None:
            return due
        room = len(due)
        if policy.max_concurrency is not None:
            room = max(0, policy.max_concurrency - sum(self.is_held(m) for m in messages))
        if policy.interval:
            released_at = max((r for _, r in self.releases.get(channel, ())), default=None)
            is_over = released_at is None or released_at + policy.interval <= self.clock
            room = min(room, 1) if is_over else 0
        return due[:room]

    def _tend(self, *, is_alone: bool) -> None:
        for message in self.messages.values():
            if message.status == "LOCKED" and not self.is_held(message):
                message.status = "WAITING"
                message.is_noticed = False
        for channel in self.lanes:
            self._advance(channel, is_alone=is_alone)
        if is_alone:
            for message in self.messages.values():
                message.is_noticed = True
        self.is_exact = is_alone

    def _advance(self, channel: str | None, *, is_alone: bool) -> None:
        timers = self.releases.get(channel, set())
        policy = self.policies.get(channel)
        if policy and policy.interval and timers:
            released_at = max(r for _, r in timers)
            if released_at + policy.interval > self.clock:
                timers.add((released_at + policy.interval, released_at))
        if is_alone:
            self.releases[channel] = {(at, r) for at, r in timers if at > self.clock}
        released = self._released(channel)
        for message in self.messages.values():
            if message.channel == channel and message.status != "LOCKED":
                message.status = "READY" if message in released else "WAITING"

    def _next(self) -> Message | None:
        """The first message of the lane whose turn it is."""
        ready = [m for m in self.messages.values() if m.status == "READY"]
        return min(
            ready,
            key=lambda m: (self.lanes[m.channel] <= self.served, self.lanes[m.channel], m.place),
            default=None,
        )

    def _take(self, message: Message, lock_ms: int | None) -> Delivery:
        is_unlocked = message.unlock_at is not None
        message.status = "LOCKED"
        message.is_noticed = True
        message.num_attempts += 1
        message.lock_ms = message.lock_ms if lock_ms is None else lock_ms
        message.locked_at = self.clock
        message.unlock_at = self.clock + message.lock_ms * 1000
        self.served = self.lanes[message.channel]
        policy = self.policies.get(message.channel)
        if policy and policy.interval:
            timer = (self.clock + policy.interval, self.clock)
            self.releases.setdefault(message.channel, set()).add(timer)
        return Delivery(
            id=message.id,
            channel=message.channel,
            content=message.content,
            state=message.state,
            num_attempts=message.num_attempts,
            is_unlocked=is_unlocked,
            unlock_at=message.unlock_at,
        )
