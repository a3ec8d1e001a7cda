"""Pysher, the community's client for Python: it speaks protocol 6 and expects `data` to be text."""

import re

from server import SECRET


def signed_in_as(user, name):
    """The options of a client that knows the secret, as Pysher allows it, and signs for itself."""
    return {"secret": SECRET, "user_data": {"user_id": user, "user_info": {"name": name}}}


ANN = signed_in_as("ann", "Ann")
BOB = signed_in_as("bob", "Bob")


def test_it_connects_and_is_given_a_socket_id(connect):
    client = connect()
    assert re.fullmatch(r"[1-9]\d*\.[1-9]\d*", client.socket_id)
    assert client.pusher.connection.state == "connected"


def test_its_pings_are_answered(connect):
    connect().settle()


def test_it_receives_events_on_a_public_channel(connect, library, unique):
    name = unique("room")
    _, heard, _ = connect().subscribe(name, "greet")
    library.trigger(name, "greet", {"text": "Grüße"})
    assert heard.expect("greet") == {"text": "Grüße"}


def test_it_signs_for_a_private_channel_itself(connect, library, unique):
    name = unique("private-room")
    _, heard, _ = connect(**ANN).subscribe(name, "greet")
    library.trigger(name, "greet", {"text": "hello"})
    assert heard.expect("greet") == {"text": "hello"}


def test_its_backend_signs_for_a_private_channel(connect, endpoint, library, unique):
    name = unique("private-room")
    client = connect(auth_endpoint=endpoint.url + "/pusher/auth", auth_endpoint_headers={"user": "ann"})
    _, heard, _ = client.subscribe(name, "greet")
    library.trigger(name, "greet", {"text": "hello"})
    assert heard.expect("greet") == {"text": "hello"}


def test_it_sees_members_come_and_go(connect, unique):
    name = unique("presence-room")
    changes = ["pusher_internal:member_added", "pusher_internal:member_removed"]
    _, heard, alone = connect(**ANN).subscribe(name, *changes)
    assert alone == {"presence": {"count": 1, "ids": ["ann"], "hash": {"ann": {"name": "Ann"}}}}
    other = connect(**BOB)
    _, _, both = other.subscribe(name)
    assert both["presence"]["count"] == 2
    assert sorted(both["presence"]["ids"]) == ["ann", "bob"]
    assert heard.expect("pusher_internal:member_added") == {"user_id": "bob", "user_info": {"name": "Bob"}}
    other.pusher.unsubscribe(name)
    assert heard.expect("pusher_internal:member_removed") == {"user_id": "bob"}


def test_it_sends_client_events_to_the_others(connect, unique):
    name = unique("presence-room")
    ann, bob = connect(**ANN), connect(**BOB)
    sender, echoes, _ = ann.subscribe(name, "pusher_internal:member_added", "client-typing")
    receiver, heard, _ = bob.subscribe(name, "client-typing")
    sender.trigger("client-typing", {"on": True})
    assert heard.expect("client-typing") == {"on": True}
    receiver.trigger("client-typing", {"on": False})
    assert echoes.expect("pusher_internal:member_added")["user_id"] == "bob"
    assert echoes.expect("client-typing") == {"on": False}, "its own event did not come back to it before this one"


def test_it_is_told_why_a_subscription_is_refused(connect, unique):
    client = connect()
    client.pusher.subscribe(unique("private-room"), auth="unknown:" + "0" * 64)
    error = client.heard.expect("pusher:error")
    assert error == {"code": None, "message": "Invalid key in subscription auth data: 'unknown'"}
