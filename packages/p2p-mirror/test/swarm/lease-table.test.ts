import t from "tap";
import type { LeaseTable } from "../../src/swarm/lease-table.ts";
import { LeaseBench } from "./lease-bench.ts";
import { MIB } from "./rig.ts";

const disjoint = (table: LeaseTable): boolean => {
  const runs = table.all.toSorted((a, b) => a.first - b.first);
  return runs.every((run, nth) => nth === 0 || (runs[nth - 1]?.end ?? 0) <= run.first);
};

await t.test("a lone member gets the whole blob in one lease, at once", (t) => {
  const bench = new LeaseBench(100 * MIB);
  bench.enter("one");
  t.match(bench.table.leasesOf("one"), [{ first: 0, end: bench.geometry.count }]);
  t.end();
});

await t.test(
  "when a second member comes, the first keeps a run at the front and the second gets the next",
  (t) => {
    const bench = new LeaseBench(1024 * MIB);
    bench.enter("one");
    bench.enter("two");
    const [[first], [second]] = [bench.table.leasesOf("one"), bench.table.leasesOf("two")];
    if (first === undefined || second === undefined) throw new Error("both have a lease");
    t.equal(first.first, 0);
    t.equal(second.first, first.end, "right behind");
    for (const lease of [first, second]) {
      t.ok(
        bench.bytes(lease) >= 8 * MIB && bench.bytes(lease) <= 24 * MIB,
        `${bench.bytes(lease) / MIB} MiB`,
      );
    }
    t.end();
  },
);

await t.test("leases never overlap, are taken lowest first, and shrink towards the end", (t) => {
  const bench = new LeaseBench(256 * MIB);
  const names = ["a", "b", "c", "d", "e"];
  for (const name of names) bench.enter(name);
  const sizes: number[] = [];
  const seen = new Set<number>();
  for (let step = 0; step < 5_000 && !bench.complete; step += 1) {
    bench.fetch(50, Object.fromEntries(names.map((name, nth) => [name, (nth + 1) * 2 * MIB])));
    t.ok(disjoint(bench.table), `step ${step}`);
    for (const lease of bench.table.all) if (!seen.has(lease.id)) sizes.push(bench.bytes(lease));
    for (const lease of bench.table.all) seen.add(lease.id);
  }
  t.ok(bench.complete, "all is fetched");
  t.equal(bench.table.all.length, 0, "no lease is left");
  const total = 256 * MIB;
  t.ok(bench.now <= (total / (30 * MIB)) * 1_000 * 1.08, `all were busy to the end: ${bench.now} ms`);
  t.ok(Math.max(...sizes.slice(-5)) <= 4 * MIB, "small ones at the end");
  t.ok(Math.max(...sizes) <= 16 * MIB);
  t.end();
});

await t.test("at most maxFetchers members hold leases at a time", (t) => {
  const bench = new LeaseBench(512 * MIB, 3);
  for (let nth = 0; nth < 20; nth += 1) bench.enter(`member ${nth}`);
  for (let step = 0; step < 100; step += 1) {
    t.ok(new Set(bench.table.all.map((lease) => lease.holder)).size <= 3);
    bench.fetch(100, Object.fromEntries(bench.table.all.map(({ holder }) => [holder, 4 * MIB])));
  }
  t.end();
});

await t.test("a lease without progress for 2 s is another's, while others get bytes", (t) => {
  const bench = new LeaseBench(256 * MIB);
  for (const name of ["dead", "b", "c"]) bench.enter(name);
  const [lost] = bench.table.leasesOf("dead");
  t.equal(lost?.first, 0);
  bench.fetch(1_000, { b: 4 * MIB, c: 4 * MIB });
  t.match(bench.table.leasesOf("dead"), [{ first: 0 }], "not after 1 s");
  bench.fetch(1_100, { b: 4 * MIB, c: 4 * MIB });
  t.equal(bench.table.leasesOf("dead").length, 0, "after 2.1 s");
  while (bench.now < 20_000 && bench.table.all.every((lease) => lease.first !== 0)) {
    bench.fetch(100, { b: 4 * MIB, c: 4 * MIB });
  }
  t.ok(bench.now < 6_000, `piece 0 is leased again after ${bench.now} ms`);
  t.end();
});

