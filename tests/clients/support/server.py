"""The server under test: the built binary with a configuration of its own, on ports that the system picks."""

import json
import os
import pathlib
import queue
import signal
import subprocess
import tempfile
import threading

from auth_endpoint import library

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = ROOT / os.environ.get("FANFARE_BIN", "target/debug/fanfare")

# The app that every server here has.
APP_ID, KEY, SECRET = "1001", "clients-key", "clients-secret"

# Generous, because nothing waits for it unless something is broken.
DEADLINE_S = 15

CONFIG = """
[admin]
listen = "127.0.0.1:0"
[server]
drain_period = "2s"
[[apps]]
id = "{id}"
key = "{key}"
secret = "{secret}"
client_events = true
"""


class Server:
    """A running server with one app; `settings` are further lines of its `[[apps]]` table, and tables after it."""

    def __init__(self, settings=""):
        assert BINARY.exists(), f"{BINARY} is missing: run `cargo build`, or set FANFARE_BIN"
        self._directory = tempfile.TemporaryDirectory(prefix="fanfare-clients-")
        config = pathlib.Path(self._directory.name, "fanfare.toml")
        config.write_text(CONFIG.format(id=APP_ID, key=KEY, secret=SECRET) + settings)
        command = [BINARY, "serve", "--config", config, "--listen", "127.0.0.1:0", "--log-format", "json"]
        # The settings of the machine's owner are not those of a test.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FANFARE_")}
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self._log = []
        ready = queue.Queue()
        threading.Thread(target=self._read, args=(ready,), daemon=True).start()
        try:
            address = ready.get(timeout=DEADLINE_S)
        except queue.Empty:
            address = None
        if address is None:
            self._process.kill()
            raise AssertionError("the server did not listen; it logged:\n" + self.log)
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)

    @property
    def log(self):
        """Everything it has logged so far."""
        return "".join(self._log)

    def library(self, secret=SECRET):
        """Pusher's library for Python backends, with the credentials of the app."""
        return library(self.host, self.port, APP_ID, KEY, secret)

    def stop(self):
        """Stops it as an operator would; anything but an orderly end is a failure."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._directory.cleanup()
        assert code == 0, f"exit code {code} after SIGTERM, with these logs:\n{self.log}"

    def _read(self, ready):
        for line in self._process.stderr:
            self._log.append(line)
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("message") == "listening":
                ready.put(entry["public"])
        # It has ended: nobody should wait for it any longer.
        ready.put(None)
