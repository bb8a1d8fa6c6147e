import t from "tap";
import { Crowd } from "./crowd.ts";
import { TIMES } from "../../src/swarm/times.ts";
import { PieceMap } from "../../src/transfer/pieces.ts";
import { MIB, Rig, type RigNode, type RigOptions } from "./rig.ts";

const UPSTREAM = { rate: 12 * MIB };
const NODE_RATE = 24 * MIB;
const SIZE = 128 * MIB;
const BOUND_MS = (SIZE / UPSTREAM.rate) * 1_000;

async function crowdOf(options: Partial<RigOptions>): Promise<{ rig: Rig; crowd: Crowd; ranked: RigNode[] }> {
  const rig = await new Rig({ nodes: 8, size: SIZE, ...options }).start();
  return { rig, crowd: new Crowd(rig, { upstream: UPSTREAM, nodeRate: NODE_RATE }), ranked: rig.ranked() };
}

const nth = (nodes: readonly RigNode[], at: number): RigNode => {
  const node = nodes[at];
  if (node === undefined) throw new Error(`there are no ${at + 1} nodes`);
  return node;
};

/** Every live member has this coordinator. */
const allAt = (crowd: Crowd, node: RigNode): boolean =>
  crowd.live.every(({ member }) => member.coordinator?.id === node.id);

const leased = (crowd: Crowd): number =>
  crowd.live.reduce((sum, { member }) => sum + member.leases.length, 0);

await t.test(
  "everybody finds the same coordinator, also when it does not want the blob itself",
  async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 3 });
    const coordinator = nth(ranked, 0);
    for (const node of ranked.slice(1)) crowd.start(node);
    await rig.clock.run(100);
    t.ok(allAt(crowd, coordinator));
    t.same(
      [...coordinator.swarm.coordinated(rig.digest)].toSorted(),
      ranked
        .slice(1)
        .map(({ id }) => id)
        .toSorted(),
    );
    t.ok(
      crowd.flights.every(({ member }) => member.neighbours.every(({ peer }) => peer.id !== coordinator.id)),
    );
    t.not(await crowd.run(60_000), undefined, "all finish");
    await rig.close();
  },
);

for (const wants of [true, false]) {
  const who = wants ? "of the members" : "that does not want the blob";
  await t.test(`all connections are reset: the coordinator, one ${who}, has all again at once`, async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 5 });
    const coordinator = nth(ranked, 0);
    for (const node of wants ? ranked : ranked.slice(1)) crowd.start(node);
    const began = rig.clock.now();
    await rig.clock.run(4_000);
    rig.network.reset();
    await rig.clock.run(1);
    t.ok(await rig.clock.run(300, () => allAt(crowd, coordinator)), "all have joined it again");
    const took = await crowd.run(60_000, began);
    if (took === undefined) throw new Error("not all have finished");
    t.ok(took <= BOUND_MS * 1.15 + 500, `${(took / BOUND_MS).toFixed(2)} of the bound`);
    t.ok(crowd.amplification <= 1.02, `upstream ${crowd.amplification.toFixed(3)}`);
    await rig.close();
  });
}

await t.test(
  "connections are reset again and again for a moment: all stay with their coordinator",
  async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 6 });
    for (const node of ranked) crowd.start(node);
    const began = rig.clock.now();
    await rig.clock.run(4_000);
    for (let burst = 0; burst < 5; burst += 1) {
      rig.network.reset();
      await rig.clock.run(60);
    }
    t.ok(await rig.clock.run(500, () => allAt(crowd, nth(ranked, 0))), "all have joined it again");
    const took = await crowd.run(60_000, began);
    if (took === undefined) throw new Error("not all have finished");
    t.ok(took <= BOUND_MS * 1.15 + 1_000, `${(took / BOUND_MS).toFixed(2)} of the bound`);
    t.ok(crowd.amplification <= 1.03, `upstream ${crowd.amplification.toFixed(3)}`);
    await rig.close();
  },
);