await t.test("where pieces are slow a lease may be silent for the time of half a piece", (t) => {
  const bench = new LeaseBench(16 * MIB);
  for (const id of ["a", "b", "c"]) bench.enter(id);
  const rate = bench.geometry.pieceSize / 12;
  for (let ms = 0; ms < 6_000; ms += 2_000) bench.fetch(2_000, { a: rate, b: rate, c: rate });
  const [lease] = bench.table.leasesOf("a");
  t.ok(lease, "a has one");
  for (let ms = 0; ms < 5_000; ms += 1_000) bench.fetch(1_000, { b: rate, c: rate });
  t.equal(bench.table.leasesOf("a")[0]?.id, lease?.id, "after 5 s of silence");
  for (let ms = 0; ms < 2_000; ms += 1_000) bench.fetch(1_000, { b: rate, c: rate });
  t.not(bench.table.leasesOf("a")[0]?.id, lease?.id, "after 7 s, where a piece takes 12");
  t.end();
});

await t.test("leases that lapse without a byte for anybody: one at a time, until some are brought", (t) => {
  const bench = new LeaseBench(512 * MIB);
  const names = Array.from({ length: 8 }, (_, nth) => `m${nth}`);
  for (const name of names) bench.enter(name);
  const holders = (): number => new Set(bench.table.all.map(({ holder }) => holder)).size;
  t.equal(holders(), 8);
  while (holders() > 1 && bench.now < 10_000) bench.fetch(100, {});
  t.ok(bench.now <= 4_100, `one after ${bench.now} ms`);
  while (bench.now < 10_000) {
    bench.fetch(100, {});
    t.ok(holders() <= 1);
  }
  const began = bench.now;
  const all = Object.fromEntries(names.map((name) => [name, 2 * MIB]));
  while (!bench.complete && holders() < 8) bench.fetch(250, all);
  t.equal(holders(), 8, `8 again ${bench.now - began} ms after upstream is back`);
  t.end();
});

await t.test("upstream that is slow for everybody costs nobody the lease, for 4 s", (t) => {
  const bench = new LeaseBench(64 * MIB);
  for (const name of ["a", "b"]) bench.enter(name);
  const before = bench.table.all;
  bench.fetch(3_900, {});
  t.same(bench.table.all, before);
  bench.fetch(200, {});
  t.not(bench.table.all.find(({ first }) => first === 0)?.holder, "a", "then another may try");
  t.end();
});

await t.test("a lone member never loses its lease for being slow", (t) => {
  const bench = new LeaseBench(64 * MIB);
  bench.enter("one");
  bench.fetch(60_000, {});
  t.match(bench.table.leasesOf("one"), [{ first: 0, end: bench.geometry.count }]);
  t.end();
});

await t.test("what was fetched of a lapsed lease is not leased again", (t) => {
  const bench = new LeaseBench(256 * MIB);
  for (const name of ["slow", "b"]) bench.enter(name);
  bench.fetch(1_000, { slow: 3 * MIB, b: 3 * MIB });
  const had = new Set(bench.present);
  let lapsed = false;
  for (let step = 0; step < 100; step += 1) {
    bench.fetch(100, { b: 3 * MIB });
    lapsed ||= bench.table.leasesOf("slow").length === 0;
    if (!lapsed) continue;
    for (const lease of bench.table.all)
      for (const piece of had) t.notOk(piece >= lease.first && piece < lease.end);
  }
  t.ok(lapsed);
  t.end();
});

