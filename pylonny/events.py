"""Events: what a queue with an event channel tells with NOTIFY, when the transaction that did it commits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from pylonny.errors import ListenError, WaitTimeoutError
from pylonny.sessions import Do, Give, Listen, Routine, Wait

if TYPE_CHECKING:
    from pylonny.queue import AsyncQueue, Queue

_POLL = 1.0  # seconds between two looks at messages whose end nothing tells
_LOOK_AGAIN = 60.0  # seconds between two looks where events tell it


@dataclass(frozen=True, slots=True)
class MessageCreated:
    """A message was put in, to be dequeued in `delay_ms` milliseconds."""

    id: int
    channel: str
    delay_ms: int


@dataclass(frozen=True, slots=True)
class MessageDeferred:
    """A message was given back, to be dequeued again in `delay_ms` milliseconds."""

    id: int
    channel: str
    delay_ms: int


@dataclass(frozen=True, slots=True)
class MessageDeleted:
    """A message is gone: deleted or cancelled."""

    id: int
    channel: str


@dataclass(frozen=True, slots=True)
class ChannelPolicyChanged:
    """The limits of a channel were set or cleared."""

    channel: str


Event = MessageCreated | MessageDeferred | MessageDeleted | ChannelPolicyChanged

_DECODERS: dict[object, Callable[[dict[str, Any]], Event]] = {
    "MESSAGE_CREATED": lambda fields: MessageCreated(fields["id"], fields["channel"], fields["delay_ms"]),
    "MESSAGE_DEFERRED": lambda fields: MessageDeferred(fields["id"], fields["channel"], fields["delay_ms"]),
    "MESSAGE_DELETED": lambda fields: MessageDeleted(fields["id"], fields["channel"]),
    "CHANNEL_POLICY_CHANGED": lambda fields: ChannelPolicyChanged(fields["channel"]),
}


def decode_event(payload: str) -> Event | None:
    """The event that a notification's payload is; None if it is none that this version of pylonny knows."""
    try:
        fields = json.loads(payload)
        return _DECODERS[fields["type"]](fields)
    except (ValueError, KeyError, TypeError):
        return None


def events(queue: Queue | AsyncQueue, event_channel: str | None, timeout: float | None) -> Routine:
    """Give the events that arrive, from the first step on, until `timeout` seconds are over."""
    channel = event_channel or (yield Do(queue.event_channel))
    if channel is None:
        raise ListenError(
            f'the queue in schema "{queue.schema}" has no event channel',
            "give it one with  python -m pylonny install --event-channel NAME",
        )
    yield Listen(channel)
    deadline = None if timeout is None else monotonic() + timeout
    while deadline is None or monotonic() < deadline:
        for payload in (yield Wait(None if deadline is None else deadline - monotonic())):
            event = decode_event(payload)
            if event is not None:
                yield Give(event)


def wait_deleted(
    queue: Queue | AsyncQueue, ids: Iterable[int], event_channel: str | None, timeout: float | None
) -> Routine:
    """Return when none of the messages is there any more. Raises WaitTimeoutError after `timeout` seconds."""
    left = set(ids)
    deadline = None if timeout is None else monotonic() + timeout
    channel = event_channel or (yield Do(queue.event_channel))
    if channel is not None:
        yield Listen(channel)  # first, so that none can go between the look at it and the wait for its end
    while left := set((yield Do(partial(queue.status, ids=left)))):
        look_again = monotonic() + (_POLL if channel is None else _LOOK_AGAIN)
        while left and monotonic() < look_again:
            if deadline is not None and monotonic() >= deadline:
                raise WaitTimeoutError(f"after {timeout} s these messages are still there: {sorted(left)}")
            until = look_again if deadline is None else min(look_again, deadline)
            for payload in (yield Wait(until - monotonic())):
                event = decode_event(payload)
                if isinstance(event, MessageDeleted):
                    left.discard(event.id)
