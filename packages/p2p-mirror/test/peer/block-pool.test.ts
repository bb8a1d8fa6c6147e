import { BLOCK_BYTES, BlockPool, joinParts } from "@p2p-mirror/shared";
import t from "tap";

const filled = (pool: BlockPool, bytes: number): Buffer[] => {
  const parts: Buffer[] = [];
  pool.filler().copy(Buffer.alloc(bytes, 7), (part) => parts.push(part));
  return parts;
};

await t.test("bytes are copied into blocks; what lies side by side is one chunk again", async (t) => {
  const pool = new BlockPool();
  const filler = pool.filler();
  const parts: Buffer[] = [];
  const bytes = Buffer.from(Array.from({ length: 2 * BLOCK_BYTES + 1000 }, (_, at) => at % 251));
  for (let at = 0; at < bytes.length; at += 16_000) {
    filler.copy(bytes.subarray(at, at + 16_000), (part) => parts.push(part));
  }
  t.ok(Buffer.concat(parts).equals(bytes));
  const joined = joinParts(parts);
  t.strictSame(
    joined.map((one) => one.length),
    [BLOCK_BYTES, BLOCK_BYTES, 1000],
  );
  t.ok(Buffer.concat(joined).equals(bytes));
});

await t.test(
  "a block is used again when all its bytes came back, in whatever parts, and not before",
  async (t) => {
    const pool = new BlockPool();
    const [block] = filled(pool, BLOCK_BYTES);
    if (block === undefined) throw new Error("there is a block");
    pool.recycle(block.subarray(0, 1000));
    t.not(filled(pool, 1)[0]?.buffer, block.buffer, "most of it is still in use");
    pool.recycle(block.subarray(1000));
    t.equal(filled(pool, 1)[0]?.buffer, block.buffer);
  },
);

await t.test(
  "a block that is not full goes back when all that was put into it did, and foreign memory is ignored",
  async (t) => {
    const pool = new BlockPool();
    const filler = pool.filler();
    const parts: Buffer[] = [];
    const put = (bytes: number): void => filler.copy(Buffer.alloc(bytes), (part) => parts.push(part));
    put(1000);
    put(1000);
    const [first, second] = parts;
    if (first === undefined || second === undefined) throw new Error("there are two parts");
    t.equal(second.buffer, first.buffer);
    pool.recycle(first);
    const other = filled(pool, 1)[0];
    t.not(other?.buffer, first.buffer, "half of it is still in use");
    pool.recycle(second);
    t.equal(filled(pool, 1)[0]?.buffer, first.buffer, "another filler has it");
    put(1000);
    t.not(parts[2]?.buffer, first.buffer, "and the first filler does not write into it any more");
    pool.recycle(Buffer.allocUnsafeSlow(BLOCK_BYTES));
    t.equal(filled(pool, BLOCK_BYTES).length, 1);
  },
);

await t.test("heads before bytes of bodies come back with these, and only those before them", async (t) => {
  const pool = new BlockPool();
  const [block] = filled(pool, BLOCK_BYTES);
  if (block === undefined) throw new Error("there is a block");
  const bodies = [block.subarray(300, 100_000), block.subarray(100_300, BLOCK_BYTES - 500)];
  for (const body of bodies) {
    // In two parts, as a socket gives it.
    pool.claim(body.subarray(0, 5000));
    pool.claim(body.subarray(5000));
  }
  for (const body of bodies) pool.recycle(body);
  t.not(filled(pool, 1)[0]?.buffer, block.buffer, "the head at the end is not known to be parsed");

  const [other] = filled(pool, BLOCK_BYTES);
  if (other === undefined) throw new Error("there is another");
  pool.claim(other.subarray(300, 100_000));
  pool.recycle(other.subarray(300, 100_000));
  pool.claim(other.subarray(100_300));
  t.not(filled(pool, 1)[0]?.buffer, other.buffer, "somebody still looks at the second body");
  pool.recycle(other.subarray(100_300));
  t.equal(filled(pool, 1)[0]?.buffer, other.buffer);
});