await t.test(
  "a holder at 1/20 of the others' rate loses all but the piece under way, and gets no more",
  (t) => {
    const bench = new LeaseBench(512 * MIB);
    const rates = { slow: 0.2 * MIB, b: 4 * MIB, c: 4 * MIB, d: 4 * MIB };
    for (const name of Object.keys(rates)) bench.enter(name);
    t.match(bench.table.leasesOf("slow"), [{ first: 0 }]);
    for (let step = 0; step < 25; step += 1) bench.fetch(100, rates);
    const [left] = bench.table.leasesOf("slow");
    t.ok(left === undefined || left.end - left.first <= 1, "after 2.5 s");
    for (let step = 0; step < 1_000 && !bench.complete; step += 1) bench.fetch(100, rates);
    t.ok(bench.complete);
    t.ok(bench.now <= (512 / 12) * 1_000 * 1.1, `the others do it alone: ${bench.now} ms`);
    t.end();
  },
);

await t.test(
  "a holder that has become slow keeps the piece that it will have before an idle one could",
  (t) => {
    for (const [goodFor, kept] of [
      [8_000, true],
      [5_000, false],
    ] as const) {
      const bench = new LeaseBench(64 * MIB, 4);
      const usual = bench.geometry.length(0) / 10;
      const others = { b: usual, c: usual, d: usual };
      for (const name of ["slow", "b", "c", "d", "idle"]) bench.enter(name);
      while (bench.now < goodFor) bench.fetch(500, { ...others, slow: usual });
      while (bench.now < goodFor + 4_000) bench.fetch(500, { ...others, slow: usual / 5 });
      t.match(bench.table.leasesOf("slow"), kept ? [{ first: 0, end: 1 }] : [], `${goodFor / 100} % of it`);
      t.equal(bench.table.leasesOf("slow").length, kept ? 1 : 0);
    }
    t.end();
  },
);

await t.test("the last piece is begun anew by who has nothing to do and would have it much sooner", (t) => {
  for (const [share, kept] of [
    [0.3, true],
    [0.15, false],
  ] as const) {
    const bench = new LeaseBench(256 * 1024);
    t.equal(bench.geometry.count, 2);
    for (const [first, name] of ["slow", "b"].entries()) {
      const held = [{ id: first + 1, first, end: first + 1 }];
      bench.table.enter(name, { zone: "", denied: false, held }, bench.now);
    }
    const piece = bench.geometry.length(0);
    for (let ms = 0; ms < 2_250; ms += 250) bench.fetch(250, { slow: share * piece, b: piece / 2 });
    t.match(bench.table.all, [{ holder: kept ? "slow" : "b", first: 0, end: 1 }], `${share} pieces a second`);
  }
  t.end();
});

await t.test("a member that upstream does not let in gets no lease any more; another takes its", (t) => {
  const bench = new LeaseBench(64 * MIB);
  bench.enter("denied");
  bench.enter("b");
  const [lease] = bench.table.leasesOf("denied");
  t.equal(bench.table.fetchers, 2);
  bench.table.handBack("denied", lease?.id ?? 0, { kind: "unauthorized" }, bench.now);
  bench.table.assign(bench.now);
  t.equal(bench.table.fetchers, 1);
  t.equal(bench.table.leasesOf("denied").length, 0);
  for (let step = 0; step < 1_000 && !bench.complete; step += 1) {
    bench.fetch(100, { b: 4 * MIB, denied: 4 * MIB });
    t.equal(bench.table.leasesOf("denied").length, 0);
  }
  t.ok(bench.complete);
  t.end();
});

await t.test("when upstream lets nobody in, nobody has a lease, and that can be seen", (t) => {
  const bench = new LeaseBench(64 * MIB);
  for (const name of ["a", "b"]) bench.enter(name);
  for (const { id, holder } of bench.table.all) {
    bench.table.handBack(holder, id, { kind: "unauthorized" }, bench.now);
  }
  bench.table.assign(bench.now);
  t.equal(bench.table.fetchers, 0);
  t.same(bench.table.all, []);
  bench.enter("with other credentials");
  t.match(bench.table.leasesOf("with other credentials"), [{ first: 0, end: bench.geometry.count }]);
  t.end();
});

