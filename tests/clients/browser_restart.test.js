// Pages in a real browser whose server goes away and comes back: with every pusher-js, over each of its transports, at
// the same time.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Backend } from "./support/backend.js";
import { chromium } from "./support/chromium.js";
import { unique, VERSIONS } from "./support/clients.js";
import { hostOfItsOwn, page, seen, sees, transport, TRANSPORTS, visit } from "./support/page.js";
import { Server } from "./support/server.js";

let server;
let backend;
let library;
let browser;
let tabs;

before(async () => {
  // It is one process that goes and comes back.
  server = await Server.start({ alone: true });
  library = server.library();
  backend = await Backend.start(library, { "/": page });
  browser = await chromium({ "js.pusher.com": backend.port });
  const pairs = VERSIONS.flatMap((version) => TRANSPORTS.map((transport) => ({ ...version, transport })));
  tabs = await Promise.all(pairs.map(open));
});
after(async () => {
  await browser?.close();
  await backend?.stop();
  await server?.stop();
});

/** A tab, connected, signed in if it can, and in channels of three kinds. */
async function open({ name, version, users, transport }) {
  const host = hostOfItsOwn();
  const auth = users ? backend.authFor("ann") : backend.oldAuthFor("ann");
  const to = { wsHost: host, httpHost: host, enabledTransports: [transport] };
  const options = { ...server.clientOptions, ...to, ...auth };
  const tab = await visit(browser, backend, `/${version}/pusher.min.js`, options);
  if (users) await tab.evaluate(() => pusher.signin());
  const channels = ["room", "private-room", "presence-room"].map(unique);
  await tab.evaluate((channels) => channels.forEach(join), channels);
  return { name: `${name} over ${transport}`, transport, users, tab, channels };
}

/** Every tab is connected for the nth time, with its transport, its channels and its user. */
async function areConnected(times) {
  for (const { tab, transport: expected, name, channels, users } of tabs) {
    await sees(tab, "is connected", { times });
    assert.equal(await transport(tab), expected, name);
    const [room, privateRoom, presenceRoom] = channels;
    const lines = [`in ${room}`, `in ${privateRoom}`, `in ${presenceRoom} with ann`];
    for (const line of lines) await sees(tab, line, { times });
    const event = { time: times };
    await library.trigger(channels, "greet", event);
    await sees(tab, `greet ${JSON.stringify(event)}`, { times: channels.length });
    if (users) await sees(tab, "is signed in", { times });
  }
}

/**
 * What happens when a laptop has been somewhere without a network: pusher-js tries at once, and not when the 15 s are
 * over that an attempt may take.
 */
async function comeBackOnline() {
  await browser.setOffline(true);
  await browser.setOffline(false);
}

test("every tab is connected", () => areConnected(1));

test("a restart is survived, and every tab hears of it", async () => {
  await server.stop();
  for (const { tab } of tabs) await sees(tab, /^error .*"code":4200/);
  await server.startAgain();
  await comeBackOnline();
  await areConnected(2);
});

test("a crash is survived", async () => {
  await server.crash();
  // SockJS goes on receiving until somebody tells it that the session is lost.
  const others = tabs.filter(({ transport }) => transport !== "sockjs");
  for (const { tab } of others) await sees(tab, "is connecting", { times: 3 });
  await server.startAgain();
  await comeBackOnline();
  await areConnected(3);
});

test("the tabs of a user stay away if the user is disconnected", async () => {
  const theirs = tabs.filter(({ users }) => users);
  assert.equal(theirs.length, 2 * TRANSPORTS.length);
  await library.terminateUserConnections("ann");
  for (const { tab, name } of theirs) {
    await sees(tab, /^error .*"code":4009/);
    await sees(tab, "is disconnected");
    assert.equal((await seen(tab, "is ")).at(-1), "is disconnected", name);
  }
});
