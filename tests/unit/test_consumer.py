"""How failures are retried, and how often an idle loop looks: no database is needed."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from pylonny import Backoff, DeadLetter, NotAvailable, Outcome, Queue
from pylonny.consumer import Loop, stopped_by_sigterm
from pylonny.sessions import Connect, Do, Listen, Wait


def test_delays_grow_up_to_the_longest() -> None:
    backoff = Backoff(first_ms=100, factor=3, max_ms=2000, jitter=0)
    assert [backoff(attempt) for attempt in (1, 2, 3, 4, 5, 10_000)] == [100, 300, 900, 2000, 2000, 2000]


def test_jitter_leaves_out_a_part_at_random() -> None:
    delays = {Backoff(first_ms=1000, jitter=0.5).delay_ms(1) for _ in range(100)}
    assert len(delays) > 10
    assert all(500 <= delay <= 1000 for delay in delays)


@pytest.mark.parametrize("exhausted", [*Outcome, DeadLetter("failed")])
def test_attempts_have_a_maximum(exhausted: Outcome | DeadLetter) -> None:
    backoff = Backoff(max_attempts=3, exhausted=exhausted)
    assert [backoff(attempt) is exhausted for attempt in (1, 2, 3, 4)] == [False, False, True, True]


def test_whoever_sets_a_maximum_says_what_becomes_of_the_message() -> None:
    with pytest.raises(ValueError, match="max_attempts and exhausted go together"):
        Backoff(max_attempts=3)
    with pytest.raises(ValueError, match="max_attempts and exhausted go together"):
        Backoff(exhausted=Outcome.DELETE)


def test_without_a_maximum_it_is_retried_for_ever() -> None:
    assert isinstance(Backoff()(1_000_000), int)


def test_sigterm_stops_every_loop_of_the_main_thread() -> None:
    first, second, ended = threading.Event(), threading.Event(), threading.Event()
    with stopped_by_sigterm(first), stopped_by_sigterm(second):
        with stopped_by_sigterm(ended):
            pass
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert (first.is_set(), second.is_set(), ended.is_set()) == (True, True, False)


def test_sigterm_is_left_to_a_program_that_handles_it() -> None:
    stop, handled = threading.Event(), threading.Event()
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: handled.set())
    try:
        with stopped_by_sigterm(stop):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (handled.is_set(), stop.is_set()) == (True, False)


@pytest.mark.parametrize(
    ("retry_ms", "payloads_after", "seconds"),
    [(None, None, 1.0), (250, None, 0.25), (9000, None, 1.0), (None, 3, 0.3)],
)
def test_an_idle_loop_looks_when_told_and_once_a_second(
    monkeypatch: pytest.MonkeyPatch, retry_ms: int | None, payloads_after: int | None, seconds: float
) -> None:
    now = [0.0]
    monkeypatch.setattr("pylonny.consumer.monotonic", lambda: now[0])
    loop = Loop(
        Queue(),
        lambda held: held,
        lock_ms=1000,
        listen="events",
        poll_ms=1000,
        retry=None,
        stop=threading.Event(),
    )
    routine = loop.deliveries()
    assert isinstance(next(routine), Connect)
    assert routine.send(None) == Listen("events")
    assert isinstance(routine.send(None), Do)
    step: Any = routine.send(NotAvailable(retry_ms))
    waits = 0
    while isinstance(step, Wait):
        assert step.seconds is not None
        now[0] += step.seconds
        waits += 1
        step = routine.send([""] if waits == payloads_after else [])
    assert isinstance(step, Do)
    assert now[0] == pytest.approx(seconds)
