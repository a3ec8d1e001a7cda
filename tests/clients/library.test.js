// Pusher's library for Node backends: what it sends, what it asks, and what it is told when something is wrong.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Backend } from "./support/backend.js";
import { connected, next, open, subscribe, unique } from "./support/clients.js";
import { APP, Server } from "./support/server.js";

let server;
let backend;
let library;

before(async () => {
  server = await Server.start();
  library = server.library();
  backend = await Backend.start(library);
});
after(async () => {
  await backend.stop();
  await server.stop();
});

/** A connected client that authorises itself as `user`. */
async function join(t, user) {
  const pusher = open(t, server, backend.authFor(user));
  await connected(pusher);
  return pusher;
}

/** The body of an answer. */
const json = async (answer) => (await answer).json();

/** A request that must fail: its status and text. */
async function refusal(answer) {
  const error = await answer.then(
    () => assert.fail("the request was answered with success"),
    (error) => error,
  );
  assert.equal(error.name, "PusherRequestError", error.stack);
  return { status: error.status, body: error.body };
}

test("triggers one event and is answered with an empty object", async (t) => {
  const channel = await subscribe(await join(t, "ann"), unique("room"));
  const event = next(channel, "greet");
  const answer = await library.trigger(channel.name, "greet", "plain text");
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get("content-type"), /^application\/json/);
  assert.equal(await answer.text(), "{}");
  assert.equal(await event, "plain text");
});

test("triggers one event on a hundred channels", async (t) => {
  const pusher = await join(t, "ann");
  const names = Array.from({ length: 100 }, () => unique("room"));
  const channels = await Promise.all(names.map((name) => subscribe(pusher, name)));
  const events = Promise.all(channels.map((channel) => next(channel, "greet")));
  assert.deepEqual(await json(library.trigger(names, "greet", { to: "all" })), {});
  assert.deepEqual(await events, names.map(() => ({ to: "all" })));
});

