// A small application backend, such as a customer has: it knows its users, and authorises them with Pusher's library.

import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(import.meta.url);

/** Who may log in; the login is the `user` parameter or a bearer token. */
const USERS = {
  ann: { name: "Ann", watchlist: ["bob", "cleo"] },
  bob: { name: "Bob", watchlist: [] },
  cleo: { name: "Cleo", watchlist: [] },
};

/** The browser builds of libraries; these paths are part of the packages. */
const SCRIPTS = new Map([
  ["/pusher.min.js", file("pusher-js", "dist/web/pusher.min.js")],
  ["/pusher-with-encryption.min.js", file("pusher-js", "dist/web/pusher-with-encryption.min.js")],
  ["/pusher-4.min.js", file("pusher-js-4", "dist/web/pusher.min.js")],
  ["/sockjs-client.min.js", file("sockjs-client", "dist/sockjs.min.js")],
]);

/** Those of pusher-js also where its CDN has them, `/8.6.0/pusher.min.js`: it loads SockJS from there by itself. */
for (const name of ["pusher-js", "pusher-js-7", "pusher-js-4"]) {
  const { version } = require(`${name}/package.json`);
  for (const script of fs.readdirSync(file(name, "dist/web")).filter((script) => script.endsWith(".js"))) {
    SCRIPTS.set(`/${version}/${script}`, file(name, `dist/web/${script}`));
  }
}

function file(name, inside) {
  return path.join(path.dirname(require.resolve(`${name}/package.json`)), inside);
}

/** A running backend. `requests` lists the paths that were asked for. */
export class Backend {
  requests = [];

  /** `library` signs; `pages` are HTML documents by path. */
  static async start(library, pages = {}) {
    const backend = new Backend();
    const server = http.createServer((request, response) => {
      answer(backend, library, pages, request, response).catch((error) => {
        response.writeHead(500, { "Content-Type": "text/plain" }).end(String(error.stack));
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    backend.port = server.address().port;
    backend.url = `http://127.0.0.1:${backend.port}`;
    backend.stop = async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    };
    return backend;
  }

  /** The options of pusher-js 7.1 and later that make it authorise itself here, as `user`. */
  authFor(user) {
    const as = (endpoint) => ({ transport: "ajax", endpoint: `${this.url}${endpoint}`, params: { user } });
    return { channelAuthorization: as("/pusher/auth"), userAuthentication: as("/pusher/user-auth") };
  }

  /** The same in the words of older versions, which only know channels. */
  oldAuthFor(user) {
    return { authEndpoint: `${this.url}/pusher/auth`, auth: { params: { user }, headers: {} } };
  }
}

async function answer(backend, library, pages, request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://backend");
  backend.requests.push(pathname);
  const reply = (status, type, body) => response.writeHead(status, { "Content-Type": type }).end(body);
  if (request.method === "GET") {
    const script = SCRIPTS.get(pathname);
    if (script !== undefined) return reply(200, "text/javascript", fs.readFileSync(script));
    if (pages[pathname]) return reply(200, "text/html; charset=utf-8", pages[pathname](searchParams));
    return reply(404, "text/plain", "no such page");
  }
  const form = new URLSearchParams(await text(request));
  const id = request.headers.authorization?.replace(/^Bearer /, "") ?? form.get("user");
  const user = USERS[id];
  const json = (value) => reply(200, "application/json", JSON.stringify(value));
  if (user === undefined) return reply(403, "text/plain", "who are you?");
  const socket = form.get("socket_id");
  switch (pathname) {
    case "/pusher/auth":
    case "/broadcasting/auth": {
      const channel = form.get("channel_name");
      if (channel.includes("forbidden")) return reply(403, "text/plain", "not you");
      const member = { user_id: id, user_info: { name: user.name } };
      return json(library.authorizeChannel(socket, channel, channel.startsWith("presence-") ? member : undefined));
    }
    case "/pusher/user-auth":
    case "/broadcasting/user-auth":
      return json(library.authenticateUser(socket, { id, user_info: { name: user.name }, watchlist: user.watchlist }));
    default:
      return reply(404, "text/plain", "no such page");
  }
}

async function text(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}
