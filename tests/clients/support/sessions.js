// An application with sessions that knows nothing of Pusher's signatures: it only says yes or no, and who the user is.

import { once } from "node:events";
import http from "node:http";

const SESSIONS = { s1: { id: "ann", name: "Ann" }, s2: { id: "bob", name: "Bob" } };

/** What a backend that Fanfare asks looks like; the header `X-Session` says who is asking. */
export class Sessions {
  #server;

  static async start() {
    const backend = new Sessions();
    backend.#server = http.createServer(answer).listen(0, "127.0.0.1");
    await once(backend.#server, "listening");
    return backend;
  }

  /** The settings that make an app ask it. */
  get forward() {
    const url = `http://127.0.0.1:${this.#server.address().port}`;
    return { url: `${url}/channel`, user_url: `${url}/user`, headers: ["X-Session"] };
  }

  async stop() {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }
}

async function answer(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const form = new URLSearchParams(Buffer.concat(chunks).toString());
  const user = SESSIONS[request.headers["x-session"]];
  const reply = (status, body) => response.writeHead(status).end(JSON.stringify(body));
  if (user === undefined) return reply(401, { message: "Unauthenticated." });
  const allow = (data) => reply(200, { fanfare: "allow", ...data });
  if (request.url === "/user") return allow({ id: user.id, user_info: { name: user.name } });
  const channel = form.get("channel_name");
  if (channel.includes("broken")) return reply(500, {});
  if (channel === `private-user-${user.id}` || channel === `private-encrypted-${user.id}`) return allow({});
  if (channel.startsWith("presence-")) return allow({ user_id: user.id, user_info: { name: user.name } });
  return reply(403, {});
}
