// A real browser: pages in headless Chromium, with the builds of pusher-js that a `<script>` tag loads.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Backend } from "./support/backend.js";
import { chromium } from "./support/chromium.js";
import { unique } from "./support/clients.js";
import { page } from "./support/page.js";
import { APP, Server } from "./support/server.js";

let server;
let backend;
let library;
let browser;

before(async () => {
  server = await Server.start({ app: { client_events: true } });
  library = server.library();
  const document = page({ key: APP.key, clientOptions: server.clientOptions });
  backend = await Backend.start(library, { "/": document });
  browser = await chromium();
});
after(async () => {
  await browser?.close();
  await backend?.stop();
  await server?.stop();
});

/** A tab in which `user` has the page open, connected. */
async function open(t, user, script = "pusher.min.js") {
  const tab = await browser.newPage();
  t.after(() => tab.close());
  const errors = [];
  tab.on("pageerror", (error) => errors.push(error));
  await tab.goto(`${backend.url}/?user=${user}&script=${script}`);
  assert.deepEqual(errors, []);
  await sees(tab, "is connected");
  return tab;
}

/** Waits until the page has noted `line`. */
async function sees(tab, line) {
  const found = tab.waitForFunction((line) => window.seen?.includes(line), line, { timeout: 15_000 });
  await found.catch(async (error) => {
    const seen = await tab.evaluate(() => window.seen).catch(() => []);
    throw new Error(`the page does not see "${line}" but ${JSON.stringify(seen, null, 2)}`, { cause: error });
  });
}

test("a page joins a private channel through its backend and receives an event", async (t) => {
  const tab = await open(t, "ann");
  const name = unique("private-room");
  await tab.evaluate((name) => join(name), name);
  await sees(tab, `in ${name}`);
  assert.ok(backend.requests.includes("/pusher/auth"));
  await library.trigger(name, "greet", { text: "Grüße" });
  await sees(tab, 'greet {"text":"Grüße"}');
});

test("a page is told that its backend refuses a channel", async (t) => {
  const tab = await open(t, "ann");
  await tab.evaluate((name) => join(name), unique("private-forbidden"));
  await tab.waitForFunction(() => seen.some((line) => line.startsWith("refused") && line.includes('"status":403')));
});

test("a page decrypts what the server cannot read", async (t) => {
  const tab = await open(t, "ann", "pusher-with-encryption.min.js");
  const name = unique("private-encrypted-room");
  await tab.evaluate((name) => join(name), name);
  await sees(tab, `in ${name}`);
  await library.trigger(name, "greet", { secret: "tea" });
  await sees(tab, 'greet {"secret":"tea"}');
});

test("two tabs see each other arrive, type and leave", async (t) => {
  const name = unique("presence-chat");
  const ann = await open(t, "ann");
  await ann.evaluate((name) => join(name), name);
  await sees(ann, `in ${name} with ann`);

  const bob = await open(t, "bob");
  await bob.evaluate((name) => join(name), name);
  await sees(bob, `in ${name} with ann,bob`);
  await sees(ann, "joined Bob");

  await bob.evaluate((name) => pusher.channel(name).trigger("client-typing", { text: "hello" }), name);
  await sees(ann, "typing bob hello");

  await bob.close();
  await sees(ann, "left Bob");
});

test("a tab that is reloaded comes back as the same member", async (t) => {
  const name = unique("presence-chat");
  const [ann, bob] = [await open(t, "ann"), await open(t, "bob")];
  await ann.evaluate((name) => join(name), name);
  await sees(ann, `in ${name} with ann`);
  await bob.evaluate((name) => join(name), name);
  await sees(ann, "joined Bob");
  await bob.reload();
  await sees(ann, "left Bob");
  await bob.evaluate((name) => join(name), name);
  await sees(bob, `in ${name} with ann,bob`);
  await ann.waitForFunction(() => seen.filter((line) => line === "joined Bob").length === 2);
});
