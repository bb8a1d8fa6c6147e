import t from "tap";
import { digestOf } from "@p2p-mirror/shared";
import { CutMemory } from "../../src/http/cut-memory.ts";

const digest = (n: number) => digestOf(Buffer.from(String(n)));

await t.test("rule 0.3: a cut is remembered for 30 s, counted from the last one", async (t) => {
  let now = 1_000;
  const memory = new CutMemory(undefined, () => now);
  memory.remember(digest(1));
  now += 20_000;
  t.ok(memory.has(digest(1)));
  t.notOk(memory.has(digest(2)));
  memory.remember(digest(1));
  now += 29_999;
  t.ok(memory.has(digest(1)), "to the end");
  now += 2;
  t.notOk(memory.has(digest(1)), "and not longer");
});

await t.test("a whole body ends the memory at once", async (t) => {
  const memory = new CutMemory(30_000);
  memory.remember(digest(1));
  memory.remember(digest(2));
  memory.forget(digest(1));
  t.notOk(memory.has(digest(1)));
  t.ok(memory.has(digest(2)));
});

await t.test("it is bounded, and drops the oldest first", async (t) => {
  const memory = new CutMemory(30_000);
  for (let n = 0; n < 5_000; n++) memory.remember(digest(n));
  t.notOk(memory.has(digest(0)));
  t.ok(memory.has(digest(4_999)));
  const held = Array.from({ length: 5_000 }, (_, n) => memory.has(digest(n))).filter(Boolean).length;
  t.equal(held, 4_096);
});