await t.test("Retry-After pauses all granting, then fewer fetch at a time until it goes well", (t) => {
  const bench = new LeaseBench(512 * MIB, 4);
  const names = ["a", "b", "c", "d"];
  for (const name of names) bench.enter(name);
  for (const { id, holder } of bench.table.all) {
    bench.table.handBack(holder, id, { kind: "rate-limited", retryAfterMs: 5_000 }, bench.now);
  }
  bench.table.assign(bench.now);
  t.same(bench.table.all, []);
  t.equal(bench.table.pausedMs(bench.now), 5_000);
  bench.fetch(4_900, {});
  t.same(bench.table.all, [], "still paused");
  bench.fetch(200, {});
  t.equal(new Set(bench.table.all.map(({ holder }) => holder)).size, 1, "one tries");
  const rates = Object.fromEntries(names.map((name) => [name, 8 * MIB]));
  for (let step = 0; step < 100; step += 1) bench.fetch(100, rates);
  t.equal(new Set(bench.table.all.map(({ holder }) => holder)).size, 4, "all again");
  t.end();
});

await t.test("a Retry-After of a day holds all up for ten seconds", (t) => {
  const bench = new LeaseBench(64 * MIB);
  bench.enter("a");
  const [lease] = bench.table.leasesOf("a");
  bench.table.handBack("a", lease?.id ?? 0, { kind: "rate-limited", retryAfterMs: 86_400_000 }, bench.now);
  t.equal(bench.table.pausedMs(bench.now), 10_000);
  t.end();
});

await t.test("without ranges one member holds the whole, and when it fails another does", (t) => {
  const bench = new LeaseBench(64 * MIB);
  for (const name of ["a", "b", "c"]) bench.enter(name);
  const [lease] = bench.table.leasesOf("b");
  const whole = { first: 0, end: bench.geometry.count };
  bench.table.handBack("b", lease?.id ?? 0, { kind: "unranged" }, bench.now);
  bench.table.assign(bench.now);
  t.match(bench.table.all, [{ holder: "b", ...whole }], "whoever found out");
  const [late] = bench.table.leasesOf("b");
  bench.table.handBack("a", 1, { kind: "unranged" }, bench.now);
  t.match(bench.table.all, [{ holder: "b", ...whole }], "others find it out, too, and change nothing");
  bench.fetch(1_000, { b: 4 * MIB });
  bench.table.handBack("b", late?.id ?? 0, { kind: "failed" }, bench.now);
  bench.table.assign(bench.now);
  t.match(bench.table.all, [{ holder: "a", ...whole }], "from the beginning: there is no other way");
  t.end();
});

await t.test(
  "a member that fails rests longer each time, two seconds at most; others take over at once",
  (t) => {
    const bench = new LeaseBench(64 * MIB);
    bench.enter("a");
    const failAndWait = (): number => {
      const [lease] = bench.table.leasesOf("a");
      bench.table.handBack("a", lease?.id ?? 0, { kind: "failed" }, bench.now);
      const from = bench.now;
      while (bench.table.leasesOf("a").length === 0) bench.fetch(50, {});
      return bench.now - from;
    };
    t.same(
      Array.from({ length: 6 }, () => failAndWait()),
      [500, 1_000, 2_000, 2_000, 2_000, 2_000],
    );
    bench.enter("b");
    const [lease] = bench.table.leasesOf("a");
    bench.table.handBack("a", lease?.id ?? 0, { kind: "failed" }, bench.now);
    bench.table.assign(bench.now);
    t.equal(bench.table.all.find(({ first }) => first === 0)?.holder, undefined, "b is busy already");
    bench.fetch(10, { b: 1_000 * MIB });
    t.equal(bench.table.all.find(({ first }) => first === 0)?.holder, "b");
    t.end();
  },
);

await t.test("a member that leaves gives back what it held", (t) => {
  const bench = new LeaseBench(64 * MIB);
  for (const name of ["a", "b"]) bench.enter(name);
  bench.table.leave("a");
  for (let step = 0; step < 100 && !bench.complete; step += 1) bench.fetch(100, { b: 32 * MIB });
  t.ok(bench.complete, "the other has fetched it");
  t.end();
});

