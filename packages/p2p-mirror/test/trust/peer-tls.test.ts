import { once } from "node:events";
import { X509Certificate } from "node:crypto";
import type { Server as NetServer } from "node:net";
import { connect, createServer, type ConnectionOptions, type Server, type TLSSocket } from "node:tls";
import { Agent, fetch as undiciFetch } from "undici";
import { createServer as createHttpsServer } from "node:https";
import t from "tap";
import { clusterSecrets } from "../../src/trust/cluster-secret.ts";
import { newIdentity } from "../../src/trust/identity.ts";
import { createPeerTls, type PeerTls } from "../../src/trust/peer-tls.ts";

const A = Buffer.alloc(32, "a");
const B = Buffer.alloc(32, "b");

function portOf(server: NetServer): number {
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("not listening on a port");
  return address.port;
}

const ca = (tls: PeerTls): string[] => tls.serverOptions().ca;

async function listen(
  tls: PeerTls,
): Promise<{ server: Server; port: number; accepted: TLSSocket[]; close(): Promise<void> }> {
  const accepted: TLSSocket[] = [];
  const server = createServer(tls.serverOptions(), (socket) => {
    accepted.push(socket);
    socket.on("error", () => undefined);
    socket.end(`hello ${tls.peerIdOf(socket)}`);
  });
  server.on("tlsClientError", () => undefined);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const port = portOf(server);
  return {
    server,
    port,
    accepted,
    close: async () => {
      for (const socket of accepted) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** What the server said, or the error's code or message. A TLS 1.3 server refuses the client's certificate only after the client is done. */
async function say(port: number, options: ConnectionOptions): Promise<{ text: string } | { error: Error }> {
  const socket = connect({ ...options, host: "127.0.0.1", port });
  try {
    let text = "";
    for await (const chunk of socket) text += String(chunk);
    return { text };
  } catch (error) {
    if (error instanceof Error) return { error };
    throw error;
  } finally {
    socket.destroy();
  }
}

await t.test("two nodes with the same secret talk, and each knows who the other is", async (t) => {
  const [server, client] = [await newIdentity(), await newIdentity()];
  const secrets = clusterSecrets([A]);
  const listener = await listen(createPeerTls(server, secrets));
  t.teardown(() => listener.close());
  const answer = await say(listener.port, createPeerTls(client, secrets).clientOptions(server.id));
  t.same(answer, { text: `hello ${client.id}` });
  const [socket] = listener.accepted;
  t.equal(socket?.getProtocol(), "TLSv1.3");
  t.equal(socket?.getCipher().name, "TLS_AES_128_GCM_SHA256");
});

await t.test("a node with another secret is refused by both sides", async (t) => {
  const [server, client] = [await newIdentity(), await newIdentity()];
  const listener = await listen(createPeerTls(server, clusterSecrets([A])));
  t.teardown(() => listener.close());
  const options = createPeerTls(client, clusterSecrets([B])).clientOptions(server.id);
  const refused = await say(listener.port, options);
  t.match(refused, { error: Error });
  // A client that trusts anybody is still refused by the server.
  const trusting = await say(listener.port, { ...options, rejectUnauthorized: false });
  t.notMatch(trusting, { text: "hello" });
  t.equal(listener.accepted.length, 0, "no connection got through");
});

await t.test("a client without a certificate is refused", async (t) => {
  const server = await newIdentity();
  const listener = await listen(createPeerTls(server, clusterSecrets([A])));
  t.teardown(() => listener.close());
  t.match(await say(listener.port, { rejectUnauthorized: false }), { error: Error });
  t.equal(listener.accepted.length, 0);
});

await t.test("a member of the cluster that is not the peer that was meant is refused", async (t) => {
  const [server, client, meant] = [await newIdentity(), await newIdentity(), await newIdentity()];
  const secrets = clusterSecrets([A]);
  const listener = await listen(createPeerTls(server, secrets));
  t.teardown(() => listener.close());
  const answer = await say(listener.port, createPeerTls(client, secrets).clientOptions(meant.id));
  t.match(answer, { error: { code: "UNREACHABLE", source: meant.id } });
});

await t.test(
  "secrets rotate node by node: both accepted, then the new one used, then the old one gone",
  async (t) => {
    const [server, client] = [await newIdentity(), await newIdentity()];
    const steps = [
      [[A], [A, B]],
      [
        [A, B],
        [A, B],
      ],
      [
        [B, A],
        [A, B],
      ],
      [
        [B, A],
        [B, A],
      ],
      [[B, A], [B]],
      [[B], [B]],
    ] as const;
    for (const [first, second] of steps) {
      for (const [serving, asking] of [
        [first, second],
        [second, first],
      ] as const) {
        const listener = await listen(createPeerTls(server, clusterSecrets(serving)));
        const answer = await say(
          listener.port,
          createPeerTls(client, clusterSecrets(asking)).clientOptions(server.id),
        );
        await listener.close();
        t.same(answer, { text: `hello ${client.id}` }, `${String(serving)} serves ${String(asking)}`);
      }
    }
  },
);

await t.test("certificates are valid whatever a clock says", async (t) => {
  const options = createPeerTls(await newIdentity(), clusterSecrets([A])).serverOptions();
  for (const pem of [options.cert, ...options.ca]) {
    const certificate = new X509Certificate(pem);
    t.equal(certificate.validFromDate.getTime(), 0);
    t.equal(certificate.validToDate.toISOString(), "9999-12-31T23:59:59.000Z");
  }
});

await t.test("all nodes of a cluster derive the same CA; another secret gives another", async (t) => {
  const [one, two] = [await newIdentity(), await newIdentity()];
  t.same(ca(createPeerTls(one, clusterSecrets([A]))), ca(createPeerTls(two, clusterSecrets([A]))));
  t.not(ca(createPeerTls(one, clusterSecrets([A])))[0], ca(createPeerTls(one, clusterSecrets([B])))[0]);
  const [pem = ""] = ca(createPeerTls(one, clusterSecrets([A])));
  const certificate = new X509Certificate(pem);
  t.ok(certificate.ca);
  t.ok(certificate.verify(certificate.publicKey));
});

await t.test("a session cannot be resumed, so that no connection escapes the identity check", async (t) => {
  const [server, client] = [await newIdentity(), await newIdentity()];
  const secrets = clusterSecrets([A]);
  const listener = await listen(createPeerTls(server, secrets));
  t.teardown(() => listener.close());
  let checks = 0;
  const base = createPeerTls(client, secrets).clientOptions(server.id);
  const options: ConnectionOptions = {
    ...base,
    checkServerIdentity: (...args) => {
      checks += 1;
      return base.checkServerIdentity(...args);
    },
  };
  const sessions: Buffer[] = [];
  for (let i = 0; i < 3; i += 1) {
    const session = sessions.at(-1);
    const socket = connect({
      ...options,
      host: "127.0.0.1",
      port: listener.port,
      ...(session === undefined ? {} : { session }),
    });
    socket.on("session", (one) => sessions.push(one));
    await once(socket, "secureConnect");
    socket.resume();
    await once(socket, "close");
    const own = socket.getSession();
    if (own !== undefined) sessions.push(own);
    t.notOk(socket.isSessionReused());
  }
  t.ok(sessions.length > 0, "there was something to resume with");
  t.equal(checks, 3);
});

await t.test("undici and node:https take the options, keep-alive included", async (t) => {
  const [server, client, other] = [await newIdentity(), await newIdentity(), await newIdentity()];
  const secrets = clusterSecrets([A]);
  const tls = createPeerTls(server, secrets);
  let connections = 0;
  const http = createHttpsServer(tls.serverOptions(), (request, response) => {
    response.end(tls.peerIdOf(request.socket));
  });
  http.on("secureConnection", () => (connections += 1));
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  t.teardown(() => http.close());
  const url = `https://127.0.0.1:${portOf(http)}/`;
  const agent = new Agent({
    connections: 1,
    connect: createPeerTls(client, secrets).clientOptions(server.id),
  });
  t.teardown(() => agent.close());
  for (let i = 0; i < 3; i += 1) {
    const response = await undiciFetch(url, { dispatcher: agent });
    t.equal(await response.text(), client.id);
  }
  t.equal(connections, 1);
  const wrong = new Agent({ connect: createPeerTls(client, secrets).clientOptions(other.id) });
  t.teardown(() => wrong.close());
  await t.rejects(undiciFetch(url, { dispatcher: wrong }), { cause: { code: "UNREACHABLE" } });
});
