// What `fanfare dev` prints is meant to be pasted: every block is run here exactly as it stands there.

import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import Echo from "laravel-echo";
import PusherHttp from "pusher";

import { connected, first, next, Pusher, subscribe, watch } from "./support/clients.js";
import { Child } from "./support/process.js";
import { python } from "./support/python.js";
import { launch, temporary } from "./support/server.js";

let server;
let blocks;
let project;

before(async () => {
  const args = ["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"];
  server = (await launch(args)).child;
  await server.line("the end of the banner", (line) => (line === "=== End ===" ? line : undefined));
  blocks = banner(server.output);
  // A project with the libraries installed, such as somebody pastes the blocks into.
  project = temporary("fanfare-dev-");
  fs.symlinkSync(fileURLToPath(new URL("node_modules", import.meta.url)), path.join(project, "node_modules"));
});
after(async () => {
  if (server !== undefined) assert.equal(await server.stop(), 0);
});

/** The blocks between lines like `=== Node ===`, by their names. */
function banner(output) {
  const found = {};
  let name;
  for (const line of output.split("\n")) {
    const title = /^=== (.*) ===$/.exec(line)?.[1];
    if (title !== undefined) found[(name = title)] = [];
    else if (name !== undefined && !line.startsWith("{\"timestamp\"")) found[name].push(line);
  }
  return Object.fromEntries(Object.entries(found).map(([name, lines]) => [name, lines.join("\n")]));
}

/** The block called `name`, in a file of the project. */
function paste(name, file) {
  assert.ok(blocks[name], `the banner has a block "${name}"; it has ${Object.keys(blocks)}`);
  const target = path.join(project, file);
  fs.writeFileSync(target, blocks[name]);
  return target;
}

/** The variables of a `.env` file, with `${OTHER}` replaced as Laravel and Vite do. */
function variables(text) {
  const values = {};
  for (const line of text.split("\n").filter((line) => line.trim() !== "")) {
    const [, name, quoted, plain] = /^([A-Z_]+)=(?:"(.*)"|(.*))$/.exec(line) ?? assert.fail(`not a setting: ${line}`);
    values[name] = (quoted ?? plain).replace(/\$\{(\w+)\}/g, (_, other) => values[other] ?? assert.fail(line));
  }
  return values;
}

/** An observer on the channel of the printed examples, made of the printed settings for Laravel. */
function echo(env) {
  // As in the echo.js that Laravel installs.
  return new Echo({
    broadcaster: "pusher",
    Pusher,
    key: env.VITE_PUSHER_APP_KEY,
    cluster: env.VITE_PUSHER_APP_CLUSTER,
    forceTLS: (env.VITE_PUSHER_SCHEME ?? "https") === "https",
    wsHost: env.VITE_PUSHER_HOST ? env.VITE_PUSHER_HOST : `ws-${env.VITE_PUSHER_APP_CLUSTER}.pusher.com`,
    wsPort: env.VITE_PUSHER_PORT ?? 80,
    wssPort: env.VITE_PUSHER_PORT ?? 443,
    enabledTransports: ["ws", "wss"],
  });
}

test("the printed pusher-js receives what the printed Node and Python trigger", async (t) => {
  const env = variables(blocks["Laravel .env"]);
  const observer = echo(env);
  t.after(() => observer.disconnect());
  const { pusher } = observer.connector;
  await connected(watch(pusher));
  const channel = pusher.subscribe("my-channel");
  const both = next(channel, "pusher:subscription_count", ({ subscription_count: count }) => count === 2);

  const client = new Child(process.execPath, [paste("pusher-js", "client.mjs")], { cwd: project });
  t.after(() => client.stop("SIGKILL"));
  // The observer hears it when the printed client has subscribed.
  await Promise.race([both, client.exited().then(() => assert.fail(`the client ended:\n${client.output}`))]);

  for (const expected of ["I am ann", "signed in"]) {
    await client.line(expected, (line) => (line === expected ? line : undefined));
  }

  const greeting = (line) => (line.includes("hello: 'world'") ? line : undefined);
  const runs = [
    [process.execPath, paste("Node", "trigger.cjs")],
    [python(), paste("Python", "trigger.py")],
  ];
  for (const [command, file] of runs) {
    const from = client.length;
    const trigger = new Child(command, [file], { cwd: project });
    assert.equal(await trigger.exited(), 0, trigger.output);
    await client.line(`the event of ${path.basename(file)}`, greeting, from);
  }
});

test("the printed Node encrypts what a client of the same server decrypts", async (t) => {
  const require = createRequire(path.join(project, "x.cjs"));
  const [settings] = /new Pusher\([^)]*\)/.exec(blocks.Node);
  const library = new Function("Pusher", `return ${settings}`)(require("pusher"));
  const [options] = /new Pusher\([^]*?\n\}\)/.exec(blocks["pusher-js"]);
  const pusher = watch(new Function("Pusher", `return ${options}`)(Pusher));
  t.after(() => pusher.disconnect());
  const channel = await subscribe(pusher, "private-encrypted-my-channel");
  const event = next(channel, "my-event");
  await library.trigger(channel.name, "my-event", { secret: "tea" });
  assert.deepEqual(await event, { secret: "tea" });
});

test("the printed settings for Laravel drive its front-end and its backend", async (t) => {
  const env = variables(blocks["Laravel .env"]);
  assert.equal(env.BROADCAST_CONNECTION, "pusher");
  const front = echo(env);
  t.after(() => front.disconnect());
  watch(front.connector.pusher);
  // As in Laravel's config/broadcasting.php.
  const back = new PusherHttp({
    appId: env.PUSHER_APP_ID,
    key: env.PUSHER_APP_KEY,
    secret: env.PUSHER_APP_SECRET,
    cluster: env.PUSHER_APP_CLUSTER,
    host: env.PUSHER_HOST,
    port: env.PUSHER_PORT,
    scheme: env.PUSHER_SCHEME,
    useTLS: env.PUSHER_SCHEME === "https",
  });
  const channel = front.channel("orders");
  const event = first("OrderShipped", (resolve) => channel.listen("OrderShipped", resolve));
  await first("the subscription", (resolve) => channel.subscribed(resolve));
  await back.trigger("orders", "App\\Events\\OrderShipped", { id: 1 });
  assert.deepEqual(await event, { id: 1 });
});

test("the printed commands listen and trigger", async (t) => {
  const lines = Object.entries(blocks).find(([name]) => name.startsWith("Try it"))?.[1].split("\n") ?? [];
  const commands = lines.filter((line) => / (listen|trigger) /.test(line));
  assert.equal(commands.length, 2, `two commands in ${JSON.stringify(lines)}`);

  const observer = echo(variables(blocks["Laravel .env"]));
  t.after(() => observer.disconnect());
  const channel = watch(observer.connector.pusher).subscribe("my-channel");
  const both = next(channel, "pusher:subscription_count", ({ subscription_count: count }) => count === 2);
  const listener = new Child("/bin/sh", ["-c", `exec ${commands[0]}`]);
  t.after(() => listener.stop("SIGKILL"));
  await Promise.race([both, listener.exited().then(() => assert.fail(`it ended:\n${listener.output}`))]);
  const trigger = new Child("/bin/sh", ["-c", commands[1]]);
  assert.equal(await trigger.exited(), 0, trigger.output);
  await listener.line("the event", (line) => (/hello.*world/.test(line) ? line : undefined));
});
