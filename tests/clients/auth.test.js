// The auth endpoint of Fanfare's own: pusher-js subscribes and signs in with nothing but Fanfare and a token, or with a
// backend that decides and signs nothing.

import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import { after, before, describe, test } from "node:test";

import Echo from "laravel-echo";

import { Backend } from "./support/backend.js";
import { chromium } from "./support/chromium.js";
import { connected, first, next, open, Pusher, subscribe, unique, VERSIONS, watch } from "./support/clients.js";
import { Issuer, JWT_SECRET, token } from "./support/jwt.js";
import { APP, MASTER_KEY, Server } from "./support/server.js";
import { Sessions } from "./support/sessions.js";

const ANN = { sub: "ann", name: "Ann", courses: ["math", 12], friends: ["bob"] };

/** The rules of the tests' app. */
const RULES = {
  channels: ["private-user-{sub}", "private-encrypted-{sub}", "presence-course-{courses[*]}"],
  user_info: ["name"],
  watchlist: "friends",
};

let server;
let library;

before(async () => {
  const jwt = { algorithms: ["HS256"], secret: JWT_SECRET, parameter: "token", ...RULES };
  server = await Server.start({ app: { encryption_master_key: MASTER_KEY, offline_delay: "0s", auth: { jwt } } });
  library = server.library();
});
after(() => server?.stop());

/** The options that make pusher-js of this version ask `server` with these headers. */
function ask({ users }, server, headers, params = {}) {
  const url = `http://${server.address}`;
  if (!users) return { authEndpoint: `${url}/pusher/auth`, auth: { headers, params } };
  const at = (path) => ({ transport: "ajax", endpoint: `${url}${path}`, headers, params });
  return { channelAuthorization: at("/pusher/auth"), userAuthentication: at("/pusher/user-auth") };
}

const bearer = (token) => ({ Authorization: `Bearer ${token}` });

/** The error that a channel reports. */
async function refusal(pusher, name) {
  const channel = pusher.subscribe(name);
  const error = await next(channel, "pusher:subscription_error");
  // Version 4 reports the status alone.
  return error.status ?? error;
}

for (const version of VERSIONS) {
  describe(version.name, () => {
    const client = (t, claims, on = server) => open(t, on, { ...version, ...ask(version, on, bearer(token(claims))) });

    test("subscribes to a private channel with a token", async (t) => {
      const pusher = client(t, ANN);
      const channel = await subscribe(pusher, "private-user-ann");
      const event = next(channel, "greet");
      await library.trigger(channel.name, "greet", { text: "hello" });
      assert.deepEqual(await event, { text: "hello" });
    });

    test("is the user of its token on a presence channel", async (t) => {
      const ann = client(t, ANN);
      const room = await subscribe(ann, "presence-course-math");
      assert.deepEqual(room.members.me, { id: "ann", info: { name: "Ann" } });
      const joined = next(room, "pusher:member_added", ({ id }) => id === "bob");
      await subscribe(client(t, { sub: "bob", name: "Bob", courses: ["math"] }), "presence-course-math");
      assert.deepEqual((await joined).info, { name: "Bob" });
    });

    test("decrypts what Pusher's library has encrypted", async (t) => {
      const channel = await subscribe(client(t, ANN), "private-encrypted-ann");
      const event = next(channel, "greet");
      await library.trigger(channel.name, "greet", { secret: "tea" });
      assert.deepEqual(await event, { secret: "tea" });
    });

    test("is refused what is not the token's owner's", async (t) => {
      const pusher = client(t, ANN);
      for (const name of ["private-user-bob", "presence-course-art", "private-encrypted-bob", "private-user-ann-2"]) {
        assert.equal(await refusal(pusher, name), 403, name);
      }
    });

    test("is refused with a token that is no good", async (t) => {
      const good = token(ANN);
      const [header, , signature] = good.split(".");
      const claims = Buffer.from(JSON.stringify({ ...ANN, exp: 4e9 })).toString("base64url");
      const none = Buffer.from(JSON.stringify({ alg: "none" })).toString("base64url");
      const bad = {
        expired: token({ ...ANN, exp: Math.floor(Date.now() / 1000) - 60 }),
        early: token({ ...ANN, nbf: Math.floor(Date.now() / 1000) + 600 }),
        tampered: `${header}.${claims}.${signature}`,
        unsigned: `${none}.${claims}.`,
        foreign: token(ANN, { secret: "the secret of somebody else, just as long" }),
        missing: "",
      };
      for (const [what, token] of Object.entries(bad)) {
        const pusher = open(t, server, { ...version, ...ask(version, server, bearer(token)) });
        assert.equal(await refusal(pusher, "private-user-ann"), 403, what);
      }
    });

    test("can send its token as a parameter", async (t) => {
      const options = ask(version, server, {}, { token: token(ANN) });
      await subscribe(open(t, server, { ...version, ...options }), "private-user-ann");
    });

    if (!version.users) return;

    test("signs in as the owner of its token", async (t) => {
      const pusher = client(t, ANN);
      await connected(pusher);
      const success = next(pusher, "pusher:signin_success");
      const offline = next(pusher.user.watchlist, "offline");
      pusher.signin();
      await success;
      await pusher.user.signinDonePromise;
      assert.deepEqual(pusher.user.user_data, { id: "ann", user_info: { name: "Ann" }, watchlist: ["bob"] });
      assert.deepEqual((await offline).user_ids, ["bob"]);
      const event = next(pusher.user, "notice");
      await library.sendToUser("ann", "notice", { unread: 3 });
      assert.deepEqual(await event, { unread: 3 });
    });
  });
}

