// Two nodes on one Redis, as pusher-js, Laravel Echo and a backend see them: as one server, also when a node dies and
// when Redis is away.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import Echo from "laravel-echo";

import { Backend } from "./support/backend.js";
import { Balancer } from "./support/balancer.js";
import { collect, connected, next, open, Pusher, subscribe, unique } from "./support/clients.js";
import { until } from "./support/deadline.js";
import { Redis } from "./support/redis.js";
import { Server, temporary } from "./support/server.js";
import { WebhookEndpoint } from "./support/webhook_endpoint.js";

/** A connection attempt that fails at once costs pusher-js 15 s. */
const RECONNECT_MS = 40_000;

const always = () => true;

let redis;
let a;
let b;
let backend;
let library;

/** A node of the cluster `id`. */
function node(id, name, { app = {}, cluster = {} } = {}) {
  return Server.start({
    app: { client_events: true, offline_delay: "0s", webhook_delay: "3s", ...app },
    webhooks: { data_dir: temporary("fanfare-webhooks-") },
    cluster: { driver: "redis", urls: [redis.url], id, node: name, lease: "3s", timeout: "500ms", ...cluster },
  });
}

async function ready(...nodes) {
  for (const { admin } of nodes) {
    await until(`${admin} is ready`, () => fetch(`http://${admin}/ready`).then(({ ok }) => ok), RECONNECT_MS);
  }
}

/** The ids of a presence channel's members, in order. */
function ids(channel) {
  return Object.keys(channel.members.members).sort();
}

/** The member events of a channel, in short, as they come. */
function moves(channel) {
  const seen = [];
  channel.bind("pusher:member_added", ({ id }) => seen.push(`+${id}`));
  channel.bind("pusher:member_removed", ({ id }) => seen.push(`-${id}`));
  return seen;
}

before(async () => {
  redis = await Redis.start();
  [a, b] = await Promise.all([node("clients", "a"), node("clients", "b")]);
  await ready(a, b);
  library = b.library();
  backend = await Backend.start(library);
});

after(async () => {
  await backend?.stop();
  await a?.stop();
  await b?.stop();
  await redis?.goAway();
});

test("members are the same at both nodes, and a user at both is one", async (t) => {
  const name = unique("presence-room");
  const ann = await subscribe(open(t, a, backend.authFor("ann")), name);
  const seen = moves(ann);
  const [bob, again] = [open(t, b, backend.authFor("bob")), open(t, a, backend.authFor("bob"))];
  const atB = await subscribe(bob, name);
  assert.deepEqual([ids(atB), atB.members.count], [["ann", "bob"], 2]);
  const atA = await subscribe(again, name);
  assert.deepEqual(ids(atA), ["ann", "bob"]);
  bob.disconnect();
  const cleo = await subscribe(open(t, b, backend.authFor("cleo")), name);
  assert.deepEqual(ids(cleo), ["ann", "bob", "cleo"]);
  const removed = next(ann, "pusher:member_removed");
  again.disconnect();
  await removed;
  assert.deepEqual(seen, ["+bob", "+cleo", "-bob"]);
  const answer = await library.get({ path: `/channels/${name}/users` });
  assert.deepEqual((await answer.json()).users.map(({ id }) => id).sort(), ["ann", "cleo"]);
});

test("events of backends and clients cross the nodes, on every kind of channel", async (t) => {
  const [ann, bob] = [open(t, a, backend.authFor("ann")), open(t, b, backend.authFor("bob"))];
  for (const kind of ["room", "private-room", "private-encrypted-room", "presence-room", "cache-room"]) {
    const name = unique(kind);
    const channels = [await subscribe(ann, name), await subscribe(bob, name)];
    const heard = Promise.all(channels.map((channel) => next(channel, "greet")));
    await library.trigger(name, "greet", { kind });
    assert.deepEqual(await heard, [{ kind }, { kind }]);
    if (kind.startsWith("cache-")) {
      const late = open(t, a, backend.authFor("cleo")).subscribe(name);
      assert.deepEqual(await next(late, "greet"), { kind });
    }
    if (kind === "private-room" || kind === "presence-room") {
      const typing = next(channels[1], "client-typing");
      assert.ok(channels[0].trigger("client-typing", { at: kind }));
      assert.deepEqual(await typing, { at: kind });
    }
  }
});

test("users are known at both nodes", async (t) => {
  const [ann, bob] = [open(t, a, backend.authFor("ann")), open(t, b, backend.authFor("bob"))];
  await Promise.all([connected(ann), connected(bob)]);
  const watched = next(ann, "pusher:signin_success");
  ann.signin();
  await watched;
  const online = next(ann.user.watchlist, "online", ({ user_ids }) => user_ids.includes("bob"));
  const signedIn = next(bob, "pusher:signin_success");
  bob.signin();
  await Promise.all([online, signedIn]);
  const notices = next(bob.user, "notice");
  await a.library().sendToUser("bob", "notice", { unread: 1 });
  assert.deepEqual(await notices, { unread: 1 });
  const offline = next(ann.user.watchlist, "offline");
  const gone = next(bob.connection, "disconnected");
  await a.library().terminateUserConnections("bob");
  await gone;
  assert.deepEqual((await offline).user_ids, ["bob"]);
});

test("Laravel Echo sees who is here at both nodes", async (t) => {
  const echo = new Echo({
    broadcaster: "pusher",
    key: "clients-key",
    client: open(t, a, backend.authFor("ann")),
    withoutInterceptors: true,
  });
  const name = unique("lobby");
  const joined = [];
  const here = new Promise((resolve) => {
    echo.join(name).here(resolve).joining((user) => joined.push(user.name));
  });
  assert.deepEqual(await here, [{ name: "Ann" }]);
  await subscribe(open(t, b, backend.authFor("bob")), `presence-${name}`);
  await until("Bob joins", () => joined.includes("Bob"));
});

