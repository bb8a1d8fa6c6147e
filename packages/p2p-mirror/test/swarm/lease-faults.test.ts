/** Members that bring nothing do not keep the others from bringing it, whatever they did before. */
import t from "tap";
import { LeaseBench } from "./lease-bench.ts";
import { MIB } from "./rig.ts";

const names = Array.from({ length: 8 }, (_, nth) => `m${nth}`);
const ratesOf = (rate: number, dead: readonly string[]): Record<string, number> =>
  Object.fromEntries(names.map((name) => [name, dead.includes(name) ? 0 : rate]));

await t.test("upstream is silent at first, and the first members stay so: others get their turn", (t) => {
  for (const dead of [["m0", "m1"], ["m0", "m1", "m7"], names.slice(0, 5)]) {
    const bench = new LeaseBench(256 * MIB);
    for (const name of names) bench.enter(name);
    while (bench.now < 4_500) bench.fetch(250, {});
    while (!bench.complete && bench.now < 120_000) bench.fetch(250, ratesOf(10 * MIB, dead));
    t.ok(bench.complete && bench.now < 60_000, `${dead.join(", ")} are dead: ${bench.now} ms`);
  }
  t.end();
});

await t.test("after such a silence one slow member does not bring all of it", (t) => {
  const bench = new LeaseBench(256 * MIB);
  for (const name of names) bench.enter(name);
  while (bench.now < 4_500) bench.fetch(250, {});
  const rates = { ...ratesOf(10 * MIB, []), m0: 50_000 };
  while (!bench.complete && bench.now < 120_000) bench.fetch(250, rates);
  t.ok(bench.complete && bench.now < 20_000, `${bench.now} ms`);
  t.end();
});

await t.test("who was fast and fails now does not take the last piece from the only one that works", (t) => {
  const bench = new LeaseBench(512 * MIB);
  for (const name of ["works", "fails"]) bench.enter(name);
  const half = bench.geometry.count / 2;
  while (bench.present.size < 1.8 * half) bench.fetch(250, { works: MIB / 2, fails: 1.7 * MIB });
  const began = bench.now;
  const left = 512 * (1 - bench.present.size / bench.geometry.count);
  while (!bench.complete && bench.now < began + 600_000) {
    for (const { id } of bench.table.leasesOf("fails"))
      bench.table.handBack("fails", id, { kind: "failed" }, bench.now);
    bench.fetch(250, { works: MIB / 2 });
  }
  const seconds = (bench.now - began) / 1_000;
  t.ok(bench.complete && seconds < 1.2 * (left / 0.5), `${seconds} s for ${left} MiB at 0.5 MiB/s`);
  t.end();
});

await t.test("who was slow for a while brings its part of a large blob again", (t) => {
  const bench = new LeaseBench(2048 * MIB);
  for (const name of ["a", "b"]) bench.enter(name);
  while (bench.now < 5_000) bench.fetch(250, { a: 10 * MIB, b: 10 * MIB });
  while (bench.now < 8_000) bench.fetch(250, { a: 10 * MIB, b: MIB / 2 });
  t.equal(bench.table.leasesOf("b").length, 0, "it is slow");
  while (!bench.complete && bench.now < 300_000) bench.fetch(250, { a: 10 * MIB, b: 10 * MIB });
  // Judged once, and for good, 199 s.
  t.ok(bench.complete && bench.now < 140_000, `${bench.now} ms, 102,400 with both all the time`);
  t.end();
});

await t.test("who stays slow is tried again, and that costs the others next to nothing", (t) => {
  const bench = new LeaseBench(2048 * MIB);
  const rates = { slow: MIB / 2, b: 10 * MIB };
  for (const name of Object.keys(rates)) bench.enter(name);
  let tries = 0;
  let had = true;
  while (!bench.complete && bench.now < 300_000) {
    bench.fetch(250, rates);
    const has = bench.table.leasesOf("slow").length > 0;
    if (has && !had) tries += 1;
    had = has;
  }
  t.ok(tries >= 2, `${tries} tries`);
  t.ok(bench.complete && bench.now < 1.03 * 204_800, `${bench.now} ms, 204,800 by the other one alone`);
  t.end();
});

await t.test("who was slow and brings nothing any more is not tried all the time", (t) => {
  const bench = new LeaseBench(4096 * MIB);
  for (const name of ["gone", "b"]) bench.enter(name);
  while (bench.now < 5_000) bench.fetch(250, { gone: MIB / 2, b: 10 * MIB });
  t.equal(bench.table.leasesOf("gone").length, 0, "it is slow");
  const tries = new Set<number>();
  while (bench.now < 305_000) {
    bench.fetch(250, { b: 10 * MIB });
    for (const { id } of bench.table.leasesOf("gone")) tries.add(id);
  }
  t.ok(tries.size >= 2 && tries.size <= 6, `${tries.size} tries in five minutes`);
  t.end();
});

await t.test("a whole stream goes to who was slow long ago only when nobody else is there", (t) => {
  const bench = new LeaseBench(256 * MIB);
  for (const name of ["slow", "a", "b"]) bench.enter(name);
  while (bench.now < 5_000) bench.fetch(250, { slow: MIB / 8, a: 10 * MIB, b: 10 * MIB });
  const id = bench.table.leasesOf("a")[0]?.id ?? 0;
  bench.table.handBack("a", id, { kind: "unranged" }, bench.now);
  bench.fetch(250, {});
  const holder = bench.table.all[0]?.holder ?? "";
  t.not(holder, "slow");
  // Long enough that it would be tried again.
  const [stream] = bench.table.leasesOf(holder);
  while (bench.now < 90_000) {
    bench.now += 250;
    if (stream !== undefined) bench.table.progress(holder, stream.id, (bench.now - 5_000) * 100, bench.now);
    bench.table.assign(bench.now);
  }
  bench.table.leave(holder);
  bench.table.assign(bench.now);
  t.same(
    bench.table.all.map((lease) => lease.holder),
    [holder === "a" ? "b" : "a"],
  );
  t.end();
});