test("the token of the documentation's example lets its owner in", async (t) => {
  const guide = fs.readFileSync(new URL("../../docs/auth.md", import.meta.url), "utf8");
  const [, code] = /### Node\n[^]*?```js\n([^]*?)```/.exec(guide);
  process.env.FANFARE_JWT_SECRET = JWT_SECRET;
  const { realtimeToken } = await import(`data:text/javascript,${encodeURIComponent(code)}`);
  const headers = bearer(realtimeToken({ id: 7, name: "Ann", courses: ["math"] }));
  const [version] = VERSIONS;
  const pusher = open(t, server, { ...version, ...ask(version, server, headers) });
  await subscribe(pusher, "private-user-7");
  const room = await subscribe(pusher, "presence-course-math");
  assert.deepEqual(room.members.me, { id: "7", info: { name: "Ann" } });
});

test("Laravel Echo asks with its bearer token", async (t) => {
  const echo = new Echo({
    ...server.clientOptions,
    broadcaster: "pusher",
    Pusher,
    key: APP.key,
    wssPort: server.port,
    authEndpoint: `http://${server.address}/pusher/auth`,
    userAuthentication: { endpoint: `http://${server.address}/pusher/user-auth`, headers: {} },
    bearerToken: token(ANN),
  });
  t.after(() => echo.disconnect());
  watch(echo.connector.pusher);
  const channel = echo.private("user-ann");
  await first("the subscription", (resolve) => channel.subscribed(resolve));
  const members = await first("the members", (resolve) => echo.join("course-12").here(resolve));
  assert.deepEqual(members, [{ name: "Ann" }]);
});

test("a front-end that asks for several channels at once gets an answer for each", async (t) => {
  let answers;
  const customHandler = ({ channelName }, callback) => callback(null, answers[channelName].data);
  const pusher = open(t, server, { channelAuthorization: { customHandler } });
  const socketId = await connected(pusher);
  const names = ["private-user-ann", "private-user-bob"];
  const body = new URLSearchParams({ socket_id: socketId });
  names.forEach((name, index) => body.append(`channel_name[${index}]`, name));
  const headers = bearer(token(ANN));
  answers = await (await fetch(`http://${server.address}/pusher/auth`, { method: "POST", headers, body })).json();
  assert.deepEqual(names.map((name) => answers[name].status), [200, 403]);
  await subscribe(pusher, names[0]);
});

describe("keys from an issuer", () => {
  for (const algorithm of ["RS256", "ES256", "EdDSA"]) {
    test(algorithm, async (t) => {
      const issuer = new Issuer(algorithm);
      const keys = http.createServer((_, response) => response.end(JSON.stringify({ keys: [issuer.jwk] })));
      keys.listen(0, "127.0.0.1");
      await once(keys, "listening");
      t.after(() => keys.close());
      const jwks = `http://127.0.0.1:${keys.address().port}/.well-known/jwks.json`;
      const jwt = { algorithms: [algorithm], jwks_url: jwks, ...RULES };
      const own = await Server.start({ app: { auth: { jwt } } });
      const clients = [];
      t.after(() => {
        // They go before their server does: pusher-js may come back, if it is told to go while it reads a 4200.
        for (const pusher of clients) pusher.disconnect();
        return own.stop();
      });
      const [version] = VERSIONS;
      const as = (token) => {
        clients.push(open(t, own, { ...version, ...ask(version, own, bearer(token)) }));
        return clients.at(-1);
      };
      await subscribe(as(issuer.token(ANN)), "private-user-ann");
      assert.equal(await refusal(as(issuer.token(ANN)), "private-user-bob"), 403);
      assert.equal(await refusal(as(new Issuer(algorithm).token(ANN)), "private-user-ann"), 403);
      assert.equal(await refusal(as(token(ANN)), "private-user-ann"), 403);
    });
  }
});