for (const how of ["is killed", "is silent"] as const) {
  await t.test(`a coordinator that ${how}: the stand-in has all members and leases within 2 s`, async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 4 });
    const [coordinator, standIn] = [nth(ranked, 0), nth(ranked, 1)];
    for (const node of ranked.slice(1)) crowd.start(node);
    const began = rig.clock.now();
    await rig.clock.run(4_000);
    const before = crowd.upstreamBytes;
    if (how === "is killed") rig.kill(coordinator);
    else {
      coordinator.alive = false;
      rig.network.silence(coordinator.id);
    }
    t.ok(await rig.clock.run(2_000, () => allAt(crowd, standIn)), "all have joined again");
    t.ok(await rig.clock.run(500, () => leased(crowd) > 0), "leases go on");
    const took = await crowd.run(60_000, began);
    if (took === undefined) throw new Error("not all have finished");
    t.ok(took <= BOUND_MS * 1.25 + 2_000, `${(took / BOUND_MS).toFixed(2)} of the bound`);
    t.ok(crowd.amplification <= 1.1, `upstream ${crowd.amplification.toFixed(2)}`);
    t.ok(crowd.upstreamBytes > before);
    t.ok(
      crowd.flights.every(({ member }) => !member.alone),
      "nobody went on alone",
    );
    await rig.close();
  });
}

await t.test(
  "holders keep their leases through it, and nobody is given them although they come last",
  async (t) => {
    let slowIds = new Set<string>();
    const { rig, crowd, ranked } = await crowdOf({
      seed: 16,
      maxUpstreamFetchers: 3,
      latency: (from, to) => (slowIds.has(from) || slowIds.has(to) ? 60 : 1),
    });
    for (const node of ranked.slice(2)) crowd.start(node);
    await rig.clock.run(3_000);
    const before = crowd.live.filter(({ member }) => member.leases.length > 0);
    t.equal(before.length, 3);
    const held = new Map(before.map((flight) => [flight, flight.member.leases.map(({ id }) => id)]));
    slowIds = new Set(before.map(({ node }) => node.id));
    rig.kill(nth(ranked, 0));
    for (let step = 0; step < 60; step += 1) {
      await rig.clock.run(10);
      const runs = crowd.live.flatMap(({ member }) => member.leases).toSorted((a, b) => a.first - b.first);
      for (const [at, run] of runs.entries()) {
        const end = runs[at - 1]?.end ?? 0;
        if (end > run.first) t.fail(`after ${10 * step} ms: ${run.first} is leased twice`);
      }
      if (step !== 25) continue;
      for (const [{ node, member }, ids] of held) {
        const kept = member.leases.filter(({ id }) => ids.includes(id));
        t.ok(kept.length > 0, `${node.id} goes on with what it had`);
      }
    }
    t.not(await crowd.run(60_000), undefined, "all finish");
    t.ok(crowd.amplification <= 1.01, `upstream ${crowd.amplification.toFixed(2)}`);
    await rig.close();
  },
);

await t.test(
  "coordinator and stand-in are both gone: all go on alone within moments, and find the next one",
  async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 5 });
    const started = ranked.slice(2);
    for (const node of started) crowd.start(node);
    const began = rig.clock.now();
    await rig.clock.run(3_000);
    rig.kill(nth(ranked, 0));
    rig.kill(nth(ranked, 1));
    t.ok(
      await rig.clock.run(TIMES.goBack + 400, () => crowd.live.every(({ member }) => member.alone)),
      "alone 400 ms after the connections might have been only broken",
    );
    t.ok(
      await rig.clock.run(1_500, () => allAt(crowd, nth(ranked, 2))),
      "then the third closest coordinates",
    );
    t.ok(crowd.live.every(({ member }) => !member.alone));
    const took = await crowd.run(60_000, began);
    if (took === undefined) throw new Error("not all have finished");
    t.ok(crowd.amplification <= 1.6, `upstream ${crowd.amplification.toFixed(2)}`);
    await rig.close();
  },
);

