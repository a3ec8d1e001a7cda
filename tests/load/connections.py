#!/usr/bin/env python3
"""What connections and events cost a running server, in memory and processor time.

Opens many connections to one app, subscribes each to one public channel, optionally triggers events there, and reads
from /proc what that did to the server. Needs Python 3.9 and nothing else. The server must run on this machine, with an
open-file limit above the number of connections, and so must this script.

  fanfare serve --config fanfare.toml &
  tests/load/connections.py --pid $! --key KEY --secret SECRET --connections 10000 --events 100
"""

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import resource
import time

CHANNEL = "load"
# Handshakes under way at once: more than a listen backlog would only wait elsewhere.
OPENING = 200


class Subscriber(asyncio.Protocol):
    """One WebSocket client, which sends nothing but its subscription.

    It calls `subscribed` when that has succeeded, and `receive` with the text of every event.
    """

    def __init__(self, options, channel, subscribed, receive):
        self.host, self.key, self.channel = options.host, options.key, channel
        self.subscribed, self.receive = subscribed, receive
        self.buffer, self.upgraded = b"", False

    def connection_made(self, transport):
        self.transport = transport
        transport.write(
            f"GET /app/{self.key}?protocol=7 HTTP/1.1\r\nHost: {self.host}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )

    def data_received(self, data):
        self.buffer += data
        if not self.upgraded:
            head, end, rest = self.buffer.partition(b"\r\n\r\n")
            if not end:
                return
            self.upgraded, self.buffer = True, rest
            self.open()
        while (frame := self.next_frame()) is not None:
            opcode, payload = frame
            if opcode == 8:
                raise SystemExit(f"the server closed a connection: {payload[2:].decode()}")
            self.hear(payload)

    def open(self):
        self.send({"event": "pusher:subscribe", "data": {"channel": self.channel}})

    def hear(self, payload):
        if b"pusher_internal:subscription_succeeded" in payload:
            self.subscribed()
        elif b'"event":"load"' in payload:
            self.receive(payload)

    def next_frame(self):
        buffer = self.buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1], 2
        if length == 126:
            length, start = int.from_bytes(buffer[2:4], "big"), 4
        if len(buffer) < start or len(buffer) < start + length:
            return None
        self.buffer = buffer[start + length :]
        return buffer[0] & 15, buffer[start : start + length]

    def send(self, message):
        payload = json.dumps(message).encode()
        # Nothing here is longer than 64 KiB.
        short = len(payload) < 126
        length = bytes([0x80 | len(payload)]) if short else bytes([0xFE]) + len(payload).to_bytes(2, "big")
        # A mask of zeros leaves the payload as it is.
        self.transport.write(b"\x81" + length + bytes(4) + payload)

    def connection_lost(self, error):
        if error is not None:
            raise SystemExit(f"a connection broke: {error}")


class Backend:
    """Triggers events over one kept-alive connection."""

    async def connect(self, options, port):
        self.options = options
        self.reader, self.writer = await asyncio.open_connection(options.host, port)

    async def trigger(self, channel, data):
        options = self.options
        body = json.dumps({"name": "load", "channel": channel, "data": data})
        path = f"/apps/{options.app_id}/events"
        query = (
            f"auth_key={options.key}&auth_timestamp={int(time.time())}&auth_version=1.0"
            f"&body_md5={hashlib.md5(body.encode()).hexdigest()}"
        )
        text = f"POST\n{path}\n{query}"
        signature = hmac.new(options.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        head = f"POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: load\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body.encode())
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.split("content-length:")[1].split("\r\n")[0])
        await self.reader.readexactly(length)
        if " 200 " not in answer.splitlines()[0]:
            raise SystemExit(f"a trigger was refused: {answer.splitlines()[0]}")


class Server:
    """The process under load, as the kernel sees it."""

    def __init__(self, pid):
        self.pid = pid

    def memory(self):
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024

    def processor_seconds(self):
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run(options):
    server = Server(options.pid)
    loop = asyncio.get_running_loop()
    before, processor = server.memory(), server.processor_seconds()
    opening, subscribed, delivered = asyncio.Semaphore(OPENING), asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def connect():
        async with opening:
            client = Subscriber(options, CHANNEL, subscribed.release, lambda _: delivered.release())
            await loop.create_connection(lambda: client, options.host, options.port)
            await subscribed.acquire()

    started = time.monotonic()
    await asyncio.gather(*(connect() for _ in range(options.connections)))
    used = server.memory() - before
    spent = server.processor_seconds() - processor
    print(f"{options.connections} connections, one subscription each, in {time.monotonic() - started:.1f} s")
    print(f"  memory: {used / 2**20:.1f} MiB, {used / options.connections / 1024:.1f} KiB per connection")
    print(f"  processor: {spent:.2f} s, {spent / options.connections * 1e6:.0f} µs per connection")
    if not options.events:
        return

    backend = Backend()
    await backend.connect(options, options.port)
    processor, started = server.processor_seconds(), time.monotonic()
    for _ in range(options.events):
        await backend.trigger(CHANNEL, "x" * options.data)
    expected = options.events * options.connections
    for _ in range(expected):
        await delivered.acquire()
    spent = server.processor_seconds() - processor
    print(f"{options.events} events of {options.data} bytes, {expected} deliveries, in {time.monotonic() - started:.1f} s")
    print(f"  memory: {(server.memory() - before) / 2**20:.1f} MiB")
    print(f"  processor: {spent:.2f} s, {spent / expected * 1e6:.2f} µs per delivery")


def raise_open_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pid", type=int, required=True, help="the server's process id")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6001)
    parser.add_argument("--app-id", default="1001")
    parser.add_argument("--key", default="app-key")
    parser.add_argument("--secret", default="app-secret")
    parser.add_argument("--connections", type=int, default=10000)
    parser.add_argument("--events", type=int, default=0, help="how many to trigger, one after the other")
    parser.add_argument("--data", type=int, default=100, help="bytes of data of each event")
    raise_open_files()
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
