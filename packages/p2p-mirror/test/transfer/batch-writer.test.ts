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

await t.test(
  "bytes that somebody waits for are written at once, or as soon as a write before them is over",
  async (t) => {
    const piece = 1_000;
    const writes: { from: number; to: number; done: () => void }[] = [];
    const writer = new BatchWriter(
      0,
      (offset, chunks) => {
        const { promise, resolve } = Promise.withResolvers<void>();
        writes.push({ from: offset, to: offset + Buffer.concat([...chunks]).length, done: resolve });
        return promise;
      },
      (start, end) => Math.floor(start / piece) < Math.floor(end / piece),
    );
    const written = (): number[][] => writes.map(({ from, to }) => [from, to]);
    void writer.add(Buffer.alloc(700));
    t.same(written(), [], "a piece is not whole");
    void writer.add(Buffer.alloc(700));
    t.same(written(), [[0, 1_400]]);
    t.equal(writer.add(Buffer.alloc(700)), undefined, "nobody is held up");
    t.equal(writes.length, 1, "one write at a time");
    writes[0]?.done();
    await new Promise(setImmediate);
    t.same(written().slice(1), [[1_400, 2_100]]);
    void writer.add(Buffer.alloc(100));
    writes[1]?.done();
    await new Promise(setImmediate);
    t.equal(writes.length, 2, "no piece is whole by these");
    const end = writer.end();
    await new Promise(setImmediate);
    writes[2]?.done();
    await end;
    t.same(written().slice(2), [[2_100, 2_200]]);
  },
);
