// Webhooks as backends get them: every kind, caused by pusher-js and verified by Pusher's libraries for Node and Python.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { Backend } from "./support/backend.js";
import { connected, next, open, settle, subscribe, unique } from "./support/clients.js";
import { DEADLINE_MS, until } from "./support/deadline.js";
import { Child } from "./support/process.js";
import { python } from "./support/python.js";
import { APP, Server, temporary } from "./support/server.js";
import { LIBRARY, WebhookEndpoint } from "./support/webhook_endpoint.js";

const SCRIPT = fileURLToPath(new URL("support/webhook_endpoint.py", import.meta.url));

/** A server that tells these endpoints, and a connected client for each user. */
async function start(t, urls, users, app = {}, webhooks = {}) {
  const server = await Server.start({
    // Its disk and its queues are what this is about.
    alone: true,
    app: { client_events: true, webhooks: urls.map((url) => ({ url })), ...app },
    webhooks: { data_dir: temporary("fanfare-webhooks-"), ...webhooks },
  });
  const backend = await Backend.start(server.library());
  // They go before their server does.
  const clients = users.map((user) => open(t, server, backend.authFor(user)));
  t.after(async () => {
    await backend.stop();
    await server.crash();
  });
  await Promise.all(clients.map((pusher) => connected(pusher)));
  return { server, clients };
}

/** Causes every kind of webhook; answers with what the backend must hear, channel by channel. */
async function everything(ann, bob) {
  const [room, cache] = [unique("presence-room"), unique("cache-room")];
  const here = await subscribe(ann, room);
  await subscribe(bob, room);
  const typing = next(bob.channel(room), "client-typing");
  here.trigger("client-typing", { text: "Grüße, 世界" });
  await typing;
  ann.unsubscribe(room);
  await settle(ann);
  bob.unsubscribe(room);
  await subscribe(ann, cache);
  ann.unsubscribe(cache);
  const socket_id = ann.connection.socket_id;
  const data = '{"text":"Grüße, 世界"}';
  return {
    [room]: [
      { name: "channel_occupied", channel: room },
      { name: "member_added", channel: room, user_id: "ann" },
      { name: "member_added", channel: room, user_id: "bob" },
      { name: "client_event", channel: room, event: "client-typing", data, socket_id, user_id: "ann" },
      { name: "member_removed", channel: room, user_id: "ann" },
      { name: "member_removed", channel: room, user_id: "bob" },
      { name: "channel_vacated", channel: room },
    ],
    [cache]: [
      { name: "channel_occupied", channel: cache },
      { name: "cache_miss", channel: cache },
      { name: "subscription_count", channel: cache, subscription_count: 1 },
      { name: "channel_vacated", channel: cache },
      { name: "subscription_count", channel: cache, subscription_count: 0 },
    ],
  };
}

/** These events by channel, in the order in which they came. */
function byChannel(events) {
  const channels = {};
  for (const event of events) (channels[event.channel] ??= []).push(event);
  return channels;
}

const total = (channels) => Object.values(channels).flat().length;