describe("a backend that decides", () => {
  let backend;
  let own;

  before(async () => {
    backend = await Sessions.start();
    const app = { encryption_master_key: MASTER_KEY, auth: { forward: { ...backend.forward, cache: "5s" } } };
    own = await Server.start({ app });
  });
  after(async () => {
    await own?.stop();
    await backend?.stop();
  });

  for (const version of VERSIONS) {
    const as = (t, session) => open(t, own, { ...version, ...ask(version, own, { "X-Session": session }) });

    test(`${version.name} subscribes as the user of its session`, async (t) => {
      const pusher = as(t, "s1");
      await subscribe(pusher, "private-user-ann");
      const room = await subscribe(pusher, unique("presence-room"));
      assert.deepEqual(room.members.me, { id: "ann", info: { name: "Ann" } });
      const channel = await subscribe(pusher, "private-encrypted-ann");
      const event = next(channel, "greet");
      await own.library().trigger(channel.name, "greet", { secret: "tea" });
      assert.deepEqual(await event, { secret: "tea" });
    });

    test(`${version.name} is told 403 by a no and 503 by a failure`, async (t) => {
      const pusher = as(t, "s1");
      assert.equal(await refusal(pusher, "private-user-bob"), 403);
      assert.equal(await refusal(pusher, "private-broken"), 503);
      assert.equal(await refusal(as(t, "nobody"), "private-user-ann"), 403);
    });

    if (version.users) {
      test(`${version.name} signs in as the user of its session`, async (t) => {
        const pusher = as(t, "s2");
        await connected(pusher);
        const success = next(pusher, "pusher:signin_success");
        pusher.signin();
        await success;
        await pusher.user.signinDonePromise;
        assert.deepEqual(pusher.user.user_data, { id: "bob", user_info: { name: "Bob" } });
      });
    }
  }
});

