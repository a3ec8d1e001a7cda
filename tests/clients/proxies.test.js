// Behind a proxy that lets no WebSocket through, with browsers that are told nothing of it.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Backend } from "./support/backend.js";
import { chromium } from "./support/chromium.js";
import { unique, VERSIONS } from "./support/clients.js";
import { Nginx } from "./support/nginx.js";
import { page, seen, sees, transport, visit } from "./support/page.js";
import { Server } from "./support/server.js";

/** When pusher-js says `unavailable`, although it goes on trying. */
const UNAVAILABLE_MS = 10_000;

/**
 * Two ways to block them. The first is nginx as it comes: it speaks HTTP/1.0 with servers, and keeps back what is less
 * than a buffer, unless an answer asks it not to.
 */
const WAYS = {
  "by an nginx that was told nothing": [],
  "by an nginx that strips the upgrade": [
    "proxy_http_version 1.1;",
    'proxy_set_header Connection "";',
    'proxy_set_header Upgrade "";',
  ],
};

let server;
let backend;
let library;
let browser;

before(async () => {
  server = await Server.start();
  library = server.library();
  backend = await Backend.start(library, { "/": page });
  browser = await chromium();
});
after(async () => {
  await browser?.close();
  await backend?.stop();
  await server?.stop();
});

describe("where WebSockets are blocked", { concurrency: true }, () => {
  for (const [way, location] of Object.entries(WAYS)) {
    describe(way, { concurrency: true }, () => {
      let nginx;
      before(async () => {
        nginx = await Nginx.start([server], location);
      });
      after(() => nginx?.stop());

      for (const { name, version } of VERSIONS) {
        test(`${name} gets through by itself, before it would say that it is unavailable`, async (t) => {
          const { cluster, forceTLS, wsHost, wsPort, httpHost, httpPort } = nginx.clientOptions;
          await getThrough(t, version, { cluster, forceTLS, wsHost, wsPort, httpHost, httpPort });
        });
      }
    });
  }
});

async function getThrough(t, version, options) {
  const started = Date.now();
  const tab = await visit(browser, backend, `/${version}/pusher.min.js`, options);
  t.after(() => tab.close());
  await sees(tab, "is connected", { milliseconds: UNAVAILABLE_MS });
  t.diagnostic(`connected after ${Date.now() - started} ms`);
  assert.equal(await transport(tab), "xhr_streaming");
  const channel = unique("room");
  await tab.evaluate((name) => join(name), channel);
  await sees(tab, `in ${channel}`);
  for (const text of ["one", "two", "three"]) {
    await library.trigger(channel, "greet", { text });
    // At once, and not when there is enough to fill a buffer.
    await sees(tab, `greet {"text":"${text}"}`, { milliseconds: 3_000 });
  }
  assert.deepEqual(await seen(tab, "is "), ["is connecting", "is connected"]);
}
