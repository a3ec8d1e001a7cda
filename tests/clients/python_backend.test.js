// A front-end whose backend is written in Python: tokens and events made by Pusher's library for Python.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { connected, next, open, subscribe, unique } from "./support/clients.js";
import { Child } from "./support/process.js";
import { python } from "./support/python.js";
import { APP, Server } from "./support/server.js";

const SCRIPT = fileURLToPath(new URL("support/auth_endpoint.py", import.meta.url));

let server;
let backend;
let url;

before(async () => {
  server = await Server.start();
  const args = [SCRIPT, server.host, server.port, APP.id, APP.key, APP.secret].map(String);
  backend = new Child(python(), args);
  url = await backend.line("its address", (line) => (line.startsWith("http://") ? line : undefined));
});
after(async () => {
  await backend?.stop("SIGKILL");
  await server.stop();
});

/** A connected client that authorises itself at the Python backend. */
async function join(t, user) {
  const params = { user };
  const pusher = open(t, server, {
    channelAuthorization: { endpoint: `${url}/pusher/auth`, transport: "ajax", params },
    userAuthentication: { endpoint: `${url}/pusher/user-auth`, transport: "ajax", params },
  });
  await connected(pusher);
  return pusher;
}

test("Python authorises private, presence and encrypted channels", async (t) => {
  const pusher = await join(t, "ann");
  await subscribe(pusher, unique("private-room"));
  const room = await subscribe(pusher, unique("presence-room"));
  assert.deepEqual(room.members.me, { id: "ann", info: { name: "Ann" } });
  const encrypted = await subscribe(pusher, unique("private-encrypted-room"));
  const event = next(encrypted, "greet");
  // Both libraries derive the same shared secret from the same master key.
  await server.library().trigger(encrypted.name, "greet", { secret: "tea" });
  assert.deepEqual(await event, { secret: "tea" });
});

test("Python authenticates users", async (t) => {
  const pusher = await join(t, "ann");
  const success = next(pusher, "pusher:signin_success");
  pusher.signin();
  await success;
  assert.equal(pusher.user.user_data.id, "ann");
  const event = next(pusher.user, "notice");
  await server.library().sendToUser("ann", "notice", "hello");
  assert.equal(await event, "hello");
});

test("Python's refusal reaches the channel", async (t) => {
  const pusher = await join(t, "nobody");
  const channel = pusher.subscribe(unique("private-room"));
  const error = await next(channel, "pusher:subscription_error");
  assert.deepEqual([error.type, error.status], ["AuthError", 403]);
});
