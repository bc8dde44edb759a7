"""Events: sent with NOTIFY if an event channel was given at install, and when the transaction commits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from pylonny import migrate
from tests.support.sessions import DEADLINE

if TYPE_CHECKING:
    from tests.conftest import Connect
    from tests.support.sessions import Connection

CHANNEL = "lonny_events"
END = "the end"


class Listener:
    """A session that listens to the queue's events, and one that uses the queue."""

    def __init__(self, connect: Connect, channel: str | None = CHANNEL, listen_to: str = CHANNEL) -> None:
        self.user = connect()
        migrate.install(self.user, "lonny", event_channel=channel)
        self._channel = listen_to
        self._listener = connect()
        self._listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(listen_to)))
        self._sender = connect()

    def scalar(self, query: LiteralString, *params: object) -> Any:
        return scalar(self.user, query, *params)

    def events(self) -> list[dict[str, Any]]:
        """The events that arrived since the last call, in their order."""
        # Notifications arrive in the order of the commits: what was committed before comes before this one.
        self._sender.execute("SELECT pg_notify(%s, %s)", [self._channel, END])
        events: list[dict[str, Any]] = []
        for notification in self._listener.notifies(timeout=DEADLINE):
            if notification.payload == END:
                return events
            events.append(json.loads(notification.payload))
        raise TimeoutError(f"no end after {events}")


def scalar(conn: Connection, query: LiteralString, *params: object) -> Any:
    row = conn.execute(query, params).fetchone()
    assert row is not None
    return row[0]


@pytest.fixture
def listener(connect: Connect) -> Listener:
    return Listener(connect)


def test_create_sends_message_created(listener: Listener) -> None:
    first = listener.scalar("SELECT lonny.message_create('tenant-1', 'x', 1000)")
    second = listener.scalar("SELECT lonny.message_create('tenant-2', 'x', 1000, 5000)")
    third = listener.scalar("SELECT lonny.message_create('tenant-1', 'x', 1000, -5000)")
    assert listener.events() == [
        {"type": "MESSAGE_CREATED", "id": first, "channel": "tenant-1", "delay_ms": 0},
        {"type": "MESSAGE_CREATED", "id": second, "channel": "tenant-2", "delay_ms": 5000},
        {"type": "MESSAGE_CREATED", "id": third, "channel": "tenant-1", "delay_ms": -5000},
    ]


def test_a_message_without_a_channel_shows_its_uuid_in_events_too(listener: Listener) -> None:
    id_ = listener.scalar("SELECT lonny.message_create(NULL, 'x', 1000)")
    channel = listener.scalar("SELECT channel FROM lonny.message_dequeue()")
    assert listener.events() == [{"type": "MESSAGE_CREATED", "id": id_, "channel": channel, "delay_ms": 0}]


@pytest.mark.parametrize(
    "delays",
    ["{0,5000,-5000,7}", "[5:8]={0,5000,-5000,7}", "{{0,5000},{-5000,7}}"],
    ids=["plain", "based", "2d"],
)
def test_create_many_sends_one_event_a_message(listener: Listener, delays: str) -> None:
    ids = listener.scalar(
        "SELECT array_agg(id) FROM lonny.message_create_many('{a,b,a,c}', '{x,x,x,x}', '{1000}', %s) AS id",
        delays,
    )
    expected = zip(ids, "abac", [0, 5000, -5000, 7], strict=True)
    assert listener.events() == [
        {"type": "MESSAGE_CREATED", "id": id_, "channel": channel, "delay_ms": delay_ms}
        for id_, channel, delay_ms in expected
    ]


def test_create_many_with_one_delay_for_all_and_no_channels(listener: Listener) -> None:
    ids = listener.scalar(
        "SELECT array_agg(id) FROM lonny.message_create_many(NULL, '{x,x}', '{1000}', '{250}') AS id"
    )
    events = listener.events()
    assert [(event["type"], event["id"], event["delay_ms"]) for event in events] == [
        ("MESSAGE_CREATED", id_, 250) for id_ in ids
    ]
    assert [event["channel"] for event in events] == listener.scalar(
        "SELECT array_agg(channel) FROM lonny.message_status(%s::bigint[])", ids
    )


