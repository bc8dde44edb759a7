"""What becomes of a notification's payload."""

from __future__ import annotations

import json

import pytest

from pylonny import ChannelPolicyChanged, MessageCreated, MessageDeferred, MessageDeleted, decode_event


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        (
            {"type": "MESSAGE_CREATED", "id": 42, "channel": "tenant-1", "delay_ms": -5},
            MessageCreated(42, "tenant-1", -5),
        ),
        (
            {"type": "MESSAGE_DEFERRED", "id": 42, "channel": "ünï", "delay_ms": 0, "new": {}},
            MessageDeferred(42, "ünï", 0),
        ),
        ({"type": "MESSAGE_DELETED", "id": 42, "channel": "a"}, MessageDeleted(42, "a")),
        ({"type": "CHANNEL_POLICY_CHANGED", "channel": "a"}, ChannelPolicyChanged("a")),
        ({"type": "MESSAGE_SENT_BY_A_NEWER_ONE", "id": 42}, None),
        ({"type": "MESSAGE_DELETED", "id": 42}, None),
        ({"type": ["MESSAGE_DELETED"]}, None),
        ({"id": 42}, None),
        ([], None),
        (None, None),
    ],
)
def test_an_event_is_decoded_and_nothing_else(fields: object, event: object) -> None:
    assert decode_event(json.dumps(fields)) == event


@pytest.mark.parametrize("payload", ["", "tenant-1", "{"])
def test_what_is_not_json_is_no_event(payload: str) -> None:
    assert decode_event(payload) is None
