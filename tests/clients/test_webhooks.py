"""Webhooks as a backend in Python gets them, verified by Pusher's library and caused by Pysher."""

import json
import time

import pytest

import webhook_endpoint
from server import DEADLINE_S, KEY, SECRET, Server
from subscriber import Subscriber

SETTINGS = """
webhook_delay = "0s"
subscription_counts = true
[[apps.webhooks]]
url = "{url}"
[webhooks]
data_dir = "{data_dir}"
"""

LIBRARY = webhook_endpoint.library(KEY, SECRET)


@pytest.fixture
def backend():
    running = webhook_endpoint.start(LIBRARY)
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def told(backend, tmp_path):
    """A server that tells the backend."""
    running = Server(SETTINGS.format(url=backend.url, data_dir=tmp_path / "data"))
    yield running
    running.stop()


@pytest.fixture
def join(told):
    """Connects a Pysher client that joins presence channels as this user."""
    opened = []

    def join_one(user):
        opened.append(Subscriber(told, secret=SECRET, user_data={"user_id": user}))
        return opened[-1]

    yield join_one
    for client in opened:
        client.close()


def expect(backend, count):
    """The next so many events, by channel."""
    channels = {}
    for _ in range(count):
        webhook, _, _, body = backend.received.get(timeout=DEADLINE_S)
        assert webhook is not None, f"the library does not believe {body}"
        for event in webhook["events"]:
            channels.setdefault(event["channel"], []).append(event)
    return channels


def test_it_believes_every_kind(backend, join, unique):
    room, cache = unique("presence-room"), unique("cache-room")
    ann = join("ann")
    channel, _, _ = ann.subscribe(room)
    channel.trigger("client-typing", {"text": "Grüße, 世界"})
    ann.pusher.unsubscribe(room)
    ann.subscribe(cache)
    ann.pusher.unsubscribe(cache)
    channels = expect(backend, 10)
    typing = channels[room].pop(2)
    assert json.loads(typing.pop("data")) == {"text": "Grüße, 世界"}
    sender = {"socket_id": ann.socket_id, "user_id": "ann"}
    assert typing == {"name": "client_event", "channel": room, "event": "client-typing", **sender}
    assert channels == {
        room: [
            {"name": "channel_occupied", "channel": room},
            {"name": "member_added", "channel": room, "user_id": "ann"},
            {"name": "member_removed", "channel": room, "user_id": "ann"},
            {"name": "channel_vacated", "channel": room},
        ],
        cache: [
            {"name": "channel_occupied", "channel": cache},
            {"name": "cache_miss", "channel": cache},
            {"name": "subscription_count", "channel": cache, "subscription_count": 1},
            {"name": "channel_vacated", "channel": cache},
            {"name": "subscription_count", "channel": cache, "subscription_count": 0},
        ],
    }


def test_it_refuses_what_somebody_has_changed(backend, join, unique):
    join("ann").subscribe(unique("room"))
    webhook, key, signature, body = backend.received.get(timeout=DEADLINE_S)
    assert webhook == json.loads(body)
    assert abs(time.time() * 1000 - webhook["time_ms"]) < DEADLINE_S * 1000
    validate = LIBRARY.validate_webhook
    assert validate(key, signature, body) == webhook
    assert validate(key, signature, body.replace("room", "moor")) is None
    assert validate(key, signature, body + " ") is None
    assert validate(key, signature[:-1] + ("1" if signature[-1] == "0" else "0"), body) is None
    assert validate("unknown", signature, body) is None
    assert webhook_endpoint.library(KEY, "another secret").validate_webhook(key, signature, body) is None
