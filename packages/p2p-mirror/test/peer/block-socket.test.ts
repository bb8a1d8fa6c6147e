import { once } from "node:events";
import type { OnReadOpts } from "node:net";
import { connect, createServer, type ConnectionOptions, type TLSSocket } from "node:tls";
import { BlockPool, BlockSocket } from "@p2p-mirror/shared";
import t, { type Test } from "tap";
import { newNode } from "./rig.ts";
import { seededBytes } from "../conformance/seeded.ts";

const BYTES = 3 * 1024 * 1024 + 17;

async function connected(
  t: Test,
  pool: BlockPool,
  serve: (socket: TLSSocket) => void,
): Promise<{ socket: BlockSocket; tls: TLSSocket }> {
  const node = await newNode();
  const server = createServer({ ...node.tls.serverOptions(), requestCert: false }, (socket) => {
    serve(socket.on("error", () => undefined));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const socket = new BlockSocket(pool);
  const options: ConnectionOptions & { onread: OnReadOpts } = {
    port: address.port,
    host: "127.0.0.1",
    rejectUnauthorized: false,
    onread: socket.onread,
  };
  const tls = connect(options);
  socket.attach(tls);
  t.teardown(async () => {
    socket.destroy();
    server.close();
    await once(server, "close");
  });
  await once(tls, "secureConnect");
  return { socket, tls };
}

/** Reads as undici does: `read()` until nothing is there, at each `readable`. */
function readAll(socket: BlockSocket, take: (part: Buffer) => void): Promise<unknown> {
  const drain = (): void => {
    for (let part = socket.read(); part !== null; part = socket.read()) take(part);
  };
  socket.on("readable", drain);
  return new Promise((resolve) => void socket.once("end", () => resolve(undefined)).once("error", resolve));
}

await t.test("every byte arrives once and in order, in few parts, from blocks that go round", async (t) => {
  const bytes = seededBytes("block socket", BYTES);
  const pool = new BlockPool();
  const { socket } = await connected(t, pool, (server) => server.end(bytes));
  const memory = new Set<ArrayBufferLike>();
  const copies: Buffer[] = [];
  const error = await readAll(socket, (part) => {
    memory.add(part.buffer);
    copies.push(Buffer.from(part));
    pool.recycle(part);
  });
  t.equal(error, undefined);
  t.ok(Buffer.concat(copies).equals(bytes));
  t.ok(memory.size < 6, `${memory.size} blocks for ${BYTES} bytes`);
  t.ok(copies.length < BYTES / 16_384, `${copies.length} parts, fewer than there are TLS records`);
});

await t.test(
  "a long body that trickles is gathered, its first bytes and its last ones are not held",
  async (t) => {
    const RECORD = 4096;
    const bytes = seededBytes("block socket trickle", BYTES);
    const pool = new BlockPool();
    const { socket } = await connected(t, pool, (server) => {
      const next = (at: number): void => {
        // The connection stays open: nothing but the gathering's own end brings the last bytes.
        if (at >= BYTES || server.destroyed) return;
        server.write(bytes.subarray(at, at + RECORD), () => setImmediate(next, at + RECORD));
      };
      next(0);
    });
    const copies: Buffer[] = [];
    let received = 0;
    await new Promise<void>((resolve) => {
      void readAll(socket, (part) => {
        received += part.byteLength;
        copies.push(Buffer.from(part));
        pool.recycle(part);
        if (received === BYTES) resolve();
      });
    });
    t.ok(Buffer.concat(copies).equals(bytes));
    const late = copies.slice(-8).reduce((sum, one) => sum + one.byteLength, 0) / 8;
    const [first] = copies;
    t.ok((first?.byteLength ?? Infinity) <= 64 * 1024, `${first?.byteLength} bytes in the first part`);
    t.ok(late > 8 * RECORD, `${late} bytes in each of the last parts: many records`);
  },
);

await t.test("a broken connection: what came before it is read first, then the error", async (t) => {
  const { socket } = await connected(t, new BlockPool(), (server) => {
    server.write(Buffer.alloc(50_000), () => {
      // Below TLS: no close_notify, a reset. After the bytes are read on the other side.
      setTimeout(() => Reflect.get(server, "_parent").resetAndDestroy(), 50);
    });
  });
  let got = 0;
  const error = await readAll(socket, (part) => (got += part.length));
  t.equal(got, 50_000);
  t.ok(error instanceof Error);
});
