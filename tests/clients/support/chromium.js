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
];

/**
 * A new browser without a past. Nothing outside this machine exists for it: `hosts` are the names that lead to one of
 * our ports, and `*.test` are names of 127.0.0.1. A browser has six connections for HTTP/1.1 to one name, so whoever
 * keeps one busy in each of many tabs gives every tab a name of its own.
 */
export function chromium(hosts = {}) {
  const names = Object.entries(hosts).map(([name, port]) => `MAP ${name} 127.0.0.1:${port}`);
  const rules = [...names, "MAP *.test 127.0.0.1", "MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1"];
  assert.ok(fs.existsSync(CHROMIUM), `${CHROMIUM} is missing: run \`apt-get install chromium\`, or set CHROMIUM`);
  return playwright.launchPersistentContext(temporary("fanfare-chromium-"), {
    executablePath: CHROMIUM,
    headless: true,
    args: [...ARGUMENTS, `--host-resolver-rules=${rules.join(", ")}`],
  });
}
