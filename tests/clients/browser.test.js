// A real browser: pages in headless Chromium, with the builds of pusher-js that a `<script>` tag loads, over each of
// the transports that pusher-js has for them.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Backend } from "./support/backend.js";
import { chromium } from "./support/chromium.js";
import { unique, VERSIONS } from "./support/clients.js";
import { until } from "./support/deadline.js";
import { hostOfItsOwn, page, seen, sees, transport, TRANSPORTS, visit } from "./support/page.js";
import { Server } from "./support/server.js";

/** Much of the time is waiting, for pages that load and for tabs that are missed. */
const AT_A_TIME = 3;

let server;
let backend;
let library;
let browser;

before(async () => {
  server = await Server.start({ app: { client_events: true }, fallbacks: { grace: "1s" } });
  library = server.library();
  backend = await Backend.start(library, { "/": page });
  browser = await chromium({ "js.pusher.com": backend.port });
});
after(async () => {
  await browser?.close();
  await backend?.stop();
  await server?.stop();
});

describe("a browser", { concurrency: AT_A_TIME }, () => {
  // First, as it waits longest.
  describe("with nothing to say", { concurrency: true }, silence);
  describe("at a node that has a name of its own", { concurrency: true }, named);
  for (const version of VERSIONS) {
    for (const name of TRANSPORTS) {
      describe(`with ${version.name} over ${name}`, { concurrency: 1 }, () => pages(version, name));
    }
  }
});

/** The tests of pages to which the server has nothing to say but that it is there. */
function silence() {
  const [{ name: library, version }] = VERSIONS;
  let quiet;

  before(async () => {
    quiet = await Server.start({ fallbacks: { heartbeat: "2s" } });
  });
  after(() => quiet?.stop());

  for (const name of TRANSPORTS.filter((name) => name !== "ws")) {
    test(`${library} over ${name} answers signs of life, and takes them for what they are`, async (t) => {
      const options = { ...quiet.clientOptions, enabledTransports: [name] };
      const tab = await visit(browser, backend, `/${version}/pusher.min.js`, options);
      t.after(() => tab.close());
      await sees(tab, "is connected");
      const answers = [];
      // Whoever polls answers with the next poll, everybody else with an empty list of messages.
      const answer = name === "xhr_polling" ? "/xhr" : "/xhr_send";
      tab.on("request", (request) => {
        const { pathname } = new URL(request.url());
        if (pathname.endsWith(answer)) answers.push(request.postData());
      });
      // After the second one that it misses SockJS would close the connection.
      await until("four answers", () => answers.length >= 4);
      assert.deepEqual(new Set(answers), new Set([name === "xhr_polling" ? null : "[]"]));
      assert.deepEqual(await seen(tab, "is "), ["is connecting", "is connected"]);
    });
  }
}

/** The tests of pages whose node says that it alone is called by another name than all nodes together. */
function named() {
  const [{ name: library, version }] = VERSIONS;
  let node;

  before(async () => {
    node = await Server.start({ fallbacks: { hostname: "node-a.test" } });
  });
  after(() => node?.stop());

  for (const name of ["xhr_streaming", "xhr_polling"]) {
    test(`${library} over ${name} goes on there`, async (t) => {
      const options = { ...node.clientOptions, httpHost: hostOfItsOwn(), enabledTransports: [name] };
      const tab = await visit(browser, backend, `/${version}/pusher.min.js`, options);
      t.after(() => tab.close());
      await sees(tab, "is connected");
      const hosts = new Set();
      tab.on("request", (request) => hosts.add(new URL(request.url()).hostname));
      const channel = unique("room");
      await tab.evaluate((name) => join(name), channel);
      await sees(tab, `in ${channel}`);
      await node.library().trigger(channel, "greet", { text: "here" });
      await sees(tab, 'greet {"text":"here"}');
      assert.deepEqual(hosts, new Set(["node-a.test"]));
    });
  }
}