test("triggers a batch in its order", async (t) => {
  const channel = await subscribe(await join(t, "ann"), unique("room"));
  const received = [];
  channel.bind("step", (data) => received.push(data));
  const last = next(channel, "step", (data) => data === 10);
  const batch = Array.from({ length: 10 }, (_, index) => ({ channel: channel.name, name: "step", data: index + 1 }));
  assert.deepEqual(await json(library.triggerBatch(batch)), {});
  await last;
  assert.deepEqual(received, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
});

test("is told who listens when it asks in a trigger", async (t) => {
  const [ann, bob] = [await join(t, "ann"), await join(t, "bob")];
  const [room, presence, empty] = [unique("room"), unique("presence-room"), unique("room")];
  for (const pusher of [ann, bob]) for (const name of [room, presence]) await subscribe(pusher, name);
  const info = "user_count,subscription_count";
  assert.deepEqual(await json(library.trigger([room, presence, empty], "greet", "", { info })), {
    channels: {
      [room]: { subscription_count: 2 },
      [presence]: { user_count: 2, subscription_count: 2 },
      [empty]: { subscription_count: 0 },
    },
  });
  const event = (channel, info) => ({ channel, name: "greet", data: "", ...(info && { info }) });
  const batch = [event(presence, "user_count"), event(room), event(room, "subscription_count")];
  assert.deepEqual(await json(library.triggerBatch(batch)), {
    batch: [{ user_count: 2 }, {}, { subscription_count: 2 }],
  });
});

test("encrypts for private-encrypted channels, and the server passes it on unread", async (t) => {
  const pusher = await join(t, "ann");
  const channel = await subscribe(pusher, unique("private-encrypted-room"));
  const wire = next(pusher.connection, "message", ({ event }) => event === "greet");
  const event = next(channel, "greet");
  await library.trigger(channel.name, "greet", { secret: "tea" });
  assert.deepEqual(await event, { secret: "tea" });
  assert.deepEqual(Object.keys((await wire).data).sort(), ["ciphertext", "nonce"]);
});

test("lists the occupied channels", async (t) => {
  const pusher = await join(t, "ann");
  const [room, presence] = [unique("listed-room"), unique("presence-listed")];
  for (const name of [room, presence]) await subscribe(pusher, name);
  const all = await json(library.get({ path: "/channels" }));
  assert.deepEqual([all.channels[room], all.channels[presence]], [{}, {}]);
  const params = { filter_by_prefix: "presence-listed", info: "user_count" };
  assert.deepEqual(await json(library.get({ path: "/channels", params })), {
    channels: { [presence]: { user_count: 1 } },
  });
  const none = { filter_by_prefix: "no-such-prefix" };
  assert.deepEqual(await json(library.get({ path: "/channels", params: none })), { channels: {} });
});

test("describes one channel", async (t) => {
  const pusher = await join(t, "ann");
  const presence = unique("presence-room");
  await subscribe(pusher, presence);
  const params = { info: "user_count,subscription_count" };
  assert.deepEqual(await json(library.get({ path: `/channels/${presence}`, params })), {
    occupied: true,
    user_count: 1,
    subscription_count: 1,
  });
  assert.deepEqual(await json(library.get({ path: `/channels/${unique("room")}` })), { occupied: false });
  const cache = unique("cache-room");
  await library.trigger(cache, "score", { home: 1 });
  const answer = await json(library.get({ path: `/channels/${cache}`, params: { info: "cache" } }));
  assert.equal(answer.cache.data, '{"home":1}');
  assert.ok(Number.isInteger(answer.cache.ttl) && answer.cache.ttl > 0, JSON.stringify(answer));
});

test("lists the users of a presence channel", async (t) => {
  const presence = unique("presence-room");
  for (const user of ["ann", "bob", "ann"]) await subscribe(await join(t, user), presence);
  const { users } = await json(library.get({ path: `/channels/${presence}/users` }));
  assert.deepEqual(users.map(({ id }) => id).sort(), ["ann", "bob"]);
  assert.deepEqual(await json(library.get({ path: `/channels/${unique("presence-room")}/users` })), { users: [] });
});

test("finds channels whose names need escaping", async (t) => {
  const channel = await subscribe(await join(t, "ann"), "room_-=@,.;1");
  const event = next(channel, "greet");
  await library.trigger(channel.name, "greet", "hello");
  assert.equal(await event, "hello");
  assert.deepEqual(await json(library.get({ path: `/channels/${channel.name}` })), { occupied: true });
});

test("terminates a user who is not there", async () => {
  assert.deepEqual(await json(library.terminateUserConnections("nobody")), {});
});

test("is told that its secret is wrong", async () => {
  const { status, body } = await refusal(server.library({ secret: "wrong" }).trigger("room", "greet", "hello"));
  assert.equal(status, 401);
  assert.match(body, /^Invalid signature: you should have sent HmacSHA256Hex\("POST\\n\/apps\/1001\/events\\n/);
  assert.ok(!body.includes(APP.secret), "the answer does not hold the secret");
});

test("is told that its key or its app does not exist", async () => {
  for (const options of [{ key: "unknown" }, { appId: "4711" }]) {
    const { status, body } = await refusal(server.library(options).trigger("room", "greet", "hello"));
    assert.deepEqual([status, body.trim()], [401, "Unknown auth_key"]);
  }
});

test("is told that its data is too long, at exactly one byte too many", async () => {
  assert.deepEqual(await json(library.trigger("room", "greet", "x".repeat(10_240))), {});
  const { status, body } = await refusal(library.trigger("room", "greet", "x".repeat(10_241)));
  assert.equal(status, 413);
  assert.match(body, /^The data content of this event exceeds the allowed maximum \(10240 bytes\)\./);
});

test("is told what is wrong with a request", async () => {
  const requests = [
    () => library.get({ path: "/channels", params: { info: "user_count" } }),
    () => library.get({ path: `/channels/${unique("room")}/users` }),
    () => library.get({ path: `/channels/${unique("room")}`, params: { info: "user_count" } }),
    () => library.trigger("room", "pusher:fake", "hello"),
    () => library.post({ path: "/events", body: { channels: ["room"], data: "" } }),
    () => library.triggerBatch(Array.from({ length: 11 }, () => ({ channel: "room", name: "greet", data: "" }))),
  ];
  for (const request of requests) {
    const { status, body } = await refusal(request());
    assert.equal(status, 400, body);
    assert.match(body, /^[^\n]+\n?$/, "one line of text");
  }
  assert.equal((await refusal(library.get({ path: "/nothing" }))).status, 404);
});
