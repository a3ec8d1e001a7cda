// The page of the browser tests: a chat, written as an application's front-end would be; and tabs that have it open.

import assert from "node:assert/strict";

import { DEADLINE_MS } from "./deadline.js";
import { APP } from "./server.js";

/** What `enabledTransports` of pusher-js can be limited to. It loads a SockJS of its own from its CDN. */
export const TRANSPORTS = ["ws", "xhr_streaming", "xhr_polling", "sockjs"];

/**
 * The document, with the `script` that is pusher-js and the `options` that it gets. Everything it shows stands in
 * `window.seen`, which the test reads.
 */
export function page(query) {
  return `<!doctype html>
<meta charset="utf-8">
<title>A chat</title>
<script src="${query.get("script")}"></script>
<script>
  const pusher = new Pusher(${JSON.stringify(APP.key)}, ${query.get("options")});
  window.seen = [];
  pusher.connection.bind("state_change", ({ current }) => seen.push("is " + current));
  pusher.connection.bind("error", (error) => seen.push("error " + JSON.stringify(error)));
  pusher.bind("pusher:signin_success", () => seen.push("is signed in"));
  if (pusher.user) pusher.user.bind("notice", (data) => seen.push("notice " + JSON.stringify(data)));

  function join(name) {
    const channel = pusher.subscribe(name);
    channel.bind("pusher:subscription_succeeded", (members) => {
      const present = members && members.members ? " with " + Object.keys(members.members).sort().join() : "";
      seen.push("in " + name + present);
    });
    channel.bind("pusher:subscription_error", (error) => seen.push("refused " + JSON.stringify(error)));
    channel.bind("pusher:member_added", (member) => seen.push("joined " + member.info.name));
    channel.bind("pusher:member_removed", (member) => seen.push("left " + member.info.name));
    channel.bind("client-typing", (data, { user_id }) => seen.push("typing " + user_id + " " + data.text));
    channel.bind("greet", (data) => seen.push("greet " + JSON.stringify(data)));
    channel.bind("page", ({ number, text }) => seen.push("page " + number + " of " + text.length));
  }
</script>`;
}

let tabs = 0;

/** A host name of 127.0.0.1 that no other tab uses. */
export function hostOfItsOwn() {
  tabs += 1;
  return `tab-${tabs}.test`;
}

/** A new tab with the page of `backend`, whose pusher-js is the build `script` and has these options. */
export async function visit(browser, backend, script, options) {
  const tab = await browser.newPage();
  const errors = [];
  tab.on("pageerror", (error) => errors.push(error));
  await tab.goto(`${backend.url}/?${new URLSearchParams({ script, options: JSON.stringify(options) })}`);
  assert.deepEqual(errors, []);
  return tab;
}

/** Waits until the page has noted a line that is `line`, or matches it. */
export async function sees(tab, line, { times = 1, milliseconds = DEADLINE_MS } = {}) {
  const matches = ({ line, times }) => {
    const fits = (seen) => (line instanceof RegExp ? line.test(seen) : seen === line);
    return window.seen?.filter(fits).length >= times;
  };
  const found = tab.waitForFunction(matches, { line, times }, { timeout: milliseconds });
  await found.catch(async (error) => {
    const seen = await tab.evaluate(() => window.seen).catch(() => []);
    const what = `${JSON.stringify(String(line))}, ${times} times`;
    throw new Error(`the page does not see ${what}, but ${JSON.stringify(seen, null, 2)}`, { cause: error });
  });
}

/** The lines so far that start with `start`. */
export function seen(tab, start) {
  return tab.evaluate((start) => window.seen.filter((line) => line.startsWith(start)), start);
}

/** Which of its transports pusher-js uses. */
export function transport(tab) {
  return tab.evaluate(() => pusher.connection.connection.transport.name);
}
