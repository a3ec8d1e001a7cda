// Webhooks survive whatever happens on the way: a backend that is away, a server that is killed, clients that come back.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setInterval, setTimeout } from "node:timers/promises";

import { Backend } from "./support/backend.js";
import { connected, next, open, subscribe, unique } from "./support/clients.js";
import { DEADLINE_MS, until } from "./support/deadline.js";
import { Server, temporary } from "./support/server.js";
import { WebhookEndpoint } from "./support/webhook_endpoint.js";

/** How long the backend is away. A minute shows more, and takes more than a minute. */
const OUTAGE_MS = Number(process.env.FANFARE_OUTAGE_SECONDS ?? 2) * 1000;

/** Channels on which one client is busy, and what it does on one of them every time. */
const CHANNELS = 8;
const STEPS = 5;
const PACE_MS = 100;

/** A server that tells this endpoint, and a backend that authorises. */
async function start(t, endpoint, app = {}, webhooks = {}) {
  const server = await Server.start({
    // Its disk and its queues are what this is about.
    alone: true,
    app: {
      client_events: true,
      limits: { client_events_per_second: 10_000 },
      webhooks: [{ url: endpoint.url }],
      ...app,
    },
    webhooks: { data_dir: temporary("fanfare-webhooks-"), ...webhooks },
  });
  const backend = await Backend.start(server.library());
  const clients = [];
  t.after(async () => {
    // They go before their server does.
    for (const pusher of clients) pusher.disconnect();
    await backend.stop();
    await server.crash();
  });
  const join = async (user) => {
    const pusher = open(t, server, backend.authFor(user));
    clients.push(pusher);
    await connected(pusher);
    return pusher;
  };
  return { server, join };
}

/** An event in a word: `channel_occupied`, or `step 3` for a client event. */
function word(event) {
  return event.name === "client_event" ? `step ${JSON.parse(event.data).number}` : event.name;
}

/** Clients at work. `done` is what their backend must hear, channel by channel, in order. */
class Load {
  done = new Map();
  events = 0;
  #stopped = new AbortController();
  #running;

  /** Has these clients come and go, and send client events in between, until `stop`. */
  constructor(clients) {
    this.#running = clients.map((pusher) => this.#work(pusher));
  }

  async stop() {
    this.#stopped.abort();
    await Promise.all(this.#running);
  }

  async #work(pusher) {
    const names = Array.from({ length: CHANNELS }, () => unique("private-room"));
    let turn = 0;
    // The pace of its user.
    for await (const _ of setInterval(PACE_MS)) {
      if (this.#stopped.signal.aborted) return;
      // A busy channel that is known, and one that nobody has heard of.
      await this.#visit(pusher, names[turn % names.length], STEPS);
      await this.#visit(pusher, unique("private-new"), 1);
      turn += 1;
    }
  }

  async #visit(pusher, name, steps) {
    const words = this.done.get(name) ?? [];
    this.done.set(name, words);
    const channel = await subscribe(pusher, name);
    words.push("channel_occupied");
    for (let step = 0; step < steps; step += 1) {
      channel.trigger("client-step", { number: words.length });
      words.push(`step ${words.length}`);
    }
    pusher.unsubscribe(name);
    words.push("channel_vacated");
    this.events += steps + 2;
  }
}

/** What the backend has acknowledged, in words, channel by channel. */
function heard(endpoint) {
  const channels = new Map();
  for (const event of endpoint.events) {
    const words = channels.get(event.channel) ?? [];
    words.push(word(event));
    channels.set(event.channel, words);
  }
  return channels;
}

