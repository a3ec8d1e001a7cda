"""Pusher's library for Python backends: what it sends, what it asks, and what it is told when something is wrong."""

import pusher.errors
import pytest

from server import SECRET


def member(user):
    """The options of a Pysher client that joins presence channels as this user."""
    return {"secret": SECRET, "user_data": {"user_id": user}}


def test_it_triggers_one_event(connect, library, unique):
    name = unique("room")
    _, heard, _ = connect().subscribe(name, "greet")
    assert library.trigger(name, "greet", {"text": "Grüße, 世界"}) == {}
    assert heard.expect("greet") == {"text": "Grüße, 世界"}


def test_it_triggers_one_event_on_many_channels(connect, library, unique):
    names = [unique("room") for _ in range(100)]
    client = connect()
    heard = [client.subscribe(name, "greet")[1] for name in names]
    assert library.trigger(names, "greet", "to all") == {}
    assert [one.expect("greet") for one in heard] == ["to all"] * 100


def test_it_leaves_out_the_connection_that_it_names(connect, library, unique):
    name = unique("room")
    client, other = connect(), connect()
    _, mine, _ = client.subscribe(name, "greet")
    _, theirs, _ = other.subscribe(name, "greet")
    library.trigger(name, "greet", "first", client.socket_id)
    library.trigger(name, "greet", "second")
    assert mine.expect("greet") == "second"
    assert [theirs.expect("greet"), theirs.expect("greet")] == ["first", "second"]


def test_it_triggers_a_batch_in_its_order(connect, library, unique):
    name = unique("room")
    _, heard, _ = connect().subscribe(name, "step")
    batch = [{"channel": name, "name": "step", "data": {"number": number}} for number in range(10)]
    assert library.trigger_batch(batch) == {}
    assert [heard.expect("step")["number"] for _ in range(10)] == list(range(10))


def test_it_lists_channels_with_their_users(connect, library, unique):
    name = unique("presence-listed")
    connect(**member("ann")).subscribe(name)
    connect(**member("bob")).subscribe(name)
    assert library.channels_info("presence-listed", ["user_count"]) == {"channels": {name: {"user_count": 2}}}
    assert library.channels_info()["channels"][name] == {}
    assert library.channels_info("no-such-prefix") == {"channels": {}}


def test_it_describes_one_channel(connect, library, unique):
    name = unique("presence-room")
    connect(**member("ann")).subscribe(name)
    attributes = ["user_count", "subscription_count"]
    assert library.channel_info(name, attributes) == {"occupied": True, "user_count": 1, "subscription_count": 1}
    assert library.channel_info(unique("room")) == {"occupied": False}


def test_it_lists_the_users_of_a_presence_channel(connect, library, unique):
    name = unique("presence-room")
    for user in ["ann", "bob", "ann"]:
        connect(**member(user)).subscribe(name)
    users = library.users_info(name)["users"]
    assert sorted(user["id"] for user in users) == ["ann", "bob"]


def test_it_authenticates_a_user_and_terminates_their_connections(connect, library, unique):
    name = unique("presence-room")
    ann, bob = connect(**member("ann")), connect(**member("bob"))
    ann.subscribe(name)
    _, heard, _ = bob.subscribe(name, "pusher_internal:member_removed")
    for client, user in [(ann, "ann"), (bob, "bob")]:
        token = library.authenticate_user(client.socket_id, {"id": user})
        client.pusher.connection.send_event("pusher:signin", token)
        client.settle()
    assert library.terminate_user_connections("ann") == {}
    assert heard.expect("pusher_internal:member_removed") == {"user_id": "ann"}
    bob.settle()


def test_it_authorizes_a_channel(connect, library, unique):
    name = unique("private-room")
    client = connect()
    token = library.authenticate(name, client.socket_id)["auth"]
    _, heard, _ = client.subscribe(name, "greet", auth=token)
    library.trigger(name, "greet", "hello")
    assert heard.expect("greet") == "hello"


def test_it_is_told_that_its_secret_is_wrong(server, unique):
    with pytest.raises(pusher.errors.PusherBadAuth, match="^Invalid signature: you should have sent HmacSHA256Hex"):
        server.library(secret="wrong").trigger(unique("room"), "greet", "hello")


def test_it_is_told_what_is_wrong_with_a_request(library, unique):
    with pytest.raises(pusher.errors.PusherBadRequest, match="."):
        library.users_info(unique("room"))
    with pytest.raises(pusher.errors.PusherBadStatus, match="413: The data content of this event exceeds"):
        library.trigger(unique("room"), "greet", "x" * 10_241)