await t.test("leases of another coordinator are kept as they are, unless they are another's here", (t) => {
  const bench = new LeaseBench(256 * MIB);
  const end = bench.geometry.count;
  bench.table.enter("a", { zone: "", denied: false, held: [{ id: 11, first: 10, end: 14 }] }, 0);
  bench.table.enter("b", { zone: "", denied: false, held: [{ id: 12, first: 13, end: 16 }] }, 0);
  bench.table.enter("c", { zone: "", denied: false, held: [{ id: 13, first: 7, end: 12 }] }, 0);
  bench.table.enter("d", { zone: "", denied: false, held: [{ id: 14, first: end, end: end + 5 }] }, 0);
  t.match(bench.table.leasesOf("a"), [{ id: 11, first: 10, end: 14 }]);
  t.same(bench.table.leasesOf("b"), [], "begins inside another's");
  t.match(bench.table.leasesOf("c"), [{ id: 13, first: 7, end: 10 }], "up to another's");
  t.same(bench.table.leasesOf("d"), [], "no such pieces");
  t.ok(disjoint(bench.table));
  t.end();
});

await t.test("pieces that come from elsewhere are taken out of a lease", (t) => {
  const bench = new LeaseBench(256 * MIB);
  bench.enter("a");
  for (let piece = 40; piece < 50; piece += 1) bench.present.add(piece);
  t.same(bench.table.assign(0), ["a"], "its holder is told");
  t.match(bench.table.leasesOf("a")[0], { first: 0, end: 40 });
  t.end();
});

await t.test("progress of somebody else's lease, or backwards, changes nothing", (t) => {
  const bench = new LeaseBench(64 * MIB);
  for (const name of ["a", "b"]) bench.enter(name);
  const [lease] = bench.table.leasesOf("a");
  bench.now = 1_500;
  bench.table.progress("a", lease?.id ?? 0, MIB, 100);
  bench.table.progress("b", lease?.id ?? 0, 5 * MIB, bench.now);
  bench.table.progress("a", lease?.id ?? 0, MIB, bench.now);
  bench.table.progress("a", lease?.id ?? 0, Number.NaN, bench.now);
  const [other] = bench.table.leasesOf("b");
  bench.table.progress("b", other?.id ?? 0, 5 * MIB, 2_050);
  bench.now = 2_200;
  bench.table.assign(bench.now);
  t.same(bench.table.leasesOf("a"), [], "it was renewed at 100 ms for the last time");
  t.end();
});

await t.test("when nothing is free, an idle member takes the far half of what would last longest", (t) => {
  const bench = new LeaseBench(16 * MIB);
  bench.enter("a");
  bench.enter("b");
  const [lease] = bench.table.leasesOf("a");
  if (lease === undefined) throw new Error("no lease");
  for (let piece = lease.end; piece < bench.geometry.count; piece += 1) bench.present.add(piece);
  t.same(bench.table.assign(0).toSorted(), ["a", "b"], "both are told");
  const [[kept], [taken]] = [bench.table.leasesOf("a"), bench.table.leasesOf("b")];
  if (kept === undefined || taken === undefined) throw new Error("both have a lease");
  t.equal(kept.first, lease.first);
  t.equal(kept.end, taken.first);
  t.equal(taken.end, lease.end);
  t.ok(Math.abs(bench.bytes(kept) - bench.bytes(taken)) <= 2 * bench.geometry.pieceSize, "about half");
  t.end();
});

await t.test("what a fast holder has fetched since its last report is not given to who comes", (t) => {
  const bench = new LeaseBench(1024 * MIB);
  bench.enter("a");
  bench.fetch(500, { a: 100 * MIB });
  bench.fetch(500, { a: 100 * MIB });
  bench.now += 450;
  bench.enter("b");
  const [[kept], [given]] = [bench.table.leasesOf("a"), bench.table.leasesOf("b")];
  const there = 144 * MIB;
  t.ok(bench.geometry.start(given?.first ?? 0) > there, "it is ahead of where the other one is by now");
  t.ok(bench.geometry.end((kept?.end ?? 0) - 1) > there);
  t.end();
});