await t.test(
  "both are dead from the start, and silent: alone after the timeouts, nothing worse",
  async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 6, nodes: 3 });
    for (const node of ranked.slice(0, 2)) rig.network.silence(node.id);
    const flight = crowd.start(nth(ranked, 2));
    // Two dials of 1 s, and the jitter.
    t.ok(await rig.clock.run(2_260, () => flight.member.alone));
    t.ok(await rig.clock.run(60_000, () => flight.complete));
    t.equal(crowd.amplification, 1);
    await rig.close();
  },
);

await t.test("who does not know the closest node is sent there by one that does", async (t) => {
  const { rig, crowd, ranked } = await crowdOf({ seed: 7 });
  const [first, second, third] = [nth(ranked, 0), nth(ranked, 1), nth(ranked, 2)];
  const lost = nth(ranked, 5);
  // It knows the third only; the third knows the second, and the second all.
  for (const unknown of [first, second]) lost.unknown.add(unknown.id);
  third.unknown.add(first.id);
  const flight = crowd.start(lost);
  await rig.clock.run(100);
  t.equal(flight.member.coordinator?.id, first.id, "after two redirects");
  t.match(flight.member.leases, [{ first: 0 }]);
  await rig.close();
});

await t.test("after two redirects a member is taken in, wherever it is", async (t) => {
  const { rig, crowd, ranked } = await crowdOf({ seed: 8 });
  const lost = nth(ranked, 6);
  for (const unknown of ranked.slice(0, 3)) lost.unknown.add(unknown.id);
  nth(ranked, 3).unknown.add(nth(ranked, 0).id).add(nth(ranked, 1).id);
  nth(ranked, 2).unknown.add(nth(ranked, 0).id);
  const flight = crowd.start(lost);
  await rig.clock.run(100);
  t.equal(flight.member.coordinator?.id, nth(ranked, 1).id, "two hops from the fourth");
  await rig.close();
});

await t.test(
  "a coordinator that learns of a closer one hands its members over, leases and all",
  async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 9 });
    const [first, second] = [nth(ranked, 0), nth(ranked, 1)];
    // Half of them do not know the closest node: two swarms.
    const half = ranked.slice(5);
    for (const node of [second, ...half]) node.unknown.add(first.id);
    for (const node of ranked.slice(2)) crowd.start(node);
    const began = rig.clock.now();
    await rig.clock.run(2_500);
    t.same(
      [...second.swarm.coordinated(rig.digest)].toSorted(),
      half.map(({ id }) => id).toSorted(),
      "two swarms",
    );
    for (const node of [second, ...half]) node.unknown.clear();
    t.ok(await rig.clock.run(2_500, () => allAt(crowd, first)), "one swarm");
    t.same(second.swarm.coordinated(rig.digest), []);
    const runs = crowd.live.flatMap(({ member }) => member.leases).toSorted((a, b) => a.first - b.first);
    for (const [at, run] of runs.entries())
      t.ok((runs[at - 1]?.end ?? 0) <= run.first, "no piece is leased twice");
    const took = await crowd.run(60_000, began);
    if (took === undefined) throw new Error("not all have finished");
    // What each half had fetched by itself, at half of the rate, in the first seconds.
    t.ok(crowd.amplification <= 1.35, `upstream ${crowd.amplification.toFixed(2)}`);
    await rig.close();
  },
);

await t.test("a closer node that does not answer is no reason to send members there", async (t) => {
  const { rig, crowd, ranked } = await crowdOf({ seed: 10 });
  const [first, second] = [nth(ranked, 0), nth(ranked, 1)];
  for (const node of ranked.slice(1)) node.unknown.add(first.id);
  rig.network.silence(first.id);
  for (const node of ranked.slice(2)) crowd.start(node);
  await rig.clock.run(1_000);
  for (const node of ranked.slice(1)) node.unknown.clear();
  for (let step = 0; step < 50; step += 1) {
    await rig.clock.run(100);
    t.ok(allAt(crowd, second), `after ${step * 100} ms`);
  }
  await rig.close();
});

