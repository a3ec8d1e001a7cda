// Backends read the names of parameters in their own ways. Whatever a client calls its parameters, the backend that Fanfare
// asks must be asked about the channel and the connection that Fanfare signs.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, describe, test } from "node:test";

import { PARSERS } from "./support/parsers.js";
import { APP, Server } from "./support/server.js";

const PREFIXES = [
  "", "+", "%20", "%09", "%0a", "%00", ".", "_", "[", "[]", "[[", "]", "%5B", "x[", "x.", "x;", "x=1;", "x=1;%20", "%EF%BB%BF",
  "?",
];
const SEPARATORS = [
  "_", ".", "+", "%20", "[", "-", "", "%2E", "%5B", "%5F", "%255F", "%00", "%80", "%9F", "%C2%80", "%FF", "%u005F", "__",
];
const SUFFIXES = [
  "", "+", "%20", "%00", "%00x", ".", ".x", "[", "]", "[]", "[0]", "[x]", "[x", "[][x]", "[x][y]", "[x]y", "[]x",
  "%5B%5D", "%5Bx%5D", "%255B%255D", "[__proto__]", ";", ";x",
];

/** Whether it is the turn of an item of a list. */
const every = (count) => (_, index) => index % count === 0;

/**
 * Spellings of `first_second`: each prefix, separator and suffix, other cases, and combinations of two of the three: of these
 * one in three, or all of them with FANFARE_ALL_SPELLINGS=1.
 */
function spellings(first, second) {
  const plain = `${first}_${second}`;
  const single = [
    ...PREFIXES.map((prefix) => `${prefix}${plain}`),
    ...SEPARATORS.map((separator) => `${first}${separator}${second}`),
    ...SUFFIXES.map((suffix) => `${plain}${suffix}`),
    plain.toUpperCase(),
    `%${first.charCodeAt(0).toString(16)}${plain.slice(1)}`,
  ];
  const double = [
    ...PREFIXES.flatMap((prefix) => SEPARATORS.map((separator) => `${prefix}${first}${separator}${second}`)),
    ...SEPARATORS.flatMap((separator) => SUFFIXES.map((suffix) => `${first}${separator}${second}${suffix}`)),
    ...PREFIXES.flatMap((prefix) => SUFFIXES.map((suffix) => `${prefix}${plain}${suffix}`)),
  ];
  return [...new Set([...single, ...double.filter(every(process.env.FANFARE_ALL_SPELLINGS === "1" ? 1 : 3))])];
}

const NAMES = [
  // What is asked for, what the backend allows, and the spellings that may bring the one to the other.
  { asked: "socket_id=1.2&channel_name=private-other", own: "private-own", names: spellings("channel", "name") },
  // The same rules decide here, so a part of them is enough.
  { asked: "socket_id=3.4&channel_name=private-own", own: "1.2", names: spellings("socket", "id").filter(every(4)) },
];

/** The status and the JSON of an answer to this form. */
async function post(url, body) {
  const headers = { "Content-Type": "application/x-www-form-urlencoded" };
  const response = await fetch(url, { method: "POST", headers, body });
  const text = await response.text();
  return { status: response.status, text, json: () => JSON.parse(text) };
}

/** Calls `work` with each of the items, some of them at a time. */
async function forEach(items, work) {
  const rest = [...items];
  const worker = async () => {
    while (rest.length > 0) await work(rest.shift());
  };
  await Promise.all(Array.from({ length: 8 }, worker));
}

for (const [name, { start, known }] of Object.entries(PARSERS)) {
  describe(name, () => {
    let backend;
    let server;
    let endpoint;

    before(async () => {
      backend = await start();
      server = await Server.start({ app: { auth: { forward: { url: backend.url, params: ["token"] } } } });
      endpoint = `http://${server.address}/pusher/auth`;
    });
    after(async () => {
      await server?.stop();
      await backend?.stop();
    });

    test("allows what it should, and hears the parameters that are listed", async () => {
      const asked = "socket_id=1.2&channel_name=private-own&token=t%26channel_name%3Dx&other=1";
      const { status, json } = await post(endpoint, asked);
      assert.equal(status, 200);
      const signature = createHmac("sha256", APP.secret).update("1.2:private-own").digest("hex");
      assert.deepEqual(json(), { auth: `${APP.key}:${signature}` });
      assert.equal((await post(endpoint, "socket_id=1.2&channel_name=private-other")).status, 403);
      assert.equal((await post(backend.url, asked)).json().token, "t&channel_name=x");
    });

    test("cannot be asked about something else than what is signed", async () => {
      const misread = new Set();
      for (const { asked, own, names } of NAMES) {
        const plain = (await post(backend.url, asked)).json().saw;
        await forEach([...names.entries()], async ([index, spelling]) => {
          // What the backend would make of it if Fanfare passed it on.
          const direct = await post(backend.url, `${asked}&${spelling}=${own}`);
          const saw = direct.json().saw;
          const differs = saw !== undefined && JSON.stringify(saw) !== JSON.stringify(plain);
          if (differs) misread.add(spelling);
          if (!differs && !every(5)(spelling, index)) return;
          const places = [
            () => post(endpoint, `${asked}&${spelling}=${own}`),
            () => post(endpoint, `${spelling}=${own}&${asked}`),
            () => post(`${endpoint}?${spelling}=${own}`, asked),
          ];
          const { status, text } = await places[Math.floor(index / 7) % places.length]();
          assert.ok(status === 400 || (!differs && status === 403), `${spelling}: ${status} ${text}`);
        });
      }
      // Otherwise this test would prove nothing.
      for (const spelling of known) assert.ok(misread.has(spelling), `${spelling} is not among ${[...misread].join(" ")}`);
      assert.ok(misread.size >= 20, `${misread.size} spellings are misread: ${[...misread].join(" ")}`);
    });
  });
}
