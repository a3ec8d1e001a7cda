// The versions of pusher-js, unmodified, and how to wait for what they report.

import { createRequire } from "node:module";

import { DEADLINE_MS, within } from "./deadline.js";
import { APP } from "./server.js";

const require = createRequire(import.meta.url);

// pusher-js 4 asks it whether this is React Native. Node has it since 21.
globalThis.navigator ??= {};

/** Every pusher-js that is tested, newest first. `users` is what 7.1 brought: sign-in, watchlists and counts. */
export const VERSIONS = ["pusher-js", "pusher-js-7", "pusher-js-4"].map((name) => {
  const { version } = require(`${name}/package.json`);
  const major = Number(version.split(".")[0]);
  return { name: `pusher-js ${version}`, version, Pusher: require(name), major, users: major >= 7 };
});

/** The newest one, for tests that are not about versions. */
export const { Pusher } = VERSIONS[0];

/** What the clients of this file heard, for the error of a wait that ended in vain. */
const heard = [];
let clients = 0;
let names = 0;

/** A name that no other test uses: `presence-room-3`. */
export function unique(name) {
  names += 1;
  return `${name}-${names}`;
}

/** A client of `server` that is closed when the test `t` ends. */
export function open(t, server, { Pusher: Version = Pusher, key = APP.key, ...options } = {}) {
  const pusher = new Version(key, { ...server.clientOptions, ...options });
  t.after(() => pusher.disconnect());
  return watch(pusher);
}

/** Remembers what `pusher` hears. */
export function watch(pusher) {
  clients += 1;
  const name = `client ${clients}`;
  const note = (what) => (value) => heard.push(`${name} ${what} ${JSON.stringify(value)}`);
  pusher.connection.bind("message", note("←"));
  pusher.connection.bind("state_change", note("is"));
  pusher.connection.bind("error", note("error"));
  return pusher;
}

/** What is in `heard`, newest last. */
function report() {
  return heard.length === 0 ? "nothing was heard" : `the last things heard were:\n${heard.slice(-30).join("\n")}`;
}

/** The data of the next `event` that `emitter` (a client, a channel, a connection, a user) emits. */
export function next(emitter, event, matches = () => true, milliseconds = DEADLINE_MS) {
  const found = new Promise((resolve) => {
    const callback = (data) => {
      if (!matches(data)) return;
      emitter.unbind(event, callback);
      resolve(data);
    };
    emitter.bind(event, callback);
  });
  return within(found, () => `${event}; ${report()}`, milliseconds);
}

/** What `subscribe`, a function that takes a callback, passes to it first: the shape of Laravel Echo's listeners. */
export function first(what, subscribe) {
  return within(new Promise(subscribe), () => `${what}; ${report()}`);
}

/** Waits for a state of the connection, and returns its socket id. */
export async function connected(pusher, state = "connected") {
  if (pusher.connection.state !== state) await next(pusher.connection, state);
  return pusher.connection.socket_id;
}

/** The code and message of an `error` of the connection, which versions and causes wrap differently. */
export function reason(error) {
  return (error.error ?? error).data;
}

/** Subscribes and waits for the confirmation; returns the channel. */
export async function subscribe(pusher, name) {
  const channel = pusher.subscribe(name);
  if (!channel.subscribed) await next(channel, "pusher:subscription_succeeded");
  return channel;
}

/** Collects every event that a channel (or a client) emits, as `[name, data]`. */
export function collect(emitter) {
  const events = [];
  emitter.bind_global((event, data) => events.push([event, data]));
  return events;
}

/**
 * Proves that nothing else is on its way to `pusher`: the server answers in order, so what it sent before this ping
 * arrives before the answer.
 */
export async function settle(pusher) {
  const pong = next(pusher.connection, "message", (message) => message.event === "pusher:pong");
  pusher.connection.send_event("pusher:ping", {});
  await pong;
}
