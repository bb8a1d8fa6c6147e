import t from "tap";
import { PieceMap } from "../../src/transfer/pieces.ts";
import type { HandBackReason } from "../../src/swarm/swarm.ts";
import { Crowd, type UpstreamModel } from "./crowd.ts";
import { MIB, pieceHash, Rig, type RigNode, type RigOptions } from "./rig.ts";

const RATE = 12 * MIB;
const NODE_RATE = 24 * MIB;
const SIZE = 128 * MIB;
const BOUND_MS = (SIZE / RATE) * 1_000;

async function crowdOf(
  options: Partial<RigOptions>,
  upstream: Partial<UpstreamModel> = {},
): Promise<{ rig: Rig; crowd: Crowd; ranked: RigNode[] }> {
  const rig = await new Rig({ nodes: 6, size: SIZE, ...options }).start();
  return {
    rig,
    crowd: new Crowd(rig, { upstream: { rate: RATE, ...upstream }, nodeRate: NODE_RATE }),
    ranked: rig.ranked(),
  };
}

async function allFinish(crowd: Crowd, from: number, ms = 120_000): Promise<number> {
  const took = await crowd.run(ms, from);
  if (took === undefined) throw new Error("not all have finished");
  return took;
}

for (const how of ["is killed", "is silent"] as const) {
  await t.test(`a lease holder that ${how}: another brings what it has not, and only that`, async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 21 });
    for (const node of ranked) crowd.start(node);
    const began = rig.clock.now();
    await rig.clock.run(3_000);
    const victim = crowd.flights.find(({ member, node }) => member.leases.length > 0 && node !== ranked[0]);
    if (victim === undefined) throw new Error("nobody holds a lease");
    const held = victim.member.leases.reduce(
      (sum, { first, end }) => sum + rig.geometry.end(end - 1) - rig.geometry.start(first),
      0,
    );
    if (how === "is killed") rig.kill(victim.node);
    else {
      victim.node.alive = false;
      rig.network.silence(victim.node.id);
    }
    const took = await allFinish(crowd, began);
    t.ok(took <= BOUND_MS * 1.15 + 4_000, `${(took / BOUND_MS).toFixed(2)} of the bound`);
    t.ok(crowd.upstreamBytes <= SIZE + held + 8 * MIB, `upstream ${crowd.amplification.toFixed(2)}`);
    await rig.close();
  });
}

await t.test(
  "a member that heard nobody for long claims nothing: what it held is others' by then",
  async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 27 });
    for (const node of ranked) crowd.start(node);
    const began = rig.clock.now();
    await rig.clock.run(3_000);
    // One of the last that would coordinate itself.
    const victim = crowd.flights.find(({ node }) => node === ranked[4]);
    if (victim === undefined) throw new Error("it is a member");
    t.ok(victim.member.leases.length > 0);
    rig.network.silence(victim.node.id);
    t.ok(await rig.clock.run(6_000, () => victim.member.absences > 0), "it notices");
    t.same(victim.member.leases, []);
    t.ok(
      crowd.flights.every(({ member }) => member === victim.member || member.absences === 0),
      "nobody else was away",
    );
    rig.network.wake(victim.node.id);
    await allFinish(crowd, began);
    await rig.close();
  },
);

await t.test(
  "a node that upstream does not let in gets the blob all the same, by the others' credentials",
  async (t) => {
    let deniedId = "";
    const why: HandBackReason = { kind: "unauthorized" };
    const { rig, crowd, ranked } = await crowdOf(
      { seed: 22 },
      { refuses: (node) => (node.id === deniedId ? why : undefined) },
    );
    deniedId = ranked[0]?.id ?? "";
    // It is the first to come, and its own coordinator.
    for (const node of ranked) crowd.start(node);
    const took = await allFinish(crowd, rig.clock.now());
    t.ok(took <= BOUND_MS * 1.25, `${(took / BOUND_MS).toFixed(2)} of the bound`);
    t.ok(crowd.amplification <= 1.01);
    t.equal(crowd.flightOf(deniedId)?.seen.size, 1, "it was asked once");
    t.equal(crowd.flights[1]?.member.fetchers, 5);
    await rig.close();
  },
);

await t.test("when upstream lets nobody in, all know that nobody will bring anything", async (t) => {
  const { rig, crowd, ranked } = await crowdOf({ seed: 23 }, { refuses: () => ({ kind: "unauthorized" }) });
  for (const node of ranked) crowd.start(node);
  t.ok(await rig.clock.run(2_000, () => crowd.flights.every(({ member }) => member.fetchers === 0)));
  t.ok(crowd.flights.every(({ member }) => member.leases.length === 0 && !member.alone));
  await rig.close();
});

