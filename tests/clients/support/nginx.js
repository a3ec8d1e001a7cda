// A real nginx in front of servers, such as operators have: it runs in a directory of its own and needs no rights.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";

import { until } from "./deadline.js";
import { Child } from "./process.js";
import { freePort } from "./redis.js";
import { temporary } from "./server.js";

/** Debian has it where only root looks for commands. */
const PATH = [process.env.PATH, "/usr/sbin", "/usr/local/sbin"].join(path.delimiter);

/** Whatever the client wants, WebSockets as well. */
const PASS_ON = [
  "proxy_http_version 1.1;",
  "proxy_set_header Upgrade $http_upgrade;",
  "proxy_set_header Connection $http_connection;",
];

/** A running nginx. */
export class Nginx {
  #child;
  #servers;

  /** In front of these servers, to which its requests go in turn. `location` is how it passes them on. */
  static async start(servers, location = PASS_ON) {
    const { error } = spawnSync("nginx", ["-v"], { env: { PATH } });
    assert.equal(error, undefined, "nginx is missing: apt-get install nginx-light");
    const nginx = new Nginx();
    nginx.#servers = servers;
    nginx.port = await freePort();
    const directory = temporary("fanfare-nginx-");
    fs.writeFileSync(path.join(directory, "nginx.conf"), configuration(nginx.port, servers, location));
    const options = ["-p", directory, "-c", "nginx.conf", "-e", "stderr"];
    nginx.#child = new Child("nginx", options, { env: { PATH } });
    await until("nginx listens", async () => {
      assert.ok(nginx.#child.running, `nginx ended, and said:\n${nginx.#child.output}`);
      return fetch(`http://${nginx.address}/`).then(() => true, () => false);
    });
    return nginx;
  }

  get host() {
    return "127.0.0.1";
  }

  get address() {
    return `${this.host}:${this.port}`;
  }

  /** The options that point pusher-js here. */
  get clientOptions() {
    const { host, port } = this;
    return { ...this.#servers[0].clientOptions, wsHost: host, wsPort: port, httpHost: host, httpPort: port };
  }

  async stop() {
    assert.equal(await this.#child.stop("SIGTERM"), 0, `the exit code of nginx, which said:\n${this.#child.output}`);
  }
}

/** Whatever it writes stands below its directory, and whatever is not mentioned is as nginx has it by default. */
function configuration(port, servers, location) {
  const temporaries = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return `
daemon off;
# One process, which takes its turns strictly, and stays who it is if root starts it.
master_process off;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 1024; }
http {
  access_log off;
  ${temporaries.map((name) => `${name}_temp_path ${name};`).join("\n  ")}
  upstream fanfare {
    ${servers.map(({ address }) => `server ${address} max_fails=0;`).join("\n    ")}
  }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://fanfare;
      ${location.join("\n      ")}
    }
  }
}
`;
}
