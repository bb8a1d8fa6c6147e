import { once } from "node:events";
import { createServer, request as httpRequest } from "node:http";
import { connect, type Socket } from "node:net";
import type { Test } from "tap";

export interface ConnectProxy {
  readonly url: string;
  /** `CONNECT host:port` and `GET http://…`, as they came, with the Proxy-Authorization. */
  readonly seen: { readonly line: string; readonly authorization: string | undefined }[];
}

/** An HTTP proxy. Whatever is asked for leads to `target`: the names in the tests exist nowhere. */
export async function startConnectProxy(t: Test, target: { port: number }): Promise<ConnectProxy> {
  const seen: ConnectProxy["seen"] = [];
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    seen.push({
      line: `${request.method} ${request.url}`,
      authorization: request.headers["proxy-authorization"],
    });
    const { pathname, search } = new URL(request.url ?? "/");
    const { "proxy-authorization": _secret, ...headers } = request.headers;
    const onward = httpRequest({
      host: "127.0.0.1",
      port: target.port,
      method: request.method,
      path: `${pathname}${search}`,
      headers,
      agent: false,
    });
    onward.on("response", (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.on("connect", (request, client, head) => {
    seen.push({ line: `CONNECT ${request.url}`, authorization: request.headers["proxy-authorization"] });
    const onward = connect(target.port, "127.0.0.1", () => {
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      onward.write(head);
      onward.pipe(client).pipe(onward);
    });
    const drop = (): void => {
      onward.destroy();
      client.destroy();
    };
    onward.on("error", drop);
    client.on("error", drop);
    client.on("close", drop);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, "close");
  });
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the proxy has no port");
  return { url: `http://127.0.0.1:${address.port}`, seen };
}
