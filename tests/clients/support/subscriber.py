"""Pysher, with its callbacks turned into something that a test can wait for."""

import json
import queue

import pysher

from server import DEADLINE_S, KEY


class Heard:
    """What was heard, in order: `(event, data)`. Waiting has a deadline, and an error that shows what did arrive."""

    def __init__(self):
        self._events = queue.Queue()
        self._seen = []

    def listen(self, source, *events):
        """Notes these events of a connection or channel; returns itself."""
        for event in events:
            source.bind(event, lambda data, event=event: self._events.put((event, data)))
        return self

    def expect(self, event):
        """The data of the next event, which must be this one; text that is JSON is parsed, as pusher-js does it."""
        try:
            self._seen.append(self._events.get(timeout=DEADLINE_S))
        except queue.Empty:
            raise AssertionError(f"waited {DEADLINE_S} s for {event}, after {self._seen}") from None
        name, data = self._seen[-1]
        assert name == event, f"expected {event}, but heard {self._seen}"
        try:
            return json.loads(data)
        except (TypeError, ValueError):
            return data


class Subscriber:
    """A connected Pysher client."""

    def __init__(self, server, user_data=None, **options):
        self.pusher = pysher.Pusher(
            KEY, secure=False, custom_host=server.host, port=server.port, user_data=user_data, **options
        )
        self._todo = queue.SimpleQueue()
        self.pusher.connection.bind("pusher:pong", self._do)
        self.heard = Heard().listen(self.pusher.connection, "pusher:connection_established", "pusher:error")
        self.pusher.connect()
        self.socket_id = self.heard.expect("pusher:connection_established")["socket_id"]

    def subscribe(self, name, *events, auth=None):
        """Subscribes and waits for the confirmation: the channel, what is heard of `events` there, and the answer."""

        def subscribe():
            channel = self.pusher.subscribe(name, auth=auth)
            return channel, Heard().listen(channel, "pusher_internal:subscription_succeeded", *events)

        # In a callback, as in Pysher's documentation: elsewhere the answer may come before anything is bound to it.
        channel, heard = self._in_callback(subscribe)
        return channel, heard, heard.expect("pusher_internal:subscription_succeeded")

    def settle(self):
        """Proves that nothing else is on its way here: the server answers a ping after what it sent before."""
        self._in_callback(lambda: None)

    def close(self):
        """Disconnects. Its thread may notice late, because websocket-client does; nothing depends on it any more."""
        self.pusher.disconnect(timeout=0)

    def _in_callback(self, function):
        """What `function` returns when Pysher's own thread runs it, in answer to a ping."""
        done = queue.SimpleQueue()
        self._todo.put((function, done))
        self.pusher.connection.send_event("pusher:ping", {})
        try:
            value, error = done.get(timeout=DEADLINE_S)
        except queue.Empty:
            raise AssertionError(f"waited {DEADLINE_S} s for the answer to a ping") from None
        if error is not None:
            raise error
        return value

    def _do(self, _):
        # Pysher pings on its own, too: then there may be nothing to do.
        while not self._todo.empty():
            function, done = self._todo.get()
            try:
                done.put((function(), None))
            except Exception as error:  # handed to the thread that waits for it
                done.put((None, error))
