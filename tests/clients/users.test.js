// Users: signing in, events for a user, watchlists and termination. pusher-js has them since 7.1.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Backend } from "./support/backend.js";
import { collect, connected, next, open, reason, settle, subscribe, unique, VERSIONS } from "./support/clients.js";
import { APP, Server } from "./support/server.js";

let server;
let backend;
let library;

before(async () => {
  server = await Server.start({ app: { offline_delay: "0s" } });
  library = server.library();
  backend = await Backend.start(library);
});
after(async () => {
  await backend.stop();
  await server.stop();
});

const versions = VERSIONS.filter(({ users }) => users);

test("the versions with users are tested", () => assert.ok(versions.length >= 2));

for (const { name, Pusher } of versions) {
  /** A client that is signed in as `user`. */
  const signIn = async (t, user) => {
    const pusher = open(t, server, { Pusher, ...backend.authFor(user) });
    await connected(pusher);
    const success = next(pusher, "pusher:signin_success");
    pusher.signin();
    await success;
    await pusher.user.signinDonePromise;
    return pusher;
  };

  describe(name, () => {
    test("signs in and knows its user", async (t) => {
      const pusher = await signIn(t, "ann");
      assert.deepEqual(pusher.user.user_data, {
        id: "ann",
        user_info: { name: "Ann" },
        watchlist: ["bob", "cleo"],
      });
    });

    test("receives what is sent to its user, on every connection and nowhere else", async (t) => {
      const [one, other, bob] = [await signIn(t, "ann"), await signIn(t, "ann"), await signIn(t, "bob")];
      const strange = collect(bob.user);
      const received = Promise.all([next(one.user, "notice"), next(other.user, "notice")]);
      await library.sendToUser("ann", "notice", { unread: 3 });
      assert.deepEqual(await received, [{ unread: 3 }, { unread: 3 }]);
      await settle(bob);
      assert.deepEqual(strange.filter(([event]) => event === "notice"), []);
    });

    test("receives what is sent to its user once", async (t) => {
      const pusher = await signIn(t, "ann");
      await settle(pusher);
      const events = collect(pusher.user);
      await library.sendToUser("ann", "notice", 1);
      await settle(pusher);
      assert.deepEqual(events.filter(([event]) => event === "notice"), [["notice", 1]]);
    });

    test("hears who of its watchlist is online, and every change", async (t) => {
      const bob = await signIn(t, "bob");
      const ann = open(t, server, { Pusher, ...backend.authFor("ann") });
      const status = Promise.all([next(ann.user.watchlist, "online"), next(ann.user.watchlist, "offline")]);
      ann.signin();
      const [online, offline] = await status;
      assert.deepEqual([online.user_ids, offline.user_ids], [["bob"], ["cleo"]]);

      const arrival = next(ann.user.watchlist, "online");
      await signIn(t, "cleo");
      assert.deepEqual((await arrival).user_ids, ["cleo"]);

      const departure = next(ann.user.watchlist, "offline");
      bob.disconnect();
      assert.deepEqual((await departure).user_ids, ["bob"]);
    });

    test("is disconnected for good when its user is terminated", async (t) => {
      const [ann, again, bob] = [await signIn(t, "ann"), await signIn(t, "ann"), await signIn(t, "bob")];
      const retries = [];
      ann.connection.bind("connecting_in", (seconds) => retries.push(seconds));
      const error = next(ann.connection, "error");
      const closed = Promise.all([connected(ann, "disconnected"), connected(again, "disconnected")]);
      await library.terminateUserConnections("ann");
      assert.deepEqual(reason(await error), { code: 4009, message: "You got disconnected by the app." });
      await closed;
      await settle(bob);
      assert.deepEqual(retries, []);
      assert.equal(ann.connection.retryTimer ?? null, null, "no timer is left that would reconnect");
      assert.equal(ann.connection.state, "disconnected");
    });

    test("joins a presence channel as the user that it is signed in as", async (t) => {
      const sign = ({ socketId, channelName }, callback) =>
        callback(null, library.authorizeChannel(socketId, channelName));
      const auth = { ...backend.authFor("ann"), channelAuthorization: { customHandler: sign } };
      const pusher = open(t, server, { Pusher, ...auth });
      await connected(pusher);
      pusher.signin();
      const room = await subscribe(pusher, unique("presence-room"));
      assert.deepEqual(room.members.me, { id: "ann", info: { name: "Ann" } });
    });

    test("is told why a sign-in is refused, and stays connected", async (t) => {
      const forged = ({ socketId }, callback) =>
        callback(null, { ...library.authenticateUser(socketId, { id: "ann" }), auth: `${APP.key}:${"0".repeat(64)}` });
      const pusher = open(t, server, { Pusher, userAuthentication: { customHandler: forged } });
      await connected(pusher);
      const error = next(pusher.connection, "error");
      pusher.signin();
      const { code, message } = reason(await error);
      assert.equal(code, null);
      assert.match(message, /^Invalid signature: Expected HMAC SHA256 hex digest of /);
      await settle(pusher);
      assert.equal(pusher.connection.state, "connected");
      assert.equal(pusher.user.user_data, null);
    });

    test("signs in again after a reconnect", async (t) => {
      const pusher = await signIn(t, "ann");
      const success = next(pusher, "pusher:signin_success");
      pusher.disconnect();
      pusher.connect();
      await success;
      await settle(pusher);
      const event = next(pusher.user, "notice");
      await library.sendToUser("ann", "notice", "welcome back");
      assert.equal(await event, "welcome back");
    });
  });
}
