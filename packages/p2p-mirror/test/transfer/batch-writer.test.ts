import t from "tap";
import { BatchWriter } from "../../src/transfer/batch-writer.ts";

const BATCH = 512 * 1024;

await t.test(
  "end waits for every write, also when the body fails while a batch waits for a slow disk",
  async (t) => {
    const writes: { offset: number; bytes: number; done: () => void }[] = [];
    let written = 0;
    const writer = new BatchWriter(0, (offset, chunks) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
      writes.push({
        offset,
        bytes,
        done: () => {
          written += bytes;
          resolve();
        },
      });
      return promise;
    });
    t.equal(writer.add(Buffer.alloc(BATCH)), undefined, "the first batch is being written");
    const waits = writer.add(Buffer.alloc(BATCH));
    t.ok(waits instanceof Promise, "the second one waits for it");
    // Nobody waits for that any more: the body has failed.
    const end = writer.end();
    let ended = false;
    void end.then(() => (ended = true));
    writes[0]?.done();
    await waits;
    t.equal(writes.length, 2);
    t.notOk(ended, "a write is under way");
    writes[1]?.done();
    await end;
    t.equal(written, 2 * BATCH);
    t.strictSame(
      writes.map(({ offset, bytes }) => [offset, bytes]),
      [
        [0, BATCH],
        [BATCH, BATCH],
      ],
    );
  },
);

await t.test("after a write that failed nothing is written, and what is left is known", async (t) => {
  const writer = new BatchWriter(0, () => Promise.reject(new Error("the disk is gone")));
  void writer.add(Buffer.alloc(BATCH));
  const rest = Buffer.alloc(17);
  void writer.add(rest);
  await t.rejects(writer.end(), { message: "the disk is gone" });
  t.strictSame(writer.rest, { offset: BATCH, chunks: [rest] });
  t.throws(() => writer.add(rest), { message: "the disk is gone" });
});
