// Auth endpoints on the parameter parsers that most backends have. Each lets the connection 1.2 subscribe to private-own,
// answers 403 to everything else, and says in `saw` which channel and socket it has understood.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import { fileURLToPath } from "node:url";

import qs from "qs";

import { until } from "./deadline.js";
import { Child } from "./process.js";
import { freePort } from "./redis.js";

const file = (name) => fileURLToPath(new URL(`parsers/${name}`, import.meta.url));

function need(command, remedy, args = ["--version"]) {
  const { status } = spawnSync(command, args);
  assert.equal(status, 0, `${command} is missing: ${remedy}`);
}

/** PHP's own parser. */
async function php() {
  need("php", "apt-get install php-cli");
  const port = await freePort();
  const child = new Child("php", ["-S", `127.0.0.1:${port}`, file("backend.php")]);
  const url = `http://127.0.0.1:${port}`;
  await until("PHP listens", () => fetch(url).then(() => true, () => false));
  return { url, stop: () => child.stop("SIGKILL") };
}

/** Rack, on which Rails and Sinatra stand. */
async function rack() {
  need("ruby", "apt-get install ruby ruby-rack", ["-e", "require 'rack'"]);
  const child = new Child("ruby", [file("backend.rb")]);
  const port = await child.line("the line `listening`", (line) => /^listening (\d+)$/.exec(line)?.[1]);
  return { url: `http://127.0.0.1:${port}`, stop: () => child.stop("SIGKILL") };
}

/** qs, on which Express stands, with these options. */
const express = (options) => async () => {
  const server = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const { channel_name: channel, socket_id: socket, token = null } = qs.parse(Buffer.concat(chunks).toString(), options);
    const yes = channel === "private-own" && socket === "1.2";
    const answer = { saw: [channel, socket], token, ...(yes && { auth: `key:${"0".repeat(64)}` }) };
    response.writeHead(yes ? 200 : 403).end(JSON.stringify(answer));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const stop = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  };
  return { url: `http://127.0.0.1:${server.address().port}`, stop };
};

/** What to start, and two spellings of `channel_name` that each is known to accept: one for the whole, one for a part. */
export const PARSERS = {
  php: { start: php, known: ["channel.name", "channel_name[x]"] },
  rack: { start: rack, known: ["[channel_name]", "x=1;channel_name"] },
  qs: { start: express({}), known: ["[channel_name]", "channel_name[]"] },
  "qs, as lenient as it can be": {
    start: express({ duplicates: "last", allowDots: true, decodeDotInKeys: true, delimiter: /[&;]/, ignoreQueryPrefix: true }),
    known: ["[channel_name]", "channel_name.x"],
  },
};
