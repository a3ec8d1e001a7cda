// A real browser, headless, that knows nothing outside this machine.

import assert from "node:assert/strict";
import fs from "node:fs";

import { chromium as playwright } from "playwright-core";

import { temporary } from "./server.js";

/** Debian's; `CHROMIUM` names another one. */
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // Whatever else a browser would like to look up: nothing outside this machine exists.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

/** A new browser without a past. */
export function chromium() {
  assert.ok(fs.existsSync(CHROMIUM), `${CHROMIUM} is missing: run \`apt-get install chromium\`, or set CHROMIUM`);
  return playwright.launchPersistentContext(temporary("fanfare-chromium-"), {
    executablePath: CHROMIUM,
    headless: true,
    args: ARGUMENTS,
  });
}