describe("webhooks survive", { concurrency: true }, () => {
  test("a backend's outage under load", { timeout: OUTAGE_MS * 3 + 60_000 }, async (t) => {
    const endpoint = await WebhookEndpoint.start(t);
    // It is not at its best before and after, either: it fails now and then, and sometimes forgets to answer.
    const faults = { failed: 0, forgotten: 0 };
    endpoint.answer = () => {
      const number = endpoint.requests.length;
      if (number % 20 === 7 && faults.failed < 40) {
        faults.failed += 1;
        return 500;
      }
      if (number % 50 === 9 && faults.forgotten < 6) {
        faults.forgotten += 1;
        return undefined;
      }
      return 204;
    };
    const { server, join } = await start(t, endpoint, { webhook_delay: "0s" }, { timeout: "2s" });
    const load = new Load(await Promise.all(["ann", "bob", "cleo", "ann"].map(join)));
    await endpoint.until("some traffic", () => endpoint.events.length > 200 && faults.forgotten > 1);

    await endpoint.goAway();
    const before = { events: load.events, requests: endpoint.requests.length };
    await setTimeout(OUTAGE_MS);
    const during = load.events - before.events;
    assert.ok(during > OUTAGE_MS / 100, `the load went on: ${during} events`);
    const failed = await server.metric("fanfare_webhooks_failed_total");
    await endpoint.comeBack();
    const back = performance.now();
    await endpoint.until("the first webhook after the outage", () => endpoint.requests.length > before.requests);
    const first = performance.now() - back;
    await load.stop();
    await endpoint.until("most events", () => endpoint.events.length >= load.events * 0.9, OUTAGE_MS + DEADLINE_MS);
    const most = performance.now() - back;
    // A webhook that fails once more now has a long pause before it, and its channel's later ones wait for it.
    await endpoint.until("all events", () => endpoint.events.length >= load.events, OUTAGE_MS * 2 + DEADLINE_MS);
    const all = performance.now() - back;

    assert.deepEqual(heard(endpoint), load.done);
    const deliveries = endpoint.assertExactlyOnce();
    assert.equal(deliveries.size, load.events);
    await until("nothing that is still to be delivered", async () => {
      return (await server.metric("fanfare_webhook_events_pending")) === 0;
    });
    for (const metric of ["fanfare_webhook_events_dropped", "fanfare_webhooks_dead", "fanfare_webhook_store_errors"]) {
      assert.equal(await server.metric(`${metric}_total`), 0, metric);
    }
    const again = endpoint.requests.length - deliveries.size;
    t.diagnostic(
      `${OUTAGE_MS / 1000} s away, on ${load.done.size} channels ${load.events} events, ${during} of them meanwhile; ` +
        `${endpoint.requests.length} webhooks read, ${again} of them again, ${faults.failed + faults.forgotten} for want ` +
        `of an answer; ${failed} attempts failed by the end of the outage; ` +
        `first webhook after ${Math.round(first)} ms, 90 % after ${Math.round(most)} ms, all after ${Math.round(all)} ms`,
    );
  });

  test("a server that is killed with a thousand of them undelivered", async (t) => {
    const endpoint = await WebhookEndpoint.start(t);
    endpoint.answer = () => 503;
    // Only what was undelivered shall come, not that everybody has gone.
    const { server, join } = await start(t, endpoint, {}, { restart_grace: "1h" });
    const ann = await join("ann");
    const rooms = Array.from({ length: 500 }, () => unique("room"));
    await Promise.all(rooms.map((name) => subscribe(ann, name)));
    // Half of them the backend has seen, and not taken.
    const seen = () => new Map(endpoint.requests.map(({ id, body }) => [id, body]));
    await endpoint.until("a first attempt of each", () => seen().size >= rooms.length);
    await endpoint.goAway();
    const before = seen();
    const busy = await Promise.all(Array.from({ length: 5 }, () => subscribe(ann, unique("private-room"))));
    for (let number = 1; number < 100; number += 1) {
      for (const channel of busy) channel.trigger("client-step", { number });
    }
    // An event counts as pending when it is on disk, and not earlier.
    await until("a thousand pending events", async () => {
      return (await server.metric("fanfare_webhook_events_pending")) === 1000;
    });
    assert.equal(await server.metric("fanfare_webhook_store_errors_total"), 0);
    await server.crash();
    ann.disconnect();

    endpoint.answer = () => 204;
    endpoint.requests.length = 0;
    await endpoint.comeBack();
    await server.startAgain();
    await endpoint.until("all events", () => endpoint.events.length >= 1000);
    await until("nothing that is still to be delivered", async () => {
      return (await server.metric("fanfare_webhook_events_pending")) === 0;
    });
    const deliveries = endpoint.assertExactlyOnce();
    assert.equal(endpoint.requests.length, 1000);
    assert.equal(deliveries.size, 1000);
    for (const [id, body] of before) assert.equal(deliveries.get(id)?.[0].body, body, `delivery ${id} is what it was`);
    const expected = new Map(rooms.map((name) => [name, ["channel_occupied"]]));
    const steps = Array.from({ length: 99 }, (_, index) => `step ${index + 1}`);
    for (const { name } of busy) expected.set(name, ["channel_occupied", ...steps]);
    assert.deepEqual(heard(endpoint), expected);
  });

  const ends = [
    ["a crash", (server) => server.crash()],
    ["an orderly restart", (server) => server.stop()],
  ];
  for (const [name, end] of ends) {
    test(`${name}: backends hear of those who do not come back, and of nobody else`, async (t) => {
      const endpoint = await WebhookEndpoint.start(t);
      const { server, join } = await start(t, endpoint, {}, { restart_grace: "4s" });
      const [ann, bob] = [await join("ann"), await join("bob")];
      const [room, annsRoom, bobsRoom] = [unique("presence-room"), unique("room"), unique("room")];
      await Promise.all([subscribe(ann, room), subscribe(bob, room), subscribe(ann, annsRoom), subscribe(bob, bobsRoom)]);
      await endpoint.until("everything that begins", () => endpoint.events.length >= 5);
      assert.deepEqual(heard(endpoint).get(room), ["channel_occupied", "member_added", "member_added"]);

      // Earlier, pusher-js could be told to stay away and come back all the same: a close with 4200 is not yet handled.
      const lost = Promise.all([ann, bob].map((pusher) => next(pusher.connection, "connecting")));
      await end(server);
      await lost;
      for (const pusher of [ann, bob]) pusher.disconnect();
      assert.equal(endpoint.events.length, 5, "nobody has gone yet");
      await server.startAgain();
      ann.connect();
      await Promise.all([room, annsRoom].map((name) => subscribe(ann, name)));
      await endpoint.until("everything that ends", () => endpoint.events.length >= 7);
      await until("nothing that is still to be delivered", async () => {
        return (await server.metric("fanfare_webhook_events_pending")) === 0;
      });
      const ended = endpoint.events.slice(5).sort((one, other) => (one.name < other.name ? -1 : 1));
      assert.deepEqual(ended, [
        { name: "channel_vacated", channel: bobsRoom },
        { name: "member_removed", channel: room, user_id: "bob" },
      ]);
      // She was never away, and when she goes it is heard.
      ann.disconnect();
      await endpoint.until("her end", () => endpoint.events.length >= 10);
      assert.deepEqual(heard(endpoint).get(room).slice(3), ["member_removed", "member_removed", "channel_vacated"]);
      assert.deepEqual(heard(endpoint).get(annsRoom), ["channel_occupied", "channel_vacated"]);
      assert.deepEqual(endpoint.refused, []);
    });
  }
});
