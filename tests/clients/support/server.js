// The server under test: the built binary with a configuration of its own, on ports that the system picks.

import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import PusherHttp from "pusher";

import { until } from "./deadline.js";
import { Child } from "./process.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));

/** The binary: `FANFARE_BIN`, or what `cargo build` leaves behind. */
export const binary = path.resolve(root, process.env.FANFARE_BIN ?? "target/debug/fanfare");

/** The app that every server here has. */
export const APP = { id: "1001", key: "clients-key", secret: "clients-secret" };

/** 32 bytes that only the backend and its subscribers know. */
export const MASTER_KEY = Buffer.from("the server never sees these bits").toString("base64");

/** What two nodes have in common, if they stand in for one server. */
let redis;
let clusters = 0;
let pairs = 0;

const launched = [];
const directories = [];

/** A new directory that is gone when the test file has ended. */
export function temporary(prefix) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), prefix));
  directories.push(directory);
  return directory;
}

process.once("exit", () => {
  for (const directory of directories) fs.rmSync(directory, { recursive: true, force: true });
});

// A test that failed is easier to understand with what the server has to say about it.
process.once("exit", (code) => {
  if (code === 0) return;
  for (const { name, output } of launched) console.error(`${name}:\n${output.split("\n").slice(-200).join("\n")}`);
});

/** Starts a process of the server and waits until it listens. */
export async function launch(args) {
  assert.ok(fs.existsSync(binary), `${binary} is missing: run \`cargo build\`, or set FANFARE_BIN`);
  const env = withoutSettings(process.env);
  const child = new Child(binary, [...args, "--log-level", "info,fanfare=debug"], { env });
  launched.push(child);
  const { public: address, admin } = await child.line("the line `listening`", listening);
  return { child, address, admin };
}

/** A server with one app, and what its users need to know of it. */
export class Server {
  #args;
  #child;
  #second;
  #balancer;

  /**
   * `app` holds what is in `[[apps]]`, `settings` what is in `[server]`; whatever else there is, is a table by its name.
   * With FANFARE_CLIENTS_CLUSTER=1 it is two nodes, unless it has to be one process `alone`.
   */
  static async start({ alone = process.env.FANFARE_CLIENTS_CLUSTER !== "1", ...options } = {}) {
    if (alone || options.cluster) return Server.#one(options);
    // Two nodes in place of one server: WebSockets go to the first, the HTTP API is that of the second, and requests of
    // HTTP transports go to both in turn.
    clusters += 1;
    pairs += 1;
    const id = `clients-${clusters}`;
    redis ??= import("./redis.js").then(({ Redis }) => Redis.start());
    const { url } = await redis;
    const node = (name) => {
      const cluster = { driver: "redis", urls: [url], id, node: name };
      const webhooks = { ...options.webhooks, data_dir: temporary("fanfare-webhooks-") };
      return Server.#one({ ...options, webhooks, cluster });
    };
    const [first, second] = await Promise.all([node("a"), node("b")]);
    first.#second = second;
    for (const { admin } of [first, second]) {
      await until(`${admin} is ready`, () => fetch(`http://${admin}/ready`).then(({ ok }) => ok));
    }
    const { Nginx } = await import("./nginx.js");
    first.#balancer = await Nginx.start([first, second]);
    return first;
  }

  static async #one({ app = {}, settings = {}, ...tables }) {
    const server = new Server();
    const file = path.join(temporary("fanfare-clients-"), "fanfare.toml");
    fs.writeFileSync(file, configuration({ ...APP, ...app }, settings, tables));
    server.#args = ["serve", "--config", file, "--log-format", "json"];
    await server.#launch("127.0.0.1:0");
    return server;
  }

  async #launch(listen) {
    const { child, address, admin } = await launch([...this.#args, "--listen", listen]);
    this.#child = child;
    this.address = address;
    this.admin = admin;
    this.host = address.slice(0, address.lastIndexOf(":"));
    this.port = Number(address.slice(address.lastIndexOf(":") + 1));
  }

  /** The options that point pusher-js of any version here. */
  get clientOptions() {
    return {
      cluster: "mt1",
      wsHost: this.host,
      wsPort: this.port,
      httpHost: this.front.host,
      httpPort: this.front.port,
      forceTLS: false,
      enabledTransports: ["ws"],
      // Versions before 5.1 report statistics to Pusher unless told not to.
      disableStats: true,
    };
  }

  /** Where the clients of HTTP transports find it. */
  get front() {
    return this.#balancer ?? this;
  }

  /** The server whose HTTP API is used. */
  get api() {
    return this.#second ?? this;
  }

  /** Pusher's library for Node backends, with the credentials of the app. */
  library(options = {}) {
    return new PusherHttp({
      appId: APP.id,
      key: APP.key,
      secret: APP.secret,
      host: this.api.host,
      port: this.api.port,
      useTLS: false,
      encryptionMasterKeyBase64: MASTER_KEY,
      ...options,
    });
  }

  /** What a metric says now: the sum over all its labels. */
  async metric(name) {
    const page = await (await fetch(`http://${this.admin}/metrics`)).text();
    const lines = page.split("\n").filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
    assert.ok(lines.length > 0, `no metric is named ${name}:\n${page}`);
    const others = (await this.#second?.metric(name)) ?? 0;
    return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), others);
  }

  /** Stops it as an operator would; anything but an orderly end is a failure. */
  async stop() {
    await this.#balancer?.stop();
    await this.#second?.stop();
    if (this.#second) pairs -= 1;
    assert.ok(this.#child.running, `the server ended before it was asked to, with these logs:\n${this.#child.output}`);
    const code = await this.#child.stop("SIGTERM");
    assert.equal(code, 0, `exit code after SIGTERM, with these logs:\n${this.#child.output}`);
    if (redis && pairs === 0) {
      const last = redis;
      redis = undefined;
      await (await last).goAway();
    }
  }

  /** Ends it as a crash would. */
  async crash() {
    assert.equal(await this.#child.stop("SIGKILL"), "SIGKILL");
  }

  /** Starts it again where its clients look for it. */
  async startAgain() {
    await this.#launch(this.address);
  }
}

/** The fields of the log line that says the server is ready. */
function listening(line) {
  if (!line.startsWith("{")) return undefined;
  const entry = JSON.parse(line);
  return entry.message === "listening" ? entry : undefined;
}

/** The settings of the machine's owner are not those of a test. */
function withoutSettings(environment) {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith("FANFARE_")));
}

/** A whole configuration. */
function configuration(app, settings, tables) {
  // Long enough to close a handful of clients one after the other.
  const server = { drain_period: "2s", ...settings };
  return toml({ server, admin: { listen: "127.0.0.1:0" }, ...tables, apps: [app] });
}

/**
 * A table as TOML: its own values, then the tables and the lists of tables in it. Every other JSON value is a TOML one,
 * too.
 */
function toml(table, path = []) {
  const isTable = (value) => typeof value === "object" && !Array.isArray(value);
  const isTables = (value) => Array.isArray(value) && value.length > 0 && value.every(isTable);
  const values = [];
  const below = [];
  for (const [key, value] of Object.entries(table)) {
    const name = [...path, key];
    if (isTable(value)) below.push(`[${name.join(".")}]`, toml(value, name));
    else if (isTables(value)) for (const item of value) below.push(`[[${name.join(".")}]]`, toml(item, name));
    else values.push(`${key} = ${JSON.stringify(value)}`);
  }
  return [...values, ...below].join("\n");
}
