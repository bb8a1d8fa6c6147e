import t from "tap";
import { digestOf } from "@p2p-mirror/shared";
import { CutMemory } from "../../src/http/cut-memory.ts";

const digest = (n: number) => digestOf(Buffer.from(String(n)));

await t.test("rule 0.3: a cut is remembered for 30 s, counted from the last one", async (t) => {
  let now = 1_000;
  const memory = new CutMemory(undefined, () => now);
  memory.remember(digest(1), 5);
  now += 20_000;
  t.ok(memory.declines(digest(1), 5));
  t.notOk(memory.declines(digest(2), 5));
  memory.remember(digest(1), 5);
  now += 29_999;
  t.ok(memory.declines(digest(1), 5), "to the end");
  now += 2;
  t.notOk(memory.declines(digest(1), 5), "and not longer");
});

await t.test(
  "a body that is asked for from its beginning is one that is tried anew, unless nothing came of it",
  async (t) => {
    const memory = new CutMemory(30_000);
    memory.remember(digest(1), 5);
    t.notOk(memory.declines(digest(1), 0));
    memory.remember(digest(1), 0);
    t.ok(memory.declines(digest(1), 0));
    t.ok(memory.declines(digest(1), 5));
  },
);

await t.test("a whole body ends the memory at once", async (t) => {
  const memory = new CutMemory(30_000);
  memory.remember(digest(1), 5);
  memory.remember(digest(2), 5);
  memory.forget(digest(1));
  t.notOk(memory.declines(digest(1), 5));
  t.ok(memory.declines(digest(2), 5));
});

await t.test("it is bounded, and drops the oldest first", async (t) => {
  const memory = new CutMemory(30_000);
  for (let n = 0; n < 5_000; n++) memory.remember(digest(n), 5);
  t.notOk(memory.declines(digest(0), 5));
  t.ok(memory.declines(digest(4_999), 5));
  const held = Array.from({ length: 5_000 }, (_, n) => memory.declines(digest(n), 5)).filter(Boolean).length;
  t.equal(held, 4_096);
});
