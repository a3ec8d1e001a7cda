// Serves a route handler of Next.js's App Router, which is a function from a `Request` to a `Response`.
//
//     node route_handler.js FILE

import http from "node:http";
import { buffer } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const { POST } = await import(pathToFileURL(process.argv[2]));

const server = http.createServer(async (request, response) => {
  const { method, url, headers } = request;
  const answer = await POST(new Request(`http://backend${url}`, { method, headers, body: await buffer(request) }));
  response.writeHead(answer.status).end(await answer.text());
});
server.listen(process.env.PORT, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