await t.test(
  "a member that the coordinator did not answer by mere chance is back with it in a moment",
  async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 14 });
    const [first, unlucky] = [nth(ranked, 0), nth(ranked, 4)];
    for (const node of ranked.slice(2)) crowd.start(node);
    await rig.clock.run(2_000);
    // For longer than it waits for an answer.
    rig.network.part((a, b) => [a, b].every((id) => id === first.id || id === unlucky.id));
    t.ok(await rig.clock.run(2_500, () => crowd.flightOf(unlucky.id)?.member.coordinator?.id !== first.id));
    rig.network.part(() => false);
    t.ok(await rig.clock.run(1_500, () => allAt(crowd, first)));
    await rig.clock.run(50);
    t.same(nth(ranked, 1).swarm.coordinated(rig.digest), [], "the stand-in has nobody left");
    t.not(await crowd.run(60_000), undefined, "all finish");
    t.ok(crowd.amplification <= 1.05, `upstream ${crowd.amplification.toFixed(2)}`);
    await rig.close();
  },
);

await t.test(
  "a member that alone cannot reach the coordinator stays with the stand-in, and finishes",
  async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 15 });
    const [first, unlucky] = [nth(ranked, 0), nth(ranked, 4)];
    rig.network.part((a, b) => [a, b].every((id) => id === first.id || id === unlucky.id));
    for (const node of ranked.slice(2)) crowd.start(node);
    let changes = 0;
    let before: string | undefined;
    for (let step = 0; step < 80; step += 1) {
      await rig.clock.run(100);
      const now = crowd.flightOf(unlucky.id)?.member.coordinator?.id;
      if (now !== undefined && now !== before) changes += 1;
      before = now;
    }
    t.ok(changes <= 3, `it has changed ${changes} times in 8 s`);
    t.not(await crowd.run(60_000), undefined, "all finish");
    t.ok(crowd.amplification <= 2, `upstream ${crowd.amplification.toFixed(2)}`);
    await rig.close();
  },
);

await t.test(
  "the mesh parts in two and heals: both sides finish, upstream gives at most two copies",
  async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 11 });
    for (const node of ranked) crowd.start(node);
    await rig.clock.run(2_000);
    const side = (id: string): boolean => ranked.findIndex((node) => node.id === id) % 2 === 0;
    rig.network.part((a, b) => side(a) !== side(b));
    await rig.clock.run(5_000);
    t.ok(crowd.live.every(({ member }) => member.coordinator !== undefined || member.alone));
    rig.network.part(() => false);
    t.ok(await crowd.run(120_000), "all finish");
    t.ok(crowd.amplification <= 2, `upstream ${crowd.amplification.toFixed(2)}`);
    await rig.close();
  },
);

await t.test("two sizes for one digest are two swarms: one of them was told a wrong one", async (t) => {
  const { rig, ranked } = await crowdOf({ seed: 12 });
  const [a, b] = [nth(ranked, 2), nth(ranked, 3)];
  const signal = new AbortController().signal;
  const one = rig.join(a);
  const other = b.swarm.join(
    { digest: rig.digest, size: SIZE - 1, geometry: rig.geometry, have: new PieceMap(rig.geometry.count) },
    signal,
  );
  await rig.clock.run(200);
  t.same([one.neighbours, other.neighbours], [[], []]);
  t.match([one.leases, other.leases], [[{ first: 0 }], [{ first: 0 }]]);
  await rig.close();
});

await t.test("when all have left, the coordinator keeps nothing", async (t) => {
  const { rig, crowd, ranked } = await crowdOf({ seed: 13 });
  for (const node of ranked) crowd.start(node);
  t.ok(await crowd.run(60_000));
  await rig.clock.run(1_000);
  t.same(nth(ranked, 0).swarm.coordinated(rig.digest), []);
  const rooms = await nth(ranked, 0).metrics.getSingleMetric("p2p_mirror_swarm_rooms")?.get();
  t.match(rooms?.values, [{ value: 0 }]);
  await rig.close();
  t.equal(rig.clock.pending, 0, "no timer is left");
});
