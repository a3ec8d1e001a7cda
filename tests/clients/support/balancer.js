// What stands in front of several nodes: connections go to them in turn, past those that are not ready.

import { once } from "node:events";
import net from "node:net";

/** A balancer of TCP connections. */
export class Balancer {
  #nodes;
  #server;
  #next = 0;

  /** In front of these servers, for the test `t`. */
  static async start(t, nodes) {
    const balancer = new Balancer();
    balancer.#nodes = nodes;
    balancer.#server = net.createServer((client) => balancer.#serve(client));
    balancer.#server.listen(0, "127.0.0.1");
    await once(balancer.#server, "listening");
    t.after(() => balancer.#server.close());
    return balancer;
  }

  get host() {
    return "127.0.0.1";
  }

  get port() {
    return this.#server.address().port;
  }

  /** The options that point pusher-js here. */
  get clientOptions() {
    const { host, port } = this;
    return { ...this.#nodes[0].clientOptions, wsHost: host, wsPort: port, httpHost: host, httpPort: port };
  }

  async #serve(client) {
    client.on("error", () => client.destroy());
    client.pause();
    for (let tried = 0; tried < this.#nodes.length; tried += 1) {
      const node = this.#nodes[this.#next++ % this.#nodes.length];
      const ready = await fetch(`http://${node.admin}/ready`).then(({ ok }) => ok, () => false);
      if (!ready) continue;
      const upstream = net.connect(node.port, node.host);
      const connected = await Promise.race([once(upstream, "connect"), once(upstream, "error")]).then(
        () => !upstream.destroyed && upstream.readyState === "open",
        () => false,
      );
      if (!connected) continue;
      upstream.on("error", () => client.destroy());
      upstream.on("close", () => client.destroy());
      client.on("close", () => upstream.destroy());
      client.pipe(upstream).pipe(client);
      return;
    }
    client.destroy();
  }
}
