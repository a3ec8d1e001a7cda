#!/usr/bin/env python3
"""What a Redis between the nodes costs, and how long the clients of a killed node seem to be there.

Starts a Redis without persistence and Fanfare alone (driver "single") and as one, two and four nodes (driver "redis"),
spreads subscribers over the nodes, triggers events at a steady rate at all of them, and checks that every subscriber
gets every event once, those of a channel in one order for all. Then kills nodes and waits for `member_removed` at
another one. Prints medians over the rounds. Processor times are those of /proc, without the clients'. Needs Python 3.9
and redis-server.

  cargo build --release && tests/load/cluster.py
"""

import argparse
import asyncio
import collections
import contextlib
import functools
import hashlib
import hmac
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from connections import OPENING, Backend, Server, Subscriber, raise_open_files

# Time in which nothing is triggered, to see what a cluster costs that has nothing to do.
IDLE_SECONDS = 5
# How long a start, a delivery or a removal may take before something is wrong.
PATIENCE = 60
PRESENCE = "presence-load"

Scenario = collections.namedtuple("Scenario", "channels subscribers rate")


class Process(Server):
    """A process that this script started, in a directory where its log is."""

    running = set()

    def __init__(self, name, command, directory):
        self.log = os.path.join(directory, f"{name}.log")
        with open(self.log, "w") as log:
            self.child = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
        self.running.add(self)
        super().__init__(self.child.pid)

    def processor_seconds(self):
        # In nanoseconds, by thread: the ticks of /proc/PID/stat are too long for what Redis does here.
        total = 0
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{self.pid}/task/{thread}/schedstat") as schedstat:
                total += int(schedstat.read().split()[0])
        return total / 1e9

    def kill(self):
        self.running.discard(self)
        self.child.kill()
        self.child.wait()

    def check(self):
        if self.child.poll() is not None:
            with open(self.log) as log:
                raise SystemExit(f"a process ended: {log.read()}")


class Redis(Process):
    def __init__(self, options, directory):
        self.port = free_port()
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        super().__init__("redis", [options.redis, *arguments], directory)
        wait_for(self, lambda: socket.create_connection(("127.0.0.1", self.port)).close())