/** The tests of two pages with this pusher-js and this transport. */
function pages({ version, major, users }, name) {
  let ann;
  let bob;

  /** A tab in which `user` has the page open, connected. */
  const open = async (user, script) => {
    const host = hostOfItsOwn();
    const auth = users ? backend.authFor(user) : backend.oldAuthFor(user);
    const to = { wsHost: host, httpHost: host, enabledTransports: [name] };
    const tab = await visit(browser, backend, `/${version}/${script}`, { ...server.clientOptions, ...to, ...auth });
    await sees(tab, "is connected");
    assert.equal(await transport(tab), name);
    return tab;
  };

  /** The page of `tab` joins a channel, and sees that it has: alone, or with these members. */
  const join = async (tab, channel, members) => {
    await tab.evaluate((name) => join(name), channel);
    await sees(tab, members === undefined ? `in ${channel}` : `in ${channel} with ${members}`);
  };

  before(async () => {
    // Since version 6 there is a build of its own for encrypted channels.
    const builds = ["pusher.min.js", major >= 6 ? "pusher-with-encryption.min.js" : "pusher.min.js"];
    [ann, bob] = await Promise.all([open("ann", builds[0]), open("bob", builds[1])]);
  });
  after(() => Promise.all([ann?.close(), bob?.close()]));

  test("a page receives the events of a public channel", async () => {
    const channel = unique("room");
    await join(ann, channel);
    // What JSON may contain as it is, and what scripts and lines once could not.
    for (const text of ["Grüße", "🎉 </script>", "a\u2028b\u2029c\r\nd", "\u0000\u001f\uffff\u200b", "%25 & %0A"]) {
      await library.trigger(channel, "greet", { text });
      await sees(ann, `greet ${JSON.stringify({ text })}`);
    }
  });

  test("a page joins a private channel through its backend and receives an event", async () => {
    const channel = unique("private-room");
    await join(ann, channel);
    await library.trigger(channel, "greet", { text: "private" });
    await sees(ann, 'greet {"text":"private"}');
  });

  test("a page is told that its backend refuses a channel", async () => {
    await ann.evaluate((name) => join(name), unique("private-forbidden"));
    await sees(ann, users ? /^refused .*"status":403/ : "refused 403");
  });

  test("a page decrypts what the server cannot read", async () => {
    const channel = unique("private-encrypted-room");
    await join(bob, channel);
    await library.trigger(channel, "greet", { secret: "tea" });
    await sees(bob, 'greet {"secret":"tea"}');
  });

  test("two tabs see each other arrive and type", async () => {
    const channel = unique("presence-chat");
    await join(ann, channel, "ann");
    await join(bob, channel, "ann,bob");
    await sees(ann, "joined Bob");
    for (const [from, to, text] of [[bob, ann, "hello"], [ann, bob, "hello yourself"]]) {
      await from.evaluate(([name, text]) => pusher.channel(name).trigger("client-typing", { text }), [channel, text]);
      await sees(to, `typing ${from === bob ? "bob" : "ann"} ${text}`);
    }
    for (const tab of [ann, bob]) await tab.evaluate((name) => pusher.unsubscribe(name), channel);
  });

  test("a page receives more than fits into one response, in order and once", async () => {
    const channel = unique("book");
    await join(ann, channel);
    // The responses of streaming end after 256 KiB with pusher-js, and after 128 KiB with SockJS.
    const text = "é".repeat(5_000);
    const expected = [];
    for (let batch = 0; batch < 8; batch += 1) {
      const events = Array.from({ length: 10 }, (_, index) => batch * 10 + index);
      await library.triggerBatch(events.map((number) => ({ channel, name: "page", data: { number, text } })));
      expected.push(...events.map((number) => `page ${number} of ${text.length}`));
    }
    await sees(ann, expected.at(-1));
    assert.deepEqual(await seen(ann, "page "), expected);
    assert.deepEqual(await seen(ann, "is "), ["is connecting", "is connected"]);
  });

  if (users) {
    test("a page signs in and receives what is sent to its user", async () => {
      await ann.evaluate(() => {
        pusher.signin();
        return pusher.user.signinDonePromise;
      });
      // Other pages are signed in as the same user at the same time.
      const notice = unique("notice");
      await library.sendToUser("ann", "notice", { notice });
      await sees(ann, `notice {"notice":"${notice}"}`);
    });
  }

  test("a tab that is reloaded comes back as the same member", async () => {
    const channel = unique("presence-chat");
    await join(ann, channel, "ann");
    await join(bob, channel, "ann,bob");
    await bob.reload();
    await sees(ann, "left Bob");
    await sees(bob, "is connected");
    await join(bob, channel, "ann,bob");
    assert.deepEqual(await seen(ann, "left "), ["left Bob"]);
  });

  // The last one: it closes a tab that all others use.
  test("a tab that is closed is missed", async () => {
    const channel = unique("presence-chat");
    await join(ann, channel, "ann");
    await join(bob, channel, "ann,bob");
    await bob.close();
    // Who has SockJS and is only silent would be missed after 5 s.
    await sees(ann, "left Bob", { times: 2, milliseconds: 4_000 });
  });
}
