// Channels of every kind, seen by every version of pusher-js.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Backend } from "./support/backend.js";
import { collect, connected, next, open, reason, settle, subscribe, unique, VERSIONS } from "./support/clients.js";
import { APP, Server } from "./support/server.js";

let server;
let backend;
let library;

before(async () => {
  server = await Server.start({ app: { client_events: true, subscription_counts: true } });
  library = server.library();
  backend = await Backend.start(library);
});
after(async () => {
  await backend.stop();
  await server.stop();
});

for (const { name, Pusher, users } of VERSIONS) {
  /** A client that is connected and authorises itself as `user`. */
  const join = async (t, user, options = {}) => {
    const auth = users ? backend.authFor(user) : backend.oldAuthFor(user);
    const pusher = open(t, server, { Pusher, ...auth, ...options });
    await connected(pusher);
    return pusher;
  };

  /** The options of a client that gets its tokens from `sign`, as the version at hand calls it. */
  const signedBy = (sign) =>
    users
      ? {
          channelAuthorization: {
            customHandler: ({ socketId, channelName }, callback) => callback(null, sign(socketId, channelName)),
          },
        }
      : { authorizer: (channel) => ({ authorize: (id, callback) => callback(false, sign(id, channel.name)) }) };

  describe(name, () => {
    for (const kind of ["room", "private-room", "presence-room", "private-encrypted-room"]) {
      test(`receives what is triggered on ${kind}`, async (t) => {
        const pusher = await join(t, "ann");
        const channel = await subscribe(pusher, unique(kind));
        const event = next(channel, "greet");
        await library.trigger(channel.name, "greet", { text: "Grüße, 世界", list: [1, 2.5, null] });
        assert.deepEqual(await event, { text: "Grüße, 世界", list: [1, 2.5, null] });
      });
    }

    for (const kind of ["cache-room", "private-cache-room", "presence-cache-room", "private-encrypted-cache-room"]) {
      test(`is told that ${kind} is empty, and later given its last event`, async (t) => {
        const [early, late] = [await join(t, "ann"), await join(t, "bob")];
        const channel = early.subscribe(unique(kind));
        await next(channel, "pusher:cache_miss");
        await library.trigger(channel.name, "score", { home: 0 });
        await library.trigger(channel.name, "score", { home: 1 });
        const cached = late.subscribe(channel.name);
        const events = collect(cached);
        assert.deepEqual(await next(cached, "score"), { home: 1 });
        await settle(late);
        const own = events.filter(([event]) => !event.startsWith("pusher:subscription"));
        assert.deepEqual(own, [["score", { home: 1 }]], "the cached event once, and no miss");
      });
    }

    test("hears no more of a channel that it has left", async (t) => {
      const pusher = await join(t, "ann");
      const [left, kept] = [await subscribe(pusher, unique("room")), await subscribe(pusher, unique("room"))];
      const messages = [];
      pusher.connection.bind("message", (message) => messages.push(message));
      pusher.unsubscribe(left.name);
      await settle(pusher);
      messages.length = 0;
      const event = next(kept, "greet");
      await library.trigger([left.name, kept.name], "greet", "hello");
      assert.equal(await event, "hello");
      await settle(pusher);
      assert.deepEqual(messages.filter(({ channel }) => channel === left.name), []);
    });

    test("sees the members of a presence channel come and go", async (t) => {
      const [ann, bob] = [await join(t, "ann"), await join(t, "bob")];
      const room = await subscribe(ann, unique("presence-room"));
      assert.equal(room.members.count, 1);
      assert.deepEqual(room.members.me, { id: "ann", info: { name: "Ann" } });

      const arrival = next(room, "pusher:member_added");
      const other = await subscribe(bob, room.name);
      assert.deepEqual(await arrival, { id: "bob", info: { name: "Bob" } });
      assert.deepEqual(other.members.members, { ann: { name: "Ann" }, bob: { name: "Bob" } });
      assert.equal(other.members.me.id, "bob");

      const departure = next(room, "pusher:member_removed");
      bob.disconnect();
      assert.deepEqual(await departure, { id: "bob", info: { name: "Bob" } });
      assert.equal(room.members.count, 1);
    });

    test("counts a user with two connections as one member", async (t) => {
      const watcher = await join(t, "bob");
      const room = await subscribe(watcher, unique("presence-room"));
      const changes = collect(room);
      const arrival = next(room, "pusher:member_added");
      const [one, other] = [await join(t, "ann"), await join(t, "ann")];
      await subscribe(one, room.name);
      await arrival;
      assert.equal((await subscribe(other, room.name)).members.count, 2);
      one.unsubscribe(room.name);
      await settle(one);
      await settle(watcher);
      assert.deepEqual(changes.map(([event]) => event), ["pusher:member_added"]);
      const departure = next(room, "pusher:member_removed");
      other.unsubscribe(room.name);
      assert.equal((await departure).id, "ann");
    });

    for (const kind of ["private-room", "presence-room"]) {
      test(`sends client events on ${kind} to everybody but itself`, async (t) => {
        const [ann, bob] = [await join(t, "ann"), await join(t, "bob")];
        const room = unique(kind);
        const [from, to] = [await subscribe(ann, room), await subscribe(bob, room)];
        const echoes = collect(from);
        const event = new Promise((resolve) => to.bind("client-typing", (...args) => resolve(args)));
        assert.ok(from.trigger("client-typing", { on: true }));
        const [data, metadata] = await event;
        assert.deepEqual(data, { on: true });
        assert.equal(metadata?.user_id, kind.startsWith("presence-") ? "ann" : undefined);
        await settle(ann);
        assert.deepEqual(echoes.filter(([name]) => name === "client-typing"), []);
      });
    }

    test("is told why a client event on a public channel is refused", async (t) => {
      const pusher = await join(t, "ann");
      const channel = await subscribe(pusher, unique("room"));
      const error = next(pusher.connection, "error");
      channel.trigger("client-typing", {});
      const { code, message } = reason(await error);
      assert.equal(code, null);
      assert.match(message, /^Client event rejected - only supported on private and presence channels/);
      assert.equal(pusher.connection.state, "connected");
    });

    test("is told on the channel that the server refused its signature", async (t) => {
      const pusher = await join(t, "ann", signedBy(() => ({ auth: `${APP.key}:${"0".repeat(64)}` })));
      const error = next(pusher.connection, "error");
      const channel = pusher.subscribe(unique("private-room"));
      const refusal = await next(channel, "pusher:subscription_error");
      assert.equal(refusal.type, "AuthError");
      assert.equal(refusal.status, 401);
      assert.match(refusal.error, /^Invalid signature: Expected HMAC SHA256 hex digest of /);
      assert.equal(reason(await error).message, refusal.error);
      assert.equal(channel.subscribed, false);
      assert.equal(pusher.connection.state, "connected");
    });

    test("is refused with a token that was made for another connection", async (t) => {
      const sign = (_, channel) => library.authorizeChannel("1.1", channel);
      const pusher = await join(t, "ann", signedBy(sign));
      const channel = pusher.subscribe(unique("private-room"));
      assert.equal((await next(channel, "pusher:subscription_error")).status, 401);
    });

    test("does not get an event that excludes its socket id", async (t) => {
      const [ann, bob] = [await join(t, "ann"), await join(t, "bob")];
      const room = unique("room");
      const [mine, theirs] = [await subscribe(ann, room), await subscribe(bob, room)];
      const events = collect(mine);
      const event = next(theirs, "greet");
      await library.trigger(room, "greet", "hello", { socket_id: ann.connection.socket_id });
      assert.equal(await event, "hello");
      await settle(ann);
      assert.deepEqual(events.filter(([name]) => name === "greet"), []);
    });

    if (users) {
      test("is told how many are subscribed", async (t) => {
        const [ann, bob] = [await join(t, "ann"), await join(t, "bob")];
        const channel = ann.subscribe(unique("room"));
        assert.deepEqual(await next(channel, "pusher:subscription_count"), { subscription_count: 1 });
        const two = next(channel, "pusher:subscription_count");
        await subscribe(bob, channel.name);
        assert.deepEqual(await two, { subscription_count: 2 });
        assert.equal(channel.subscriptionCount, 2);
        const one = next(channel, "pusher:subscription_count");
        bob.unsubscribe(channel.name);
        assert.deepEqual(await one, { subscription_count: 1 });
      });
    }
  });
}
