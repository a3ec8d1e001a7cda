// Every version of pusher-js comes back after the server was away, and has its channels again.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Backend } from "./support/backend.js";
import { connected, next, open, reason, subscribe, unique, VERSIONS } from "./support/clients.js";
import { Server } from "./support/server.js";

/** A connection attempt that fails at once costs pusher-js 15 s, and it may take place while the server is away. */
const RECONNECT_MS = 40_000;

let server;
let backend;

before(async () => {
  // It is one process that goes and comes back.
  server = await Server.start({ alone: true });
  backend = await Backend.start(server.library());
});
after(async () => {
  await backend?.stop();
  await server?.stop();
});

/** One client of each version, with channels of three kinds. */
async function everybody(t) {
  return Promise.all(
    VERSIONS.map(async ({ name, Pusher, users }) => {
      const auth = users ? backend.authFor("ann") : backend.oldAuthFor("ann");
      const pusher = open(t, server, { Pusher, ...auth });
      const socket = await connected(pusher);
      const names = ["room", "private-room", "presence-room"].map(unique);
      const channels = await Promise.all(names.map((channel) => subscribe(pusher, channel)));
      return { name, pusher, socket, channels };
    }),
  );
}

/** What `absence` does to the server is survived by all of them. */
async function survive(clients, absence) {
  const always = () => true;
  const lost = Promise.all(clients.map(({ pusher }) => next(pusher.connection, "connecting")));
  const back = Promise.all(
    clients.flatMap(({ pusher, channels }) => [
      next(pusher.connection, "connected", always, RECONNECT_MS),
      ...channels.map((channel) => next(channel, "pusher:subscription_succeeded", always, RECONNECT_MS)),
    ]),
  );
  await absence();
  await server.startAgain();
  await Promise.all([lost, back]);
  const library = server.library();
  for (const { name, pusher, socket, channels } of clients) {
    assert.notEqual(pusher.connection.socket_id, socket, name);
    const events = Promise.all(channels.map((channel) => next(channel, "greet")));
    await library.trigger(channels.map((channel) => channel.name), "greet", { back: true });
    assert.deepEqual(await events, channels.map(() => ({ back: true })), name);
  }
}

test("a restart is survived", async (t) => {
  const clients = await everybody(t);
  const codes = Promise.all(clients.map(({ pusher }) => next(pusher.connection, "error")));
  await survive(clients, () => server.stop());
  for (const error of await codes) assert.equal(reason(error).code, 4200);
});

test("a crash is survived", async (t) => {
  await survive(await everybody(t), () => server.crash());
});
