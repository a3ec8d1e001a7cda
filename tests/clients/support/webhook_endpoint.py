"""A backend in Python that is told what happens: it verifies every webhook with Pusher's library.

    python webhook_endpoint.py KEY SECRET

It prints its own address when it is ready, then what it was told, a line of JSON for every event, and runs until it is
told to stop.
"""

import http.server
import json
import queue
import sys
import threading

import pusher


def library(key, secret):
    """Pusher's library, as a backend makes it that only receives."""
    return pusher.Pusher(app_id="1001", key=key, secret=secret, cluster="mt1")


def start(client):
    """Serves in a thread of its own. The webhooks are in its queue `received`; `url` is where it listens."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.client = client
    server.received = queue.Queue()
    server.url = "http://127.0.0.1:%d/webhook" % server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Takes what is signed, and refuses everything else with 401."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        key, signature = self.headers["X-Pusher-Key"], self.headers["X-Pusher-Signature"]
        webhook = self.server.client.validate_webhook(key, signature, body)
        self.server.received.put((webhook, key, signature, body))
        self.send_response(401 if webhook is None else 204)
        self.end_headers()

    def log_message(self, *_):
        """The tests look at webhooks, not at an access log."""


if __name__ == "__main__":
    endpoint = start(library(*sys.argv[1:3]))
    print(endpoint.url, flush=True)
    while True:
        webhook, _, _, body = endpoint.received.get()
        for event in ["refused: " + body] if webhook is None else webhook["events"]:
            print(json.dumps(event), flush=True)