class Node(Process):
    """One Fanfare. Without a Redis it is alone."""

    def __init__(self, options, directory, name, redis=None, lease=8):
        self.host, self.port, self.admin = options.host, free_port(), free_port()
        config = os.path.join(directory, f"{name}.toml")
        with open(config, "w") as file:
            file.write(
                f'[server]\nlisten = "127.0.0.1:{self.port}"\ndrain_period = "0s"\n'
                f'[admin]\nlisten = "127.0.0.1:{self.admin}"\n'
                f'[[apps]]\nid = "{options.app_id}"\nkey = "{options.key}"\nsecret = "{options.secret}"\n'
            )
            if redis:
                file.write(
                    f'[cluster]\ndriver = "redis"\nnode = "{name}"\nlease = "{lease}s"\n'
                    f'urls = ["redis://127.0.0.1:{redis.port}"]\n'
                )
        super().__init__(name, [os.path.abspath(options.bin), "serve", "--config", config], directory)
        wait_for(self, lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/ready").close())


class Member(Subscriber):
    """A client that joins a presence channel, and can be asked what it hears."""

    def __init__(self, options, user_id):
        super().__init__(options, PRESENCE, None, None)
        self.secret, self.user_id, self.heard = options.secret, user_id, asyncio.Queue()

    def open(self):
        # It can sign only when it knows its socket id.
        pass

    def hear(self, payload):
        text = payload.decode()
        if "pusher:connection_established" in text:
            self.subscribe(re.search(r"\d+\.\d+", text).group())
        self.heard.put_nowait(text)

    def subscribe(self, socket_id):
        who = json.dumps({"user_id": self.user_id})
        text = f"{socket_id}:{PRESENCE}:{who}"
        auth = f"{self.key}:{hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()}"
        self.send({"event": "pusher:subscribe", "data": {"channel": PRESENCE, "auth": auth, "channel_data": who}})

    async def expect(self, event):
        async def search():
            while event not in await self.heard.get():
                pass

        await asyncio.wait_for(search(), PATIENCE)

    def connection_lost(self, error):
        """Its node was killed."""


async def join(options, node, user_id):
    member = Member(options, user_id)
    await asyncio.get_running_loop().create_connection(lambda: member, node.host, node.port)
    await member.expect("pusher_internal:subscription_succeeded")
    return member


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(process, attempt):
    until = time.monotonic() + PATIENCE
    while True:
        process.check()
        try:
            return attempt()
        except (OSError, urllib.error.URLError):
            if time.monotonic() > until:
                raise SystemExit("a process does not become ready") from None
            time.sleep(0.02)


class Run:
    """One scenario on nodes that are ready."""

    def __init__(self, options, scenario, nodes, redis):
        self.options, self.scenario, self.nodes, self.redis = options, scenario, nodes, redis
        self.sent, self.latencies, self.delivered, self.complete = {}, [], 0, asyncio.Event()
        self.expected = int(scenario.rate * options.seconds) * scenario.subscribers
        self.received = []

    async def measure(self):
        await self.subscribe()
        idle = await self.spend(asyncio.sleep(IDLE_SECONDS))
        busy = await self.spend(self.publish())
        self.check()
        events = len(self.sent)
        cuts = statistics.quantiles(self.latencies, n=100)
        return {
            "delivered": self.delivered,
            "nodes µs/delivery": busy[0] / self.delivered * 1e6,
            "redis µs/event": busy[1] / events * 1e6,
            "redis µs/delivery": busy[1] / self.delivered * 1e6,
            "p50 ms": cuts[49] * 1e3,
            "p99 ms": cuts[98] * 1e3,
            "nodes idle ms/s": idle[0] / IDLE_SECONDS * 1e3,
            "redis idle ms/s": idle[1] / IDLE_SECONDS * 1e3,
        }

    async def subscribe(self):
        opening, subscribed = asyncio.Semaphore(OPENING), asyncio.Semaphore(0)
        loop = asyncio.get_running_loop()

        async def connect(number):
            channel, events = number % self.scenario.channels, []
            self.received.append((channel, events))
            hear = functools.partial(self.hear, events)
            client = Subscriber(self.options, f"load-{channel}", subscribed.release, hear)
            # The subscribers of one channel are on different nodes.
            node = self.nodes[number // self.scenario.channels % len(self.nodes)]
            async with opening:
                await loop.create_connection(lambda: client, node.host, node.port)
                await subscribed.acquire()

        await asyncio.gather(*map(connect, range(self.scenario.channels * self.scenario.subscribers)))

    def hear(self, events, text):
        now = time.monotonic()
        start = text.index(b'"data":"') + 8
        number = int(text[start : start + 8])
        events.append(number)
        self.latencies.append(now - self.sent[number])
        self.delivered += 1
        if self.delivered == self.expected:
            self.complete.set()

    async def publish(self):
        """Each node has a backend, whose events follow one another; backends do not wait for each other."""
        backends = [Backend() for _ in self.nodes]
        for backend, node in zip(backends, self.nodes):
            await backend.connect(self.options, node.port)
        count, rate = int(self.scenario.rate * self.options.seconds), self.scenario.rate
        started = time.monotonic()

        async def work(index):
            for number in range(index, count, len(backends)):
                await asyncio.sleep(started + number / rate - time.monotonic())
                self.sent[number] = time.monotonic()
                data = f"{number:08}".ljust(self.options.data, "x")
                await backends[index].trigger(f"load-{number % self.scenario.channels}", data)

        await asyncio.gather(*map(work, range(len(backends))))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.complete.wait(), PATIENCE)

    async def spend(self, work):
        """Seconds of processor time of all nodes, and of Redis, while this is done."""
        before = self.spent()
        await work
        return [now - then for now, then in zip(self.spent(), before)]

    def spent(self):
        nodes = sum(node.processor_seconds() for node in self.nodes)
        return nodes, self.redis.processor_seconds() if self.redis else 0

    def check(self):
        orders = {}
        for channel, events in self.received:
            wanted = [number for number in self.sent if number % self.scenario.channels == channel]
            if sorted(events) != sorted(wanted):
                different = len(set(events))
                raise SystemExit(f"channel {channel}: {len(events)} events, {different} different, of {len(wanted)}")
            if events != orders.setdefault(channel, events):
                raise SystemExit(f"channel {channel}: two subscribers got its events in different orders")
            for backend in range(len(self.nodes)):
                own = [number for number in events if number % len(self.nodes) == backend]
                if own != sorted(own):
                    raise SystemExit(f"channel {channel}: the events of one backend are out of order")


async def load(options, directory):
    settings = [("single", 1, False)] + [(f"redis, {count}", count, True) for count in options.nodes]
    results = collections.defaultdict(list)
    for _ in range(options.rounds):
        for scenario in options.scenarios:
            for name, count, shared in settings:
                redis = Redis(options, directory) if shared else None
                nodes = [Node(options, directory, f"node-{index}", redis) for index in range(count)]
                results[scenario, name].append(await Run(options, scenario, nodes, redis).measure())
                for process in nodes + [redis] * shared:
                    process.kill()
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for scenario in options.scenarios:
        deliveries = scenario.rate * scenario.subscribers
        print(
            f"{scenario.channels} channels, {scenario.subscribers} subscribers each, {scenario.rate:g} events of "
            f"{options.data} bytes a second ({deliveries:g} deliveries), {options.seconds:g} s, {options.rounds} rounds"
        )
        columns = list(results[scenario, "single"][0])
        table = {
            name: [statistics.median(row[column] for row in results[scenario, name]) for column in columns]
            for name, _, _ in settings
        }
        alone = table["single"][columns.index("p50 ms")]
        rows = [["", *columns, "added p50 ms"]]
        for name, row in table.items():
            added = row[columns.index("p50 ms")] - alone
            rows.append([name, f"{row[0]:.0f}", *(f"{cell:.2f}" for cell in (*row[1:], added))])
        widths = [max(map(len, column)) for column in zip(*rows)]
        for row in rows:
            print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths)))