def test_defer_sends_message_deferred(listener: Listener) -> None:
    id_ = listener.scalar("SELECT lonny.message_create('a', 'x', 60000)")
    for number, delay_ms in enumerate([-10, 0], start=1):
        assert listener.scalar("SELECT num_attempts FROM lonny.message_dequeue()") == number
        result = listener.scalar("SELECT lonny.message_defer(%s, %s, %s)", id_, number, delay_ms)
        assert result == "MESSAGE_DEFERRED"
    assert listener.events()[1:] == [
        {"type": "MESSAGE_DEFERRED", "id": id_, "channel": "a", "delay_ms": -10},
        {"type": "MESSAGE_DEFERRED", "id": id_, "channel": "a", "delay_ms": 0},
    ]


def test_delete_sends_message_deleted(listener: Listener) -> None:
    id_ = listener.scalar("SELECT lonny.message_create('a', 'x', 60000)")
    assert listener.scalar("SELECT id FROM lonny.message_dequeue()") == id_
    assert listener.scalar("SELECT lonny.message_delete(%s, 1)", id_) == "MESSAGE_DELETED"
    assert listener.events()[1:] == [{"type": "MESSAGE_DELETED", "id": id_, "channel": "a"}]


def test_delete_many_sends_one_event_a_deleted_message(listener: Listener) -> None:
    first, second, third = listener.scalar(
        "SELECT array_agg(id) FROM lonny.message_create_many('{a,a,a}', '{x,y,z}', '{60000}') AS id"
    )
    listener.user.execute("SELECT lonny.message_dequeue(3)")
    results = listener.scalar(
        "SELECT array_agg(result::text) FROM lonny.message_delete_many(%s::bigint[], '{1,2,1,1}')",
        [third, second, first, third],
    )
    assert results == ["MESSAGE_DELETED", "MESSAGE_STATE_INVALID", "MESSAGE_DELETED", "MESSAGE_NOT_FOUND"]
    events = sorted(listener.events()[3:], key=lambda event: event["id"])
    assert events == [
        {"type": "MESSAGE_DELETED", "id": first, "channel": "a"},
        {"type": "MESSAGE_DELETED", "id": third, "channel": "a"},
    ]


def test_the_event_of_a_cancel_is_message_deleted(listener: Listener) -> None:
    id_ = listener.scalar("SELECT lonny.message_create('a', 'x', 60000)")
    assert listener.scalar("SELECT lonny.message_cancel(%s)", id_) == "MESSAGE_CANCELLED"
    assert listener.events()[1:] == [{"type": "MESSAGE_DELETED", "id": id_, "channel": "a"}]


def test_a_policy_sends_channel_policy_changed(listener: Listener) -> None:
    listener.user.execute("SELECT lonny.channel_policy_set('a', 1)")
    listener.user.execute("SELECT lonny.channel_policy_set('b', NULL, 1000)")
    listener.user.execute("SELECT lonny.channel_policy_clear('a')")
    assert listener.events() == [
        {"type": "CHANNEL_POLICY_CHANGED", "channel": "a"},
        {"type": "CHANNEL_POLICY_CHANGED", "channel": "b"},
        {"type": "CHANNEL_POLICY_CHANGED", "channel": "a"},
    ]


def test_what_changes_nothing_and_what_only_takes_sends_nothing(listener: Listener) -> None:
    id_ = listener.scalar("SELECT lonny.message_create('a', 'x', 60000)")
    assert len(listener.events()) == 1
    assert listener.scalar("SELECT lonny.message_delete(%s, 1)", id_) == "MESSAGE_STATE_INVALID"
    assert listener.scalar("SELECT lonny.message_defer(%s, 1)", id_) == "MESSAGE_STATE_INVALID"
    assert listener.scalar("SELECT lonny.message_cancel(%s)", id_ + 1) == "MESSAGE_NOT_FOUND"
    assert listener.scalar("SELECT lonny.message_delete(%s, 1)", id_ + 1) == "MESSAGE_NOT_FOUND"
    assert listener.scalar("SELECT lonny.message_defer(%s, 1)", id_ + 1) == "MESSAGE_NOT_FOUND"
    assert listener.scalar("SELECT id FROM lonny.message_dequeue()") == id_
    assert listener.scalar("SELECT lonny.message_cancel(%s)", id_) == "MESSAGE_STATE_INVALID"
    assert listener.scalar("SELECT lonny.message_heartbeat(%s, 1)", id_) == "MESSAGE_HEARTBEATED"
    assert listener.scalar("SELECT status FROM lonny.message_status(ARRAY[%s::bigint])", id_) == "LOCKED"
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        listener.user.execute("SELECT lonny.message_create('a', 'x', -1)")
    assert listener.events() == []


