// Connecting, and being refused.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { connected, next, open, reason, settle, subscribe, VERSIONS } from "./support/clients.js";
import { Server } from "./support/server.js";

let server;

before(async () => {
  server = await Server.start();
});
after(() => server?.stop());

for (const { name, Pusher } of VERSIONS) {
  describe(name, () => {
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
  });
}

describe("a server below a path", () => {
  let below;
  before(async () => {
    below = await Server.start({ settings: { path_prefix: "/realtime" } });
  });
  // Not in the test: a client that outlived its server would keep trying to come back.
  after(() => below?.stop());

  test("is found by its clients and by the library", async (t) => {
    const channel = await subscribe(open(t, below, { wsPath: "/realtime" }), "room");
    const event = next(channel, "greet");
    // The library knows no such option; its base URL is made of whatever is given as the host.
    const library = below.library({ host: `${below.address}/realtime`, port: undefined });
    await library.trigger("room", "greet", "hello");
    assert.equal(await event, "hello");
  });
});
