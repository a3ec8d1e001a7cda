// The examples of docs/webhooks.md, as they stand there, receive webhooks.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { open, subscribe, unique } from "./support/clients.js";
import { until } from "./support/deadline.js";
import { Child } from "./support/process.js";
import { python } from "./support/python.js";
import { APP, Server, temporary } from "./support/server.js";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const guide = fs.readFileSync(here("../../docs/webhooks.md"), "utf8");

/** The blocks of code that begin with the name of a file, in a comment. */
const blocks = new Map([...guide.matchAll(/^```\w+\n(?:\/\/|#) (\S+)\n([^]*?)^```$/gm)].map(([, file, code]) => [file, code]));

/** A directory with these blocks, under the given names, beside the libraries of the tests. */
function written(files) {
  const directory = temporary("fanfare-examples-");
  fs.symlinkSync(here("node_modules"), path.join(directory, "node_modules"));
  for (const [file, block] of Object.entries(files)) {
    assert.ok(blocks.has(block), `docs/webhooks.md has a block ${block}, besides ${[...blocks.keys()]}`);
    fs.writeFileSync(path.join(directory, file), blocks.get(block));
  }
  return directory;
}

const EXAMPLES = {
  "plain Node": { files: { "webhooks.mjs": "webhooks.mjs" }, command: process.execPath, args: ["webhooks.mjs"] },
  "Next.js": {
    files: { "route.mjs": "app/pusher/webhook/route.js" },
    command: process.execPath,
    args: [here("support/route_handler.js"), "route.mjs"],
  },
  Django: {
    files: { "webhooks.py": "webhooks.py", "urls.py": "urls.py" },
    command: python(),
    args: [here("support/django_site.py")],
  },
};

describe("the example for", { concurrency: true }, () => {
  for (const [name, { files, command, args }] of Object.entries(EXAMPLES)) {
    test(name, async (t) => {
      const directory = written(files);
      const env = {
        ...process.env,
        PUSHER_APP_ID: APP.id,
        PUSHER_APP_KEY: APP.key,
        PUSHER_APP_SECRET: APP.secret,
        PORT: "0",
        PYTHONPATH: directory,
      };
      const backend = new Child(command, args, { cwd: directory, env });
      t.after(() => backend.stop("SIGKILL"));
      const port = await backend.line("its port", (line) => line.match(/^listening on (\d+)$/)?.[1]);
      const url = `http://127.0.0.1:${port}/pusher/webhook`;
      const server = await Server.start({
        app: { webhooks: [{ url }] },
        webhooks: { data_dir: temporary("fanfare-webhooks-") },
      });
      // The client goes before its server does: pusher-js may come back, if it is told to go while it reads a 4200.
      const client = open(t, server);
      t.after(() => server.stop());

      const room = unique("room");
      await subscribe(client, room);
      await backend.line("the event", (line) => (line === `channel_occupied ${room}` ? line : undefined));
      await until("the answer", async () => (await server.metric("fanfare_webhooks_delivered_total")) === 1);
      assert.equal(await server.metric("fanfare_webhooks_failed_total"), 0);

      const forged = { "Content-Type": "application/json", "X-Pusher-Key": APP.key, "X-Pusher-Signature": "0".repeat(64) };
      const body = JSON.stringify({ time_ms: Date.now(), events: [{ name: "channel_occupied", channel: "forged" }] });
      for (const headers of [forged, { "Content-Type": "application/json" }]) {
        assert.equal((await fetch(url, { method: "POST", headers, body })).status, 401);
      }
      assert.ok(!backend.output.includes("forged"), backend.output);
    });
  }
});
