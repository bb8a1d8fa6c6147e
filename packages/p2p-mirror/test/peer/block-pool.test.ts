import { joinParts } from "@p2p-mirror/shared";
import t from "tap";
import { BLOCK_BYTES, BlockPool } from "../../src/peer/block-pool.ts";

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
  "a block that is not full yet stays with its filler, and foreign memory is ignored",
  async (t) => {
    const pool = new BlockPool();
    const filler = pool.filler();
    const parts: Buffer[] = [];
    filler.copy(Buffer.alloc(1000), (part) => parts.push(part));
    for (const part of parts.splice(0)) pool.recycle(part);
    filler.copy(Buffer.alloc(1000), (part) => parts.push(part));
    t.not(filled(pool, 1)[0]?.buffer, parts[0]?.buffer);
    pool.recycle(Buffer.allocUnsafeSlow(BLOCK_BYTES));
    t.equal(filled(pool, BLOCK_BYTES).length, 1);
  },
);
