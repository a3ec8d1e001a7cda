// Laravel Echo with both of its names for this protocol. The backend's answers are those of Laravel's own routes.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import Echo from "laravel-echo";

import { Backend } from "./support/backend.js";
import { connected, first, next, Pusher, settle, unique, watch } from "./support/clients.js";
import { APP, Server } from "./support/server.js";

let server;
let backend;
let library;

before(async () => {
  server = await Server.start({ app: { client_events: true } });
  library = server.library();
  backend = await Backend.start(library);
});
after(async () => {
  await backend.stop();
  await server.stop();
});

for (const broadcaster of ["pusher", "reverb"]) {
  /** An Echo whose user is known by a bearer token, as with Laravel Sanctum. */
  const open = async (t, user) => {
    const echo = new Echo({
      ...server.clientOptions,
      broadcaster,
      Pusher,
      key: APP.key,
      wssPort: server.port,
      enabledTransports: ["ws", "wss"],
      authEndpoint: `${backend.url}/broadcasting/auth`,
      auth: { headers: {} },
      userAuthentication: { endpoint: `${backend.url}/broadcasting/user-auth`, headers: {} },
      bearerToken: user,
    });
    t.after(() => echo.disconnect());
    watch(echo.connector.pusher);
    await connected(echo.connector.pusher);
    return echo;
  };

  /** Resolves once `channel` is subscribed. */
  const subscribed = (channel) => first("the subscription", (resolve) => channel.subscribed(resolve));

  describe(`Laravel Echo as ${broadcaster}`, () => {
    test("knows its socket id, for toOthers()", async (t) => {
      const echo = await open(t, "ann");
      assert.match(echo.socketId(), /^\d+\.\d+$/);
      const channel = echo.channel(unique("orders"));
      const heard = [];
      channel.listen("OrderShipped", (data) => heard.push(data));
      await subscribed(channel);
      const exclude = { socket_id: echo.socketId() };
      await library.trigger(channel.name, "App\\Events\\OrderShipped", { id: 1 }, exclude);
      await settle(echo.connector.pusher);
      assert.deepEqual(heard, []);
    });

    test("listens to an event on a public and on a private channel", async (t) => {
      const echo = await open(t, "ann");
      for (const kind of ["channel", "private"]) {
        const channel = echo[kind](unique("orders"));
        const event = first("OrderShipped", (resolve) => channel.listen("OrderShipped", resolve));
        const named = first(".order.paid", (resolve) => channel.listen(".order.paid", resolve));
        await subscribed(channel);
        await library.trigger(channel.name, "App\\Events\\OrderShipped", { id: 1 });
        await library.trigger(channel.name, "order.paid", { id: 2 });
        assert.deepEqual([await event, await named], [{ id: 1 }, { id: 2 }]);
      }
    });

    test("decrypts events of an encrypted private channel", async (t) => {
      const echo = await open(t, "ann");
      const channel = echo.encryptedPrivate(unique("orders"));
      const event = first("OrderShipped", (resolve) => channel.listen("OrderShipped", resolve));
      await subscribed(channel);
      await library.trigger(channel.name, "App\\Events\\OrderShipped", { id: 1 });
      assert.deepEqual(await event, { id: 1 });
    });

    test("joins a room and sees who is here, joining and leaving", async (t) => {
      const [ann, bob] = [await open(t, "ann"), await open(t, "bob")];
      const name = unique("chat");
      const room = ann.join(name);
      assert.deepEqual(await first("here", (resolve) => room.here(resolve)), [{ name: "Ann" }]);
      const joining = first("joining", (resolve) => room.joining(resolve));
      const here = first("here", (resolve) => bob.join(name).here(resolve));
      assert.deepEqual(await here, [{ name: "Ann" }, { name: "Bob" }]);
      assert.deepEqual(await joining, { name: "Bob" });
      const leaving = first("leaving", (resolve) => room.leaving(resolve));
      bob.leave(name);
      assert.deepEqual(await leaving, { name: "Bob" });
    });

    test("whispers to the others", async (t) => {
      const [ann, bob] = [await open(t, "ann"), await open(t, "bob")];
      const name = unique("chat");
      for (const kind of ["private", "join"]) {
        const [from, to] = [ann[kind](name), bob[kind](name)];
        const whisper = first("the whisper", (resolve) => to.listenForWhisper("typing", resolve));
        await Promise.all([subscribed(from), subscribed(to)]);
        from.whisper("typing", { name: "Ann" });
        assert.deepEqual(await whisper, { name: "Ann" });
      }
    });

    test("receives notifications", async (t) => {
      const echo = await open(t, "ann");
      const channel = echo.private(unique("App.Models.User"));
      const notification = first("the notification", (resolve) => channel.notification(resolve));
      await subscribed(channel);
      const event = "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated";
      await library.trigger(channel.name, event, { id: "n-1", type: "App\\Notifications\\InvoicePaid" });
      assert.deepEqual(await notification, { id: "n-1", type: "App\\Notifications\\InvoicePaid" });
    });

    test("is told when the backend refuses a channel", async (t) => {
      const echo = await open(t, "ann");
      const channel = echo.private(unique("forbidden"));
      const error = await first("the error", (resolve) => channel.error(resolve));
      assert.deepEqual([error.type, error.status], ["AuthError", 403]);
    });

    test("is told when the server refuses a channel", async (t) => {
      const echo = await open(t, "ann");
      const channel = echo.channel(`${"x".repeat(165)}`);
      const error = await first("the error", (resolve) => channel.error(resolve));
      assert.deepEqual([error.type, error.status], ["ValidationError", 400]);
    });

    test("signs in and receives events for its user", async (t) => {
      const echo = await open(t, "ann");
      const { pusher } = echo.connector;
      const success = next(pusher, "pusher:signin_success");
      echo.connector.signin();
      await success;
      await settle(pusher);
      const event = next(pusher.user, "notice");
      await library.sendToUser("ann", "notice", { unread: 1 });
      assert.deepEqual(await event, { unread: 1 });
    });
  });
}
