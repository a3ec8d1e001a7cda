// The client library of SockJS in headless Chromium, on each of its transports. What it speaks over them is the Pusher
// protocol; its first message says for which app.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Backend } from "./support/backend.js";
import { chromium } from "./support/chromium.js";
import { next, open, subscribe, unique } from "./support/clients.js";
import { seen, sees } from "./support/page.js";
import { APP, Server } from "./support/server.js";

/** The transports by where the page is from that uses them. SockJS has two more, which only Internet Explorer has. */
const TRANSPORTS = {
  "the server's own origin": ["websocket", "xhr-streaming", "eventsource", "htmlfile", "xhr-polling", "jsonp-polling"],
  "another origin": [
    "websocket",
    "xhr-streaming",
    "eventsource",
    "xhr-polling",
    "jsonp-polling",
    // These put a page of the server into an iframe, to be of its origin there.
    "iframe-eventsource",
    "iframe-htmlfile",
    "iframe-xhr-polling",
  ],
};

/** Where the server says that the client is to be loaded from. The browser finds the backend there. */
const SCRIPT = "http://scripts.example.test/sockjs-client.min.js";

/** What JSON may contain as it is, and what event streams, scripts and forms have other uses for. */
const TEXTS = [
  "Grüße 🎉",
  "</script><!--",
  "\"'\\",
  "a\u2028b\u2029c\r\nd",
  "\u0000\u001f\u200b\ufff9\uffff",
  "%25 & + %0A",
];

let server;
let backend;
let library;
let browser;

/** A page as an application has it. */
const PAGE = `<!doctype html><meta charset="utf-8"><title>SockJS</title><script src="${SCRIPT}"></script>`;

before(async () => {
  server = await Server.start({ app: { client_events: true }, fallbacks: { client_scripts: [SCRIPT] } });
  library = server.library();
  backend = await Backend.start(library, { "/": () => PAGE });
  browser = await chromium({ "scripts.example.test": backend.port });
});
after(async () => {
  await browser?.close();
  await backend?.stop();
  await server?.stop();
});

/** A tab with a page of that origin, which connects with this transport to what is behind `key`. */
async function visit(t, origin, transport, key = APP.key) {
  const tab = await browser.newPage();
  t.after(() => tab.close());
  // The server's only page is the one for iframes. It has the client, as well.
  await tab.goto(origin === "another origin" ? backend.url : `http://${server.front.address}/pusher/iframe.html`);
  const path = `/app/${key}?protocol=7&client=js&version=1.0`;
  await tab.evaluate(connect, { url: `http://${server.front.address}/pusher`, transport, path });
  return tab;
}

/** What a page does: whatever it sees it notes in `window.seen`, the messages as they are, and the end. */
function connect({ url, transport, path }) {
  window.seen = [];
  // A busy machine is given more time than the library would.
  window.socket = new SockJS(url, null, { transports: [transport], timeout: 10_000 });
  socket.onopen = () => socket.send(JSON.stringify({ path }));
  socket.onmessage = ({ data }) => seen.push(data);
  socket.onclose = ({ code, reason }) => seen.push(`closed ${code} ${reason}`);
}

/** The data of the first message with that event that a page has seen. */
async function received(tab, event) {
  await sees(tab, new RegExp(`^{"event":"${event}"`));
  const [message] = await seen(tab, `{"event":"${event}"`);
  return JSON.parse(JSON.parse(message).data);
}

/** The data of all of them, in order. */
async function all(tab, event) {
  return (await seen(tab, `{"event":"${event}"`)).map((message) => JSON.parse(JSON.parse(message).data));
}

function say(tab, event, data, channel) {
  return tab.evaluate((message) => socket.send(message), JSON.stringify({ event, data, channel }));
}

describe("the client of SockJS", { concurrency: 3 }, () => {
  for (const [origin, transports] of Object.entries(TRANSPORTS)) {
    for (const transport of transports) {
      describe(`on ${transport}, in a page of ${origin}`, { concurrency: 1 }, () => {
        test("receives and sends, and is missed at once when its tab is closed", (t) => converse(t, origin, transport));
        test("is told that there is no such app", async (t) => {
          const tab = await visit(t, origin, transport, "nobody");
          await sees(tab, /^closed 4001 App key nobody not in this cluster/);
        });
      });
    }
  }
});

async function converse(t, origin, transport) {
  const tab = await visit(t, origin, transport);
  const { socket_id: socket, activity_timeout: timeout } = await received(tab, "pusher:connection_established");
  assert.equal(timeout, 120);
  assert.equal(await tab.evaluate(() => socket.transport), transport);
  await say(tab, "pusher:ping", {});
  await received(tab, "pusher:pong");

  const book = unique("book");
  await say(tab, "pusher:subscribe", { channel: book });
  await sees(tab, new RegExp(`^{"event":"pusher_internal:subscription_succeeded","channel":"${book}"`));
  for (const text of TEXTS) await library.trigger(book, "line", { text });
  await sees(tab, /^{"event":"line"/, { times: TEXTS.length });
  assert.deepEqual((await all(tab, "line")).map(({ text }) => text), TEXTS);

  // More than a response may have, which is 128 KiB.
  const text = "é".repeat(5_000);
  const numbers = Array.from({ length: 30 }, (_, number) => number);
  for (const ten of [0, 10, 20]) {
    const events = numbers.slice(ten, ten + 10);
    await library.triggerBatch(events.map((number) => ({ channel: book, name: "page", data: { number, text } })));
  }
  await sees(tab, /^{"event":"page"/, { times: numbers.length });
  assert.deepEqual((await all(tab, "page")).map(({ number }) => number), numbers);

  // Somebody else there sees it come, speak and go.
  const room = unique("presence-room");
  const channel = await subscribe(open(t, server, backend.authFor("ann")), room);
  const added = next(channel, "pusher:member_added");
  const member = { user_id: "bob", user_info: { name: "Bob" } };
  await say(tab, "pusher:subscribe", { channel: room, ...library.authorizeChannel(socket, room, member) });
  assert.equal((await added).id, "bob");
  const heard = [];
  channel.bind("client-line", ({ text }) => heard.push(text));
  const last = next(channel, "client-line", ({ text }) => text === TEXTS.at(-1));
  for (const text of TEXTS) await say(tab, "client-line", { text }, room);
  await last;
  assert.deepEqual(heard, TEXTS);
  // Who is only silent is missed after 5 s.
  const removed = next(channel, "pusher:member_removed", () => true, 4_000);
  await tab.close();
  assert.equal((await removed).id, "bob");
}