await t.test("429 for one is a pause for all, as long as upstream asks, and then it goes on", async (t) => {
  let limitedUntil = Infinity;
  const { rig, crowd, ranked } = await crowdOf(
    { seed: 24 },
    {
      refuses: () =>
        rig.clock.now() < limitedUntil ? { kind: "rate-limited", retryAfterMs: 5_000 } : undefined,
    },
  );
  limitedUntil = rig.clock.now() + 3_000;
  const asked = (): number => crowd.flights.reduce((sum, { seen }) => sum + seen.size, 0);
  for (const node of ranked) crowd.start(node);
  const began = rig.clock.now();
  await rig.clock.run(1_000);
  t.ok(
    crowd.flights.every(({ member }) => member.pausedMs > 3_900),
    "all know how long",
  );
  const before = asked();
  t.ok(before <= 6, "each was refused once at most");
  await rig.clock.run(3_900);
  t.equal(asked(), before, "nobody asks meanwhile");
  const took = await allFinish(crowd, began);
  t.ok(took >= 5_000 && took <= 5_000 + BOUND_MS * 1.35, `${took.toFixed(0)} ms`);
  t.equal(crowd.amplification, 1);
  await rig.close();
});

await t.test("without ranges one node streams the whole to all others", async (t) => {
  const { rig, crowd, ranked } = await crowdOf({ seed: 25 }, { ranges: false });
  for (const node of ranked) crowd.start(node);
  const took = await allFinish(crowd, rig.clock.now());
  t.ok(took <= BOUND_MS * 1.25, `${(took / BOUND_MS).toFixed(2)} of the bound`);
  t.ok(crowd.amplification <= 1.01);
  await rig.close();
});

await t.test(
  "without ranges, and the one that streams dies: another begins anew, the end is right",
  async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 26 }, { ranges: false });
    for (const node of ranked) crowd.start(node);
    await rig.clock.run(4_000);
    const streaming = crowd.flights.filter(({ member }) => member.leases.length > 0);
    t.equal(streaming.length, 1);
    const [holder] = streaming;
    if (holder === undefined) throw new Error("nobody streams");
    rig.kill(holder.node);
    await allFinish(crowd, rig.clock.now());
    t.ok(crowd.amplification <= 1.5, `upstream ${crowd.amplification.toFixed(2)}`);
    await rig.close();
  },
);

await t.test("a node at 1/20 of the rate does not hold up the others", async (t) => {
  let slowId = "";
  const { rig, crowd, ranked } = await crowdOf(
    { seed: 27 },
    { perNode: (node) => (node.id === slowId ? RATE / 20 : Infinity) },
  );
  slowId = ranked[2]?.id ?? "";
  for (const node of ranked) crowd.start(node);
  const began = rig.clock.now();
  const others = crowd.flights.filter(({ node }) => node.id !== slowId);
  t.ok(await rig.clock.run(60_000, () => others.every(({ complete }) => complete)));
  const took = rig.clock.now() - began;
  t.ok(took <= BOUND_MS * 1.3, `${(took / BOUND_MS).toFixed(2)} of the bound`);
  await rig.close();
});

await t.test("thin links to upstream: the more nodes, the faster", async (t) => {
  const times: number[] = [];
  for (const nodes of [1, 2, 4, 8]) {
    const { rig, crowd } = await crowdOf({ nodes, seed: 28 }, { rate: 1e12, perNode: () => 2.5 * MIB });
    for (const node of rig.nodes) crowd.start(node);
    times.push(await allFinish(crowd, rig.clock.now(), 300_000));
    t.ok(crowd.amplification <= 1.02);
    await rig.close();
  }
  const [alone = 0] = times;
  for (const [at, took] of times.entries()) {
    t.ok(took / alone <= 1.5 / 2 ** at, `${2 ** at} nodes: ${(took / alone).toFixed(2)} of one alone`);
  }
});

