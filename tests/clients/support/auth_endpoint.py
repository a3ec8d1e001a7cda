"""A customer's backend in Python: authorises channels and users with Pusher's library for Python.

    python auth_endpoint.py HOST PORT APP_ID KEY SECRET

It prints its own address when it is ready, and runs until it is told to stop.
"""

import http.server
import json
import sys
import threading
import urllib.parse

import pusher

USERS = {"ann": "Ann", "bob": "Bob"}

# 32 bytes that only the backend and its subscribers know.
MASTER_KEY = "dGhlIHNlcnZlciBuZXZlciBzZWVzIHRoZXNlIGJpdHM="


def library(host, port, app_id, key, secret):
    """Pusher's library, pointed at the server under test."""
    return pusher.Pusher(
        app_id=app_id,
        key=key,
        secret=secret,
        host=host,
        port=int(port),
        ssl=False,
        encryption_master_key_base64=MASTER_KEY,
    )


def start(client):
    """Serves in a thread of its own; returns the server, whose `url` is where it listens."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.client = client
    server.url = "http://127.0.0.1:%d" % server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Endpoint(http.server.BaseHTTPRequestHandler):
    """`/pusher/auth` and `/pusher/user-auth`; the login is the `user` parameter, or else a header of that name."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = dict(urllib.parse.parse_qsl(body))
        user = form.get("user") or self.headers.get("user")
        client = self.server.client
        if user not in USERS:
            return self.reply(403, {"error": "who are you?"})
        if self.path == "/pusher/user-auth":
            data = {"id": user, "user_info": {"name": USERS[user]}, "watchlist": []}
            return self.reply(200, client.authenticate_user(form["socket_id"], data))
        channel = form["channel_name"]
        member = {"user_id": user, "user_info": {"name": USERS[user]}} if channel.startswith("presence-") else None
        return self.reply(200, client.authenticate(channel, form["socket_id"], member))

    def reply(self, status, value):
        # The library leaves the shared secret of an encrypted channel as bytes.
        body = json.dumps(value, default=lambda secret: secret.decode()).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """The tests look at answers, not at an access log."""


if __name__ == "__main__":
    endpoint = start(library(*sys.argv[1:6]))
    print(endpoint.url, flush=True)
    threading.Event().wait()