describe("webhooks", { concurrency: true }, () => {
  test("every kind arrives in its form, and Pusher's libraries for Node and Python believe it", async (t) => {
    const node = await WebhookEndpoint.start(t);
    const child = new Child(python(), [SCRIPT, APP.key, APP.secret]);
    t.after(() => child.stop("SIGKILL"));
    const url = await child.line("its address", (line) => (line.startsWith("http://") ? line : undefined));
    const app = { webhook_delay: "0s", subscription_counts: true };
    const { clients } = await start(t, [node.url, url], ["ann", "bob"], app);
    const expected = await everything(...clients);

    await node.until("all events", () => node.events.length >= total(expected));
    assert.deepEqual(byChannel(node.events), expected);
    for (const { headers, events, time } of node.requests) {
      assert.equal(headers["content-type"], "application/json");
      assert.match(headers["user-agent"], /^Fanfare\/\d/);
      assert.equal(events.length, 1, "without batching an event has a request of its own");
      assert.ok(Math.abs(Date.now() - time) < DEADLINE_MS, `the time is now: ${time}`);
    }
    node.assertExactlyOnce();

    const heard = () => child.output.split("\n").slice(1);
    await until("all events in Python", () => heard().length >= total(expected));
    assert.deepEqual(byChannel(heard().map((line) => JSON.parse(line))), expected);
  });

  test("what somebody has changed, or signed with another secret, is not believed", async (t) => {
    const endpoint = await WebhookEndpoint.start(t);
    const { clients } = await start(t, [endpoint.url], ["ann"]);
    await subscribe(clients[0], unique("room"));
    await endpoint.until("a webhook", () => endpoint.requests.length > 0);
    const [{ headers, body }] = endpoint.requests;
    const valid = (change) => LIBRARY.webhook({ headers, rawBody: body, ...change }).isValid();
    assert.ok(valid({}));
    assert.ok(!valid({ rawBody: body.replace("room", "moor") }), "another body");
    assert.ok(!valid({ rawBody: `${body} ` }), "a longer body");
    const signature = headers["x-pusher-signature"].replace(/^./, (digit) => (digit === "0" ? "1" : "0"));
    assert.ok(!valid({ headers: { ...headers, "x-pusher-signature": signature } }), "another signature");
    assert.ok(!valid({ headers: { ...headers, "x-pusher-key": "unknown" } }), "another key");
    assert.ok(!body.includes(APP.secret) && !JSON.stringify(headers).includes(APP.secret), "the secret stays here");
  });

  test("batches hold several events, each channel's in order", async (t) => {
    const endpoint = await WebhookEndpoint.start(t);
    const app = { webhooks: [{ url: endpoint.url, batch_size: 20, batch_wait: "50ms" }] };
    const { clients } = await start(t, [], ["ann"], app);
    const names = Array.from({ length: 100 }, () => unique("room"));
    await Promise.all(names.map((name) => subscribe(clients[0], name)));
    await endpoint.until("all events", () => endpoint.events.length >= names.length);
    assert.deepEqual(endpoint.events.map((event) => event.channel).sort(), [...names].sort());
    const sizes = endpoint.requests.map(({ events }) => events.length);
    assert.ok(sizes.length < names.length / 2 && Math.max(...sizes) <= 20, `sizes of the batches: ${sizes}`);
    endpoint.assertExactlyOnce();
  });

  test("a backend that never answers delays nobody else's webhooks", async (t) => {
    const [good, hostile] = [await WebhookEndpoint.start(t), await WebhookEndpoint.start(t)];
    hostile.answer = () => undefined;
    // No request to the hostile one ends before the test does.
    const webhooks = { timeout: "1m" };
    const limits = { client_events_per_second: 10_000 };
    const { server, clients } = await start(t, [hostile.url, good.url], ["ann"], { limits }, webhooks);
    const names = Array.from({ length: 20 }, () => unique("private-room"));
    const channels = await Promise.all(names.map((name) => subscribe(clients[0], name)));
    for (let number = 0; number < 20; number += 1) {
      for (const channel of channels) channel.trigger("client-step", { number });
    }
    const expected = names.length * 21;
    await good.until("all events", () => good.events.length >= expected);
    good.assertExactlyOnce();
    const steps = names.map((name) => good.events.filter((event) => event.channel === name && event.event));
    for (const [index, events] of steps.entries()) {
      const numbers = events.map((event) => JSON.parse(event.data).number);
      assert.deepEqual(numbers, Array.from({ length: 20 }, (_, number) => number), names[index]);
    }
    // As many as `webhooks.concurrency`, and all of them still wait for an answer.
    assert.equal(hostile.requests.length, 8);
    await until("nothing but the hostile one's events", async () => {
      return (await server.metric("fanfare_webhook_events_pending")) === expected;
    });
  });
});