await t.test(
  "who comes late gets the blob from those who have it, and from those who left with it",
  async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 29 });
    const [late, later] = ranked.slice(4);
    if (late === undefined || later === undefined) throw new Error("too few nodes");
    for (const node of ranked.slice(0, 4)) crowd.start(node);
    await rig.clock.run(BOUND_MS * 0.8);
    crowd.start(late);
    t.ok(await crowd.run(60_000));
    t.equal(crowd.amplification, 1);
    await rig.close();

    // One node does not finish and keeps the swarm up, the others have left.
    const second = await crowdOf({ seed: 30 });
    const [keeper, ...others] = second.ranked;
    if (keeper === undefined) throw new Error("no nodes");
    const member = second.rig.join(keeper);
    const signal = member.change;
    for (const node of others.slice(0, 3)) second.crowd.start(node);
    await signal;
    const given = (async () => {
      for (;;) {
        const { change } = member;
        for (const lease of member.leases) member.handBack(lease, { kind: "unauthorized" });
        await change;
      }
    })();
    void given;
    t.ok(await second.crowd.run(60_000), "three have finished");
    const before = second.crowd.upstreamBytes;
    const last = others[3];
    if (last === undefined) throw new Error("too few nodes");
    second.crowd.start(last);
    t.ok(await second.crowd.run(60_000));
    t.equal(second.crowd.upstreamBytes, before, "nothing from upstream for the last");
    await second.rig.close();
  },
);

await t.test(
  "a node outside that has the whole blob keeps all from upstream, while it delivers",
  async (t) => {
    const { rig, crowd, ranked } = await crowdOf({ seed: 33, nodes: 8 });
    const [seed, ...others] = ranked;
    if (seed === undefined) throw new Error("no nodes");
    crowd.seed(seed);
    for (const node of others) crowd.start(node);
    await rig.clock.run(4);
    // A lookup takes a few milliseconds.
    crowd.flights[1]?.member.holds(seed.contact);
    await allFinish(crowd, rig.clock.now());
    t.ok(crowd.amplification <= 0.1, `upstream ${crowd.amplification.toFixed(2)}`);
    await rig.close();
  },
);

for (const how of ["is dead", "brings next to nothing"] as const) {
  await t.test(
    `a node outside that has the whole blob, as they say, and ${how}: upstream helps`,
    async (t) => {
      const { rig, crowd, ranked } = await crowdOf({ seed: 34, nodes: 8 });
      const [seed, ...others] = ranked.toReversed();
      if (seed === undefined) throw new Error("no nodes");
      if (how === "is dead") rig.kill(seed);
      else crowd.seed(seed, 50 * 1024);
      for (const node of others) crowd.start(node).member.holds(seed.contact);
      const took = await allFinish(crowd, rig.clock.now());
      t.ok(took <= BOUND_MS * 1.25 + 3_500, `${(took / BOUND_MS).toFixed(2)} of the bound`);
      t.ok(crowd.amplification <= 1.05, `upstream ${crowd.amplification.toFixed(2)}`);
      await rig.close();
    },
  );
}

await t.test("a flight that is given up leaves at once, and its leases are another's", async (t) => {
  const { rig, crowd, ranked } = await crowdOf({ seed: 31 });
  const [coordinator, quitter] = ranked;
  if (coordinator === undefined || quitter === undefined) throw new Error("too few nodes");
  const giveUp = new AbortController();
  const member = rig.join(quitter, new PieceMap(rig.geometry.count), giveUp.signal);
  await rig.clock.run(50);
  t.match(member.leases, [{ first: 0 }]);
  const flight = crowd.start(coordinator);
  await rig.clock.run(50);
  giveUp.abort();
  await rig.clock.run(50);
  t.same([...coordinator.swarm.coordinated(rig.digest)], [coordinator.id]);
  t.same(flight.member.neighbours, []);
  t.ok(await crowd.run(60_000));
  t.equal(crowd.amplification, 1);
  await rig.close();
});

await t.test("the hash of every piece is known by whoever fetched it from upstream, to all", async (t) => {
  const { rig, crowd, ranked } = await crowdOf({ seed: 32 });
  for (const node of ranked) crowd.start(node);
  await allFinish(crowd, rig.clock.now());
  const { digest, size, geometry } = rig;
  const signers = new Set<string>();
  for (const { swarm } of rig.nodes) {
    for (let piece = 0; piece < geometry.count; piece += 1) {
      const hash = swarm.hashes({ digest, size, geometry }).of(piece);
      if (!hash || !pieceHash(piece).equals(hash.sha256)) throw new Error(`piece ${piece} is not known`);
      signers.add(hash.signer);
    }
  }
  t.ok(signers.size >= 5, `${signers.size} nodes have fetched`);
  await rig.close();
});