describe("in a browser", () => {
  let browser;
  let pages;
  let strangers;
  let own;

  before(async () => {
    const page = (search) => `<!doctype html><meta charset="utf-8"><script src="/${search.get("script")}"></script>`;
    [pages, strangers] = [await Backend.start(undefined, { "/": page }), await Backend.start(undefined, { "/": page })];
    const jwt = { algorithms: ["HS256"], secret: JWT_SECRET, parameter: "token", cookie: "session", ...RULES };
    own = await Server.start({
      app: { encryption_master_key: MASTER_KEY, allowed_origins: [pages.url], auth: { jwt } },
    });
    browser = await chromium();
  });
  after(async () => {
    await browser?.close();
    await own?.stop();
    await Promise.all([pages, strangers].map((site) => site?.stop()));
  });

  /** A page with this build of pusher-js. */
  const visit = async (t, site, script) => {
    const tab = await browser.newPage();
    t.after(() => tab.close());
    await tab.goto(`${site.url}/?script=${script}`);
    return tab;
  };

  /** What becomes of a subscription in `tab`: the members, "in", or the status of the refusal. */
  const join = (tab, options, name, server = own) =>
    tab.evaluate(
      ({ options, name, key }) =>
        new Promise((resolve) => {
          window.pusher ??= new Pusher(key, options);
          const channel = window.pusher.subscribe(name);
          channel.bind("pusher:subscription_succeeded", (members) => resolve(members?.members ?? "in"));
          channel.bind("pusher:subscription_error", (error) => resolve(error.status ?? error));
          channel.bind("greet", (data) => (window.greeted = data));
        }),
      { options: { ...server.clientOptions, ...options }, name, key: APP.key },
    );

  /** Signs the page in; as whom. */
  const signIn = (tab) =>
    tab.evaluate(() => {
      const signedIn = new Promise((resolve) => pusher.bind("pusher:signin_success", resolve));
      pusher.signin();
      return signedIn.then(({ user_data }) => JSON.parse(user_data).id);
    });

  /** What a page reads of the answer to a request of its own: the status. */
  const post = (tab, options) =>
    tab.evaluate(
      ({ url, options }) => {
        const body = new URLSearchParams({ socket_id: "1.2", channel_name: "private-user-ann" });
        return fetch(url, { method: "POST", body, ...options }).then(({ status }) => status, () => "unreadable");
      },
      { url: `http://${own.address}/pusher/auth`, options },
    );

  const [newest] = VERSIONS;
  const oldest = VERSIONS.at(-1);

  test("a page of another origin asks with a header", async (t) => {
    const tab = await visit(t, pages, "pusher-with-encryption.min.js");
    const options = ask(newest, own, bearer(token(ANN)));
    assert.equal(await join(tab, options, "private-user-ann"), "in");
    assert.deepEqual(await join(tab, options, "presence-course-math"), { ann: { name: "Ann" } });
    assert.equal(await join(tab, options, "private-encrypted-ann"), "in");
    await own.library().trigger("private-encrypted-ann", "greet", { secret: "tea" });
    await tab.waitForFunction(() => window.greeted?.secret === "tea");
    assert.equal(await join(tab, options, "private-user-bob"), 403);
    assert.equal(await signIn(tab), "ann");
  });

  test("a page of another origin asks a backend that decides", async (t) => {
    const backend = await Sessions.start();
    t.after(() => backend.stop());
    const app = { encryption_master_key: MASTER_KEY, allowed_origins: [pages.url], auth: { forward: backend.forward } };
    const decided = await Server.start({ app });
    t.after(() => decided.stop());
    const tab = await visit(t, pages, "pusher-with-encryption.min.js");
    const options = ask(newest, decided, { "X-Session": "s1" });
    assert.equal(await join(tab, options, "private-user-ann", decided), "in");
    assert.deepEqual(await join(tab, options, "presence-room", decided), { ann: { name: "Ann" } });
    assert.equal(await join(tab, options, "private-encrypted-ann", decided), "in");
    await decided.library().trigger("private-encrypted-ann", "greet", { secret: "tea" });
    await tab.waitForFunction(() => window.greeted?.secret === "tea");
    assert.equal(await join(tab, options, "private-user-bob", decided), 403);
    assert.equal(await signIn(tab), "ann");
    await tab.close();
  });

  test("a page that is not listed is not even heard", async (t) => {
    const tab = await visit(t, strangers, "pusher.min.js");
    // Its connection would be refused, too, so it is the endpoint alone that is asked here.
    assert.equal(await post(tab, { credentials: "omit", headers: bearer(token(ANN)) }), "unreadable");
    assert.equal(await post(tab, { credentials: "include" }), "unreadable");
    assert.equal(await post(await visit(t, pages, "pusher.min.js"), { headers: bearer(token(ANN)) }), 200);
  });

  test("pusher-js 4 asks with a script", async (t) => {
    const tab = await visit(t, pages, "pusher-4.min.js");
    const jsonp = (token) => ({
      authTransport: "jsonp",
      authEndpoint: `http://${own.address}/pusher/auth`,
      auth: { params: token === undefined ? {} : { token } },
    });
    assert.equal(oldest.major, 4);
    assert.equal(await join(tab, jsonp(token(ANN)), "private-user-ann"), "in");
    // It hears of the refusal from the server, to which it comes with an empty token.
    assert.equal(await join(tab, jsonp(token(ANN)), "private-user-bob"), 401);
  });

  test("a cookie lets a listed page in, and a stranger's script not", async (t) => {
    // Cookies do not tell ports apart, so the page's own one reaches Fanfare.
    await browser.addCookies([{ name: "session", value: token(ANN), url: pages.url }]);
    t.after(() => browser.clearCookies());
    const options = { authTransport: "jsonp", authEndpoint: `http://${own.address}/pusher/auth`, auth: { params: {} } };
    const tab = await visit(t, pages, "pusher-4.min.js");
    assert.equal(await join(tab, options, "private-user-ann"), "in");
    assert.equal(await post(tab, { credentials: "include" }), 200);
    assert.equal(await post(tab, { credentials: "omit" }), 403);

    const callback = "Pusher.auth_callbacks['1']";
    const query = new URLSearchParams({ callback, socket_id: "1.2", channel_name: "private-user-ann" });
    const load = (src) =>
      new Promise((resolve) => {
        window.Pusher = { auth_callbacks: { 1: resolve } };
        document.head.append(Object.assign(document.createElement("script"), { src }));
      });
    const stolen = (tab) => tab.evaluate(load, `http://${own.address}/pusher/auth?${query}`);
    assert.match((await stolen(tab)).auth, new RegExp(`^${APP.key}:`));
    const stranger = await visit(t, strangers, "pusher-4.min.js");
    assert.deepEqual(await stolen(stranger), { auth: "", status: 403, error: "Forbidden" });
    // Nor if it hides where it comes from.
    await stranger.evaluate(() => {
      const hide = { name: "referrer", content: "no-referrer" };
      document.head.append(Object.assign(document.createElement("meta"), hide));
    });
    assert.deepEqual(await stolen(stranger), { auth: "", status: 403, error: "Forbidden" });
  });
});
