import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import t from "tap";
import { until } from "../../../../test/rig/until.ts";
import { startEndpoint } from "./support/endpoint.ts";
import { RawClient, splitAnswer } from "./support/raw-client.ts";

const CHUNK = 512 * 1024;

/** A source that uses its buffers again, and spoils each one the moment it comes back. */
class PoisoningSource extends Readable {
  readonly #bytes: Buffer;
  readonly #free: Buffer[] = [];
  readonly #lent = new Set<Uint8Array>();
  #at = 0;
  allocated = 0;
  recycled = 0;

  constructor(bytes: Buffer) {
    super({ highWaterMark: CHUNK });
    this.#bytes = bytes;
  }

  override _read(): void {
    if (this.#at >= this.#bytes.byteLength) return void this.push(null);
    const free = this.#free.pop();
    if (free === undefined) this.allocated++;
    const buffer = free ?? Buffer.alloc(CHUNK);
    const length = this.#bytes.copy(buffer, 0, this.#at, this.#at + CHUNK);
    this.#at += length;
    const chunk = buffer.subarray(0, length);
    this.#lent.add(chunk);
    this.push(chunk);
  }

  recycle(chunk: Uint8Array): void {
    if (!this.#lent.delete(chunk)) throw new Error("a chunk that is not lent came back");
    chunk.fill(0xdd);
    this.#free.push(Buffer.from(chunk.buffer, chunk.byteOffset, CHUNK));
    this.recycled++;
  }
}

await t.test(
  "chunks go back to their source when the kernel has them, and not a moment before",
  async (t) => {
    const { content, port } = await startEndpoint(t);
    const bytes = randomBytes(32 * CHUNK + 12_345);
    let source: PoisoningSource | undefined;
    const digest = content.addBlob(bytes, "cache", async () => (source = new PoisoningSource(bytes)));
    const client = (await RawClient.open(port)).get(`/v2/a/blobs/${digest}?ns=a.b`);
    // Unread, chunks wait in this process: what is given back too early would arrive spoilt.
    await until("the client holds the source back", async () => {
      const before = source?.recycled;
      await new Promise((resolve) => setTimeout(resolve, 20));
      return before !== undefined && before > 0 && before === source?.recycled;
    });
    client.read();
    t.ok((await client.untilBody(bytes.byteLength)).equals(bytes), "every byte is right");
    client.socket.destroy();
    t.ok(source !== undefined && source.recycled >= 32, `${source?.recycled} chunks came back`);
    t.ok(source !== undefined && source.allocated <= 6, `${source?.allocated} buffers for 33 chunks`);
  },
);

await t.test("a cut behind unread chunks spoils none of them", async (t) => {
  const { content, port, metric } = await startEndpoint(t);
  const bytes = randomBytes(32 * CHUNK);
  let source: PoisoningSource | undefined;
  const digest = content.addBlob(bytes, "cache", async () => (source = new PoisoningSource(bytes)));
  const client = (await RawClient.open(port)).get(`/v2/a/blobs/${digest}?ns=a.b`);
  await until("something was sent", () => (source?.recycled ?? 0) > 0);
  source?.destroy(new Error("the disk is gone"));
  await until("the cut", async () => (await metric("p2p_mirror_http_cuts_total")) === 1);
  client.read();
  t.equal(await client.ended(), "end");
  const { body } = splitAnswer(client.received);
  t.ok(
    body.byteLength > 0 && body.equals(bytes.subarray(0, body.byteLength)),
    `${body.byteLength} right bytes`,
  );
});
