import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";
import type { Peer } from "../../src/routing/router.ts";
import { newNode, type TestNode } from "./rig.ts";

interface Test {
  teardown(fn: () => Promise<void>): void;
}

interface Listening {
  readonly peer: Peer;
  /** Connections accepted so far. */
  readonly sockets: Socket[];
}

type RawServer = ReturnType<typeof createServer>;

async function listen(test: Test, server: RawServer, id: string): Promise<Listening> {
  const sockets: Socket[] = [];
  server.on("connection", (socket: Socket) => {
    sockets.push(socket.on("error", () => undefined));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  test.teardown(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, "close");
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return { peer: { id, host: "127.0.0.1", port: address.port }, sockets };
}

/** A process that takes connections and says nothing, not even TLS. */
export async function mutePeer(test: Test): Promise<Listening> {
  const { identity } = await newNode();
  return listen(test, createServer(), identity.id);
}

/**
 * A member of the cluster that answers as the test wants: `answer` is called for each request head, with the TLS socket
 * and the TCP socket below it.
 */
export async function fakePeer(
  test: Test,
  answer: (socket: TLSSocket, head: string, tcp: Socket | undefined) => void,
  node?: TestNode,
): Promise<Listening & TestNode & { readonly requests: string[] }> {
  const self = node ?? (await newNode());
  const requests: string[] = [];
  const server = createTlsServer({ ...self.tls.serverOptions(), ALPNProtocols: ["http/1.1"] });
  const listening = await listen(test, server, self.identity.id);
  server.on("secureConnection", (socket) => {
    // The TCP socket of this TLS one is the one with the same far end.
    const tcp = listening.sockets.find((one) => one.remotePort === socket.remotePort);
    let head = "";
    socket
      .on("error", () => undefined)
      .on("data", (chunk: Buffer) => {
        head += chunk.toString("latin1");
        for (let end = head.indexOf("\r\n\r\n"); end !== -1; end = head.indexOf("\r\n\r\n")) {
          const request = head.slice(0, end);
          head = head.slice(end + 4);
          requests.push(request);
          answer(socket, request, tcp);
        }
      });
  });
  return { ...listening, ...self, requests };
}

/** The head of an answer with these lines. */
export const head = (status: string, ...lines: string[]): string =>
  [`HTTP/1.1 ${status}`, ...lines, "", ""].join("\r\n");