test("a killed node's clients come back to the other one, and only who does not is gone", async (t) => {
  const nodes = await Promise.all([node("killed", "a"), node("killed", "b")]);
  t.after(() => nodes[1].stop());
  await ready(...nodes);
  const balancer = await Balancer.start(t, nodes);
  const name = unique("presence-room");
  const observer = await subscribe(open(t, nodes[1], backend.authFor("ann")), name);
  const lonely = await subscribe(open(t, nodes[0], { ...backend.authFor("cleo") }), name);
  const moving = open(t, balancer, backend.authFor("bob"));
  await subscribe(moving, name);
  await until("everybody sees everybody", () => [observer, lonely].every((channel) => channel.members.count === 3));
  const seen = moves(observer);
  const killed = Date.now();
  const removed = next(observer, "pusher:member_removed", ({ id }) => id === "cleo");
  await nodes[0].crash();
  await removed;
  t.diagnostic(`member_removed ${Date.now() - killed} ms after the kill, with a lease of 3 s`);
  // Wherever it was connected, it is back, and nobody has seen it go.
  await connected(moving);
  await until("it is subscribed again", () => moving.channel(name).subscribed);
  assert.deepEqual([seen, ids(observer)], [["-cleo"], ["ann", "bob"]]);
});

test("while Redis is away clients stay, and what failed meanwhile heals by itself", async (t) => {
  const name = unique("presence-room");
  const [ann, bob] = [open(t, a, backend.authFor("ann")), open(t, b, backend.authFor("bob"))];
  const [atA, atB] = [await subscribe(ann, name), await subscribe(bob, name)];
  await until("both see both", () => ids(atA).length === 2 && ids(atB).length === 2);
  const seen = [moves(atA), moves(atB)];
  const states = collect(ann.connection);

  await redis.goAway();
  await until("a says so", async () => (await fetch(`http://${a.admin}/ready`)).status === 503);
  const refused = await library.trigger(name, "greet", {}).then(
    () => undefined,
    ({ status }) => status,
  );
  assert.equal(refused, 503);
  const cleo = open(t, a, backend.authFor("cleo"));
  const failed = next(cleo.subscribe(name), "pusher:subscription_error");
  assert.equal((await failed).status, 503);
  assert.deepEqual([ann.connection.state, cleo.connection.state], ["connected", "connected"]);

  const healed = next(cleo.channel(name), "pusher:subscription_succeeded", always, RECONNECT_MS);
  await redis.comeBack();
  await healed;
  assert.deepEqual(ids(cleo.channel(name)), ["ann", "bob", "cleo"]);
  await ready(a, b);
  const greeted = Promise.all([atA, atB, cleo.channel(name)].map((channel) => next(channel, "greet")));
  await library.trigger(name, "greet", { back: true });
  assert.deepEqual(await greeted, [{ back: true }, { back: true }, { back: true }]);
  assert.deepEqual(seen, [["+cleo"], ["+cleo"]]);
  assert.deepEqual(states.filter(([state]) => state === "disconnected" || state === "error"), []);
});

test("a rolling restart loses nothing for who stays, and tells of nobody who comes back", async (t) => {
  const endpoint = await WebhookEndpoint.start(t);
  const app = { webhooks: [{ url: endpoint.url }] };
  const nodes = [];
  for (const name of ["a", "b", "c"]) nodes.push(await node("rolling", name, { app }));
  t.after(() => Promise.all(nodes.map((server) => server.stop())));
  await ready(...nodes);
  const balancer = await Balancer.start(t, nodes);
  // Whoever sends to a node at the moment when it stops accepting connections must try again; these need not.
  const publisher = nodes[2].library();
  const name = unique("presence-room");
  const users = ["ann", "bob", "cleo"];
  const clients = users.map((user) => open(t, balancer, backend.authFor(user)));
  await Promise.all(clients.map((client) => subscribe(client, name)));
  // One that stays until the last node is restarted, and counts.
  const steady = open(t, nodes[2], { Pusher });
  const counted = [];
  (await subscribe(steady, "counter")).bind("count", ({ n }) => counted.push(n));

  let running = true;
  const sent = [];
  const publishing = (async () => {
    for (let n = 0; running; n += 1) {
      await publisher.trigger("counter", "count", { n });
      sent.push(n);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  })();
  for (const server of nodes.slice(0, 2)) {
    await server.stop();
    await server.startAgain();
    await ready(server);
    const isBack = (client) => client.channel(name).subscribed && client.connection.state === "connected";
    await until("everybody is back", () => clients.every(isBack), RECONNECT_MS);
  }
  running = false;
  await publishing;
  await until("all arrived", () => counted.length >= sent.length);
  assert.deepEqual(counted, sent, "each once and in order, and none refused");
  // Who is back may know it before the others do.
  await until("everybody sees everybody", () =>
    clients.every((client) => ids(client.channel(name)).join() === users.join()),
  );
  // The grace is over before the end of this is told.
  const marker = unique("marker");
  await subscribe(steady, marker);
  steady.unsubscribe(marker);
  const vacated = ({ name: event, channel }) => event === "channel_vacated" && channel === marker;
  await endpoint.until("the marker", () => endpoint.events.some(vacated), RECONNECT_MS);
  const about = endpoint.events.filter(({ channel }) => channel === name);
  const told = about.map(({ name: event, user_id }) => (user_id === undefined ? event : `${event} ${user_id}`));
  assert.deepEqual(told.sort(), ["channel_occupied", ...users.map((user) => `member_added ${user}`)].sort());
});