async def kill(options, directory):
    for lease in options.leases:
        redis, took = Redis(options, directory), []
        watching = Node(options, directory, "watching", redis, lease)
        watcher = await join(options, watching, "watcher")
        for turn in range(options.kills):
            victim = Node(options, directory, "victim", redis, lease)
            await join(options, victim, f"member-{turn}")
            await watcher.expect("pusher_internal:member_added")
            # At any moment between two signs of life.
            await asyncio.sleep(random.uniform(1, 1 + lease / 5))
            started = time.monotonic()
            victim.kill()
            await watcher.expect("pusher_internal:member_removed")
            took.append(time.monotonic() - started)
        watching.kill()
        redis.kill()
        print(
            f"lease {lease} s, from kill -9 to member_removed at another node, {options.kills} rounds: "
            f"min {min(took):.2f} s, median {statistics.median(took):.2f} s, max {max(took):.2f} s"
        )


def scenario(text):
    """CHANNELSxSUBSCRIBERS@RATE: subscribers of each channel, events a second over all of them."""
    channels, subscribers, rate = re.fullmatch(r"(\d+)x(\d+)@([\d.]+)", text).groups()
    return Scenario(int(channels), int(subscribers), float(rate))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default_bin = os.path.join(os.path.dirname(__file__), "../../target/release/fanfare")
    parser.add_argument("--bin", default=default_bin, help="a release build of Fanfare")
    parser.add_argument("--redis", default="redis-server")
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 2, 4], help="sizes of clusters")
    parser.add_argument(
        "--scenarios",
        type=scenario,
        nargs="*",
        default=[Scenario(1, 1000, 20), Scenario(200, 5, 100)],
        metavar="CHANNELSxSUBSCRIBERS@RATE",
        help="subscribers of each channel, events a second in all (1x1000@20 200x5@100)",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of triggering, in each round")
    parser.add_argument("--data", type=int, default=100, help="bytes of data of each event, 8 at least")
    parser.add_argument("--kills", type=int, default=10, help="rounds of killing a node")
    parser.add_argument("--leases", type=int, nargs="*", default=[8, 2], help="seconds")
    options = parser.parse_args()
    options.host, options.app_id, options.key, options.secret = "127.0.0.1", "1001", "load-key", "load-secret"
    raise_open_files()
    with tempfile.TemporaryDirectory() as directory:
        try:
            asyncio.run(load(options, directory))
            asyncio.run(kill(options, directory))
        finally:
            for process in list(Process.running):
                process.kill()


if __name__ == "__main__":
    main()
