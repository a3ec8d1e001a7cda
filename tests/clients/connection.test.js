// Connecting, being refused, and coming back.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { connected, next, open, reason, settle, subscribe, unique, VERSIONS } from "./support/clients.js";
import { Backend } from "./support/backend.js";
import { Server } from "./support/server.js";

for (const { name, Pusher, users } of VERSIONS) {
  describe(name, () => {
    let server;
    let backend;
    before(async () => {
      server = await Server.start({ app: { client_events: true } });
      backend = await Backend.start(server.library());
    });
    after(async () => {
      await backend.stop();
      await server.stop();
    });

    test("connects and is given a socket id of its own", async (t) => {
      const [one, other] = await Promise.all([0, 1].map(() => connected(open(t, server, { Pusher }))));
      assert.match(one, /^[1-9]\d*\.[1-9]\d*$/);
      assert.notEqual(one, other);
    });

    test("gets an answer to its pings", async (t) => {
      const pusher = open(t, server, { Pusher });
      await connected(pusher);
      await settle(pusher);
    });

    test("stays away after 4001 when the app key is unknown", async (t) => {
      const pusher = open(t, server, { Pusher, key: "nobody" });
      const retries = [];
      pusher.connection.bind("connecting_in", (seconds) => retries.push(seconds));
      const { code, message } = reason(await next(pusher.connection, "error"));
      assert.equal(code, 4001);
      assert.match(message, /^App key nobody not in this cluster/);
      await connected(pusher, "disconnected");
      assert.deepEqual(retries, []);
      assert.equal(pusher.connection.retryTimer ?? null, null, "no timer is left that would reconnect");
    });

    test("reconnects and subscribes again when the server is restarted", async (t) => {
      const auth = users ? backend.authFor("ann") : backend.oldAuthFor("ann");
      const pusher = open(t, server, { Pusher, ...auth });
      const before = await connected(pusher);
      const names = ["room", "private-room", "presence-room"].map(unique);
      const channels = await Promise.all(names.map((name) => subscribe(pusher, name)));
      const lost = next(pusher.connection, "connecting");
      await server.stop();
      await lost;
      const back = Promise.all([
        next(pusher.connection, "connected"),
        ...channels.map((channel) => next(channel, "pusher:subscription_succeeded")),
      ]);
      await server.startAgain();
      await back;
      assert.notEqual(pusher.connection.socket_id, before);
      const received = Promise.all(channels.map((channel) => next(channel, "greet")));
      await server.library().trigger(names, "greet", { back: true });
      assert.deepEqual(await received, names.map(() => ({ back: true })));
    });
  });
}