def test_events_are_delivered_when_the_transaction_commits(listener: Listener) -> None:
    with listener.user.transaction():
        id_ = listener.scalar("SELECT lonny.message_create('a', 'x', 60000)")
        assert listener.events() == []
    assert listener.events() == [{"type": "MESSAGE_CREATED", "id": id_, "channel": "a", "delay_ms": 0}]


def test_events_are_not_delivered_if_the_transaction_rolls_back(listener: Listener) -> None:
    kept = listener.scalar("SELECT lonny.message_create('a', 'x', 60000)")
    assert listener.scalar("SELECT id FROM lonny.message_dequeue()") == kept
    with listener.user.transaction(force_rollback=True):
        lost = listener.scalar("SELECT lonny.message_create('a', 'x', 60000)")
        assert listener.scalar("SELECT lonny.message_delete(%s, 1)", kept) == "MESSAGE_DELETED"
        assert listener.scalar("SELECT lonny.message_cancel(%s)", lost) == "MESSAGE_CANCELLED"
        listener.user.execute("SELECT lonny.channel_policy_set('a', 1)")
    assert [event["id"] for event in listener.events()] == [kept]


@pytest.mark.parametrize(
    "channel",
    ["quotes \" and ' and \\", "\x01" * 512, "é" * 256, "😀" * 128, '{"json": true}', "$function$;"],
    ids=["quotes", "control", "accents", "emoji", "json", "tag"],
)
def test_any_channel_name_arrives_as_it_is(listener: Listener, channel: str) -> None:
    id_ = listener.scalar("SELECT lonny.message_create(%s, 'x', 60000)", channel)
    listener.user.execute("SELECT lonny.channel_policy_set(%s, 1)", [channel])
    assert listener.events() == [
        {"type": "MESSAGE_CREATED", "id": id_, "channel": channel, "delay_ms": 0},
        {"type": "CHANNEL_POLICY_CHANGED", "channel": channel},
    ]


@pytest.mark.parametrize("name", ['My "Events" it\'s', "$function$", "é" * 31], ids=["quotes", "tag", "long"])
def test_an_event_channel_may_have_any_legal_name(connect: Connect, name: str) -> None:
    listener = Listener(connect, channel=name, listen_to=name)
    id_ = listener.scalar("SELECT lonny.message_create('a', 'x', 60000)")
    assert [event["id"] for event in listener.events()] == [id_]


def test_without_an_event_channel_there_are_no_events(connect: Connect) -> None:
    assert scalar(connect(), "SELECT lonny._event_channel()") is None
    listener = Listener(connect)
    migrate.install(listener.user, "lonny", event_channel=None)
    assert listener.scalar("SELECT lonny._event_channel()") is None
    id_ = listener.scalar("SELECT lonny.message_create('a', 'x', 60000)")
    assert listener.scalar("SELECT count(*) FROM lonny.message_create_many('{a}', '{y}', '{60000}')") == 1
    assert listener.scalar("SELECT id FROM lonny.message_dequeue()") == id_
    assert listener.scalar("SELECT lonny.message_defer(%s, 1, -60000)", id_) == "MESSAGE_DEFERRED"
    assert listener.scalar("SELECT id FROM lonny.message_dequeue()") == id_
    assert listener.scalar("SELECT lonny.message_delete(%s, 2)", id_) == "MESSAGE_DELETED"
    listener.user.execute("SELECT lonny.channel_policy_set('a', 1)")
    listener.user.execute("SELECT lonny.channel_policy_clear('a')")
    assert listener.events() == []
