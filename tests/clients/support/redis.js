// A real Redis for the nodes of a cluster.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import net from "node:net";

import { Child } from "./process.js";
import { temporary } from "./server.js";

/** A running redis-server, which may go away and come back without its data. */
export class Redis {
  #child;
  #port;

  static async start() {
    const { error } = spawnSync("redis-server", ["--version"]);
    assert.equal(error, undefined, "redis-server is missing: apt-get install redis-server");
    const redis = new Redis();
    redis.#port = await freePort();
    await redis.comeBack();
    return redis;
  }

  get url() {
    return `redis://127.0.0.1:${this.#port}`;
  }

  async comeBack() {
    const options = ["--port", this.#port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    this.#child = new Child("redis-server", [...options, "--dir", temporary("fanfare-redis-")].map(String));
    await this.#child.line("ready", (line) => (line.includes("Ready to accept connections") ? line : undefined));
  }

  async goAway() {
    if (this.#child.running) await this.#child.stop("SIGKILL");
  }
}

/** A port that nobody had a moment ago, for programs that take none from the system. */
export async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}
