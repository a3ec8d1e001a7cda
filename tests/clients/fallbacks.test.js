// The HTTP transports of pusher-js, without a browser: many clients of one server, and a cluster behind a balancer that
// sends every request somewhere else.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";

import { Backend } from "./support/backend.js";
import { next, open, reason, subscribe, unique, VERSIONS } from "./support/clients.js";
import { until } from "./support/deadline.js";
import { Nginx } from "./support/nginx.js";
import { Redis } from "./support/redis.js";
import { APP, Server, temporary } from "./support/server.js";

const TRANSPORTS = ["xhr_streaming", "xhr_polling"];

/** A connection attempt that fails at once costs pusher-js 15 s. */
const RECONNECT_MS = 40_000;

/** 0, 1, 2, … */
const numbers = (count) => Array.from({ length: count }, (_, number) => number);

/** The numbers that events of this name bring to a channel, as they come. */
function collect(channel, event) {
  const seen = [];
  channel.bind(event, ({ number }) => seen.push(number));
  return seen;
}

describe("two nodes behind a balancer that knows no sessions", () => {
  let redis;
  let nodes;
  let nginx;
  let backend;

  /** Nodes of the cluster `id`, which are ready. */
  const cluster = async (id) => {
    const settings = { driver: "redis", urls: [redis.url], id, lease: "3s" };
    const node = (name) =>
      Server.start({
        app: { client_events: true, limits: { client_events_per_second: 1_000 } },
        fallbacks: { grace: "1s" },
        webhooks: { data_dir: temporary("fanfare-webhooks-") },
        cluster: { ...settings, node: name },
      });
    const servers = await Promise.all(["a", "b"].map(node));
    for (const { admin } of servers) {
      await until(`${admin} is ready`, () => fetch(`http://${admin}/ready`).then(({ ok }) => ok));
    }
    return servers;
  };

  before(async () => {
    redis = await Redis.start();
    nodes = await cluster("fallbacks");
    nginx = await Nginx.start(nodes);
    backend = await Backend.start(nodes[0].library());
  });
  after(async () => {
    await nginx?.stop();
    await backend?.stop();
    await Promise.all((nodes ?? []).map((node) => node.stop()));
    await redis?.goAway();
  });

  /** A client of `balancer` with this transport, as `user`. */
  const client = (t, balancer, { Pusher, users }, transport, user) => {
    const auth = users ? backend.authFor(user) : backend.oldAuthFor(user);
    return open(t, balancer, { Pusher, enabledTransports: [transport], ...auth });
  };

  describe("each pusher-js", { concurrency: 3 }, () => {
    for (const version of VERSIONS) {
      for (const transport of TRANSPORTS) {
        test(`${version.name} over ${transport} gets and says everything, in order`, async (t) => {
          const [room, lobby] = [unique("private-room"), unique("presence-lobby")];
          const [ann, bob] = ["ann", "bob"].map((user) => client(t, nginx, version, transport, user));
          const atAnn = { room: await subscribe(ann, room), lobby: await subscribe(ann, lobby) };
          const arrived = next(atAnn.lobby, "pusher:member_added");
          const atBob = { room: await subscribe(bob, room), lobby: await subscribe(bob, lobby) };
          assert.equal((await arrived).id, "bob");
          assert.deepEqual(Object.keys(atBob.lobby.members.members).sort(), ["ann", "bob"]);

          // From the backend: more than fits into one response, by way of both nodes.
          const told = [collect(atAnn.room, "tell"), collect(atBob.room, "tell")];
          const text = "é".repeat(4_000);
          const libraries = nodes.map((node) => node.library());
          const telling = (async () => {
            for (const number of numbers(100)) await libraries[number % 2].trigger(room, "tell", { number, text });
          })();

          // From each other at the same time: one answers the other, and so they take turns.
          const rounds = numbers(20);
          const [asked, answered] = [collect(atBob.lobby, "client-ask"), collect(atAnn.lobby, "client-answer")];
          atBob.lobby.bind("client-ask", ({ number }) => atBob.lobby.trigger("client-answer", { number }));
          for (const number of rounds) {
            const answer = next(atAnn.lobby, "client-answer");
            assert.ok(atAnn.lobby.trigger("client-ask", { number }));
            await answer;
          }
          assert.deepEqual([asked, answered], [rounds, rounds]);

          // In a burst: each is a request of its own, and they may overtake one another, but none is lost.
          const shouted = collect(atAnn.room, "client-shout");
          for (const number of numbers(50)) assert.ok(atBob.room.trigger("client-shout", { number }));
          await until("all shouts", () => shouted.length >= 50);
          assert.deepEqual(shouted.toSorted((one, other) => one - other), numbers(50));

          await telling;
          await until("all that was told", () => told.every((seen) => seen.length >= 100));
          assert.deepEqual(told, [numbers(100), numbers(100)]);

          const left = next(atAnn.lobby, "pusher:member_removed");
          bob.disconnect();
          assert.equal((await left).id, "bob");
          assert.equal(ann.connection.state, "connected");
        });
      }
    }
  });

  test("the nodes have passed on what came to the wrong one, and each time it was answered", async () => {
    for (const node of nodes) {
      assert.ok((await node.metric("fanfare_fallback_requests_relayed_total")) > 100);
      assert.equal(await node.metric("fanfare_fallback_relay_failures_total"), 0);
    }
  });

  test("clients find the other node when theirs is killed, and when it stops", async (t) => {
    const [a, b] = await cluster("fallbacks-restarted");
    t.after(() => Promise.all([a.stop(), b.stop()]));
    const balancer = await Nginx.start([a, b]);
    t.after(() => balancer.stop());
    const room = unique("presence-room");
    // Four of each, so that both nodes have some of both.
    const kinds = TRANSPORTS.flatMap((transport) => numbers(4).map(() => transport));
    const clients = kinds.map((transport, index) => {
      const pusher = client(t, balancer, VERSIONS[0], transport, index % 2 === 0 ? "ann" : "bob");
      const channel = pusher.subscribe(room);
      return { pusher, channel, seen: collect(channel, "tell") };
    });
    const everybody = async (library, number) => {
      const isThere = ({ pusher, channel }) => pusher.connection.state === "connected" && channel.subscribed;
      await until("everybody is there", () => clients.every(isThere), RECONNECT_MS);
      const ids = ({ channel }) => Object.keys(channel.members.members).sort().join();
      await until("everybody sees both", () => clients.every((one) => ids(one) === "ann,bob"));
      await library.trigger(room, "tell", { number });
      await until("everybody is told", () => clients.every(({ seen }) => seen.includes(number)));
    };
    await everybody(b.library(), 0);
    for (const node of [a, b]) {
      const sessions = await node.metric("fanfare_connections");
      assert.ok(sessions > 0 && sessions < clients.length, `a node has ${sessions} of ${clients.length} clients`);
    }

    await a.crash();
    const haveMoved = async () => (await b.metric("fanfare_connections")) === clients.length;
    await until("all clients are at the other node", haveMoved, RECONNECT_MS);
    await everybody(b.library(), 1);
    await a.startAgain();
    await until("a is ready", () => fetch(`http://${a.admin}/ready`).then(({ ok }) => ok));

    const told = Promise.all(clients.map(({ pusher }) => next(pusher.connection, "error", undefined, RECONNECT_MS)));
    await b.stop();
    for (const error of await told) assert.equal(reason(error).code, 4200);
    await everybody(a.library(), 2);
    await b.startAgain();
    for (const { seen } of clients) assert.deepEqual(seen, [0, 1, 2]);
  });

  test("a node that stops loses nothing of what it passes on", async (t) => {
    const [a, b] = await cluster("fallbacks-stopped");
    t.after(() => Promise.all([a.stop(), b.stop()]));
    const room = unique("room");
    let running = true;
    // Sessions of a, whose polls go to b as long as that is there.
    const polling = numbers(40).map(async (session) => {
      const ask = async (node, action, body) => {
        const path = `/pusher/app/${APP.key}/1/session-${session}/${action}?protocol=7`;
        const answer = await fetch(`http://${node.address}${path}`, { method: "POST", body });
        return answer.text();
      };
      await ask(a, "xhr");
      const subscription = { event: "pusher:subscribe", data: { channel: room } };
      await ask(a, "xhr_send", JSON.stringify([JSON.stringify(subscription)]));
      const seen = [];
      while (running) {
        const answer = await ask(b, "xhr").catch(() => ask(a, "xhr"));
        const packets = answer.split("\n").filter((line) => line.startsWith("a"));
        const events = packets.flatMap((line) => JSON.parse(line.slice(1))).map((text) => JSON.parse(text));
        const told = events.filter(({ event }) => event === "tell");
        seen.push(...told.map(({ data }) => JSON.parse(data).number));
      }
      return seen;
    });
    await until("all are subscribed", async () => (await a.metric("fanfare_subscriptions")) === polling.length);
    const library = a.library();
    for (const number of numbers(60)) {
      const telling = Promise.all([library.trigger(room, "tell", { number }), setTimeout(5)]);
      // While the event is on its way, which takes a few milliseconds.
      if (number % 10 === 9) {
        await setTimeout(number / 20);
        await b.stop();
        await b.startAgain();
        await until("b is ready", () => fetch(`http://${b.admin}/ready`).then(({ ok }) => ok));
      }
      await telling;
    }
    running = false;
    // Whoever polls hears of this, and stops.
    await library.trigger(room, "end", {});
    for (const seen of await Promise.all(polling)) {
      assert.deepEqual(seen, numbers(60));
    }
  });
});

test("50 clients that poll lose nothing of 10 events a second, and get them in order", async (t) => {
  const server = await Server.start();
  t.after(() => server.stop());
  const room = unique("room");
  const clients = numbers(50).map(() => open(t, server, { enabledTransports: ["xhr_polling"] }));
  const channels = await Promise.all(clients.map((pusher) => subscribe(pusher, room)));
  const seen = channels.map((channel) => collect(channel, "tell"));
  const library = server.library();
  for (const number of numbers(30)) {
    await Promise.all([library.trigger(room, "tell", { number }), setTimeout(100)]);
  }
  await until("everything", () => seen.every((some) => some.length >= 30));
  for (const some of seen) assert.deepEqual(some, numbers(30));
  for (const pusher of clients) assert.equal(pusher.connection.state, "connected");
});
