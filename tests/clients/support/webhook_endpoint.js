// A backend that is told what happens: it verifies every webhook with Pusher's library, and remembers it.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";

import PusherHttp from "pusher";

import { until, within } from "./deadline.js";
import { APP } from "./server.js";

/** Pusher's library, as a backend makes it that only receives. */
export const LIBRARY = new PusherHttp({ appId: APP.id, key: APP.key, secret: APP.secret, cluster: "mt1" });

/** A running backend, which may go away and come back. */
export class WebhookEndpoint {
  /**
   * Every webhook that was read, in the order of arrival. `acknowledged` is whether the answer was 2xx and was written
   * before the connection ended.
   */
  requests = [];

  /** All events that were acknowledged, as a backend has them that knows its deliveries: a killed server repeats some. */
  events = [];

  /** What the library did not believe. */
  refused = [];

  /** How to answer: with a status, or not at all if there is none. */
  answer = () => 204;

  #server;
  #port = 0;
  #known = new Set();
  #waiting = new Set();

  /** An endpoint that is stopped when the test `t` ends. */
  static async start(t) {
    const endpoint = new WebhookEndpoint();
    endpoint.#server = http.createServer((request, response) => {
      // A connection that ends in the middle of a request is what these tests are about.
      endpoint.#read(request, response).catch(() => response.destroy());
    });
    await endpoint.comeBack();
    t.after(() => endpoint.goAway());
    return endpoint;
  }

  /** Where it listens; the address stays the same. */
  get url() {
    return `http://127.0.0.1:${this.#port}/webhook`;
  }

  /** Closes the listener and whatever is connected. */
  async goAway() {
    if (!this.#server.listening) return;
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  /** Listens again where it did before. Somebody's outgoing connection may have the port for a moment. */
  async comeBack() {
    await until(`the port ${this.#port}`, async () => {
      try {
        this.#server.listen(this.#port, "127.0.0.1");
        await once(this.#server, "listening");
        return true;
      } catch (error) {
        if (error.code !== "EADDRINUSE") throw error;
        return false;
      }
    });
    this.#port = this.#server.address().port;
  }

  /** Waits until `done`, which is asked after every webhook. */
  until(what, done, milliseconds) {
    const reached = new Promise((resolve) => {
      const look = () => {
        if (!done()) return;
        this.#waiting.delete(look);
        resolve();
      };
      this.#waiting.add(look);
      look();
    });
    const last = () => JSON.stringify(this.requests.slice(-30).map(({ events, acknowledged }) => [acknowledged, events]));
    return within(reached, () => `${what}; ${this.requests.length} webhooks came, the last ones: ${last()}`, milliseconds);
  }

  /**
   * What holds however bad the way here was: every request is believed, one delivery has one id and one body, and none
   * is sent again that was acknowledged.
   */
  assertExactlyOnce() {
    assert.deepEqual(this.refused, []);
    const deliveries = byId(this.requests);
    for (const [id, requests] of deliveries) {
      assert.equal(new Set(requests.map(({ body }) => body)).size, 1, `delivery ${id} is always the same`);
      const acknowledged = requests.map((request) => request.acknowledged);
      assert.equal(acknowledged.indexOf(true), requests.length - 1, `delivery ${id} came once acknowledged: ${acknowledged}`);
    }
    return deliveries;
  }

  async #read(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const { headers } = request;
    const body = Buffer.concat(chunks).toString("utf8");
    const webhook = LIBRARY.webhook({ rawBody: body, headers });
    if (!webhook.isValid()) {
      this.refused.push({ headers, body });
      response.writeHead(401).end();
      return;
    }
    const id = headers["x-fanfare-delivery"];
    const received = { id, headers, body, events: webhook.getEvents(), time: webhook.getTime(), acknowledged: false };
    this.requests.push(received);
    received.status = this.answer(received);
    if (received.status !== undefined) {
      response.writeHead(received.status).end();
      received.acknowledged = received.status < 300 && !request.socket.destroyed;
    }
    if (received.acknowledged && !this.#known.has(id)) {
      this.#known.add(id);
      this.events.push(...received.events);
    }
    for (const look of [...this.#waiting]) look();
  }
}

function byId(requests) {
  const deliveries = new Map();
  for (const request of requests) {
    if (!deliveries.has(request.id)) deliveries.set(request.id, []);
    deliveries.get(request.id).push(request);
  }
  return deliveries;
}
