import { digestOf, silentLogger, systemClock } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import t from "tap";
import { until } from "../../../../test/rig/until.ts";
import { createSwarmCodec } from "../../src/swarm/codec.ts";
import { createLibp2pWire } from "../../src/swarm/libp2p-wire.ts";
import { createSwarmMetrics } from "../../src/swarm/metrics.ts";
import { createSwarm, type MirrorSwarm } from "../../src/swarm/mirror-swarm.ts";
import { createPieceSigner } from "../../src/swarm/piece-signer.ts";
import type { SwarmMember } from "../../src/swarm/swarm.ts";
import { PieceGeometry, PieceMap } from "../../src/transfer/pieces.ts";
import { Mesh, type Node } from "../routing/mesh.ts";
import { MIB, pieceHash } from "./rig.ts";

const SIZE = 64 * MIB;
const geometry = new PieceGeometry(SIZE);
const digest = digestOf(Buffer.from("a blob"));

interface RealNode {
  readonly node: Node;
  readonly swarm: MirrorSwarm;
  readonly member: SwarmMember;
}

const swarmOf = async (node: Node): Promise<MirrorSwarm> => {
  const { router, identity } = node;
  const swarm = createSwarm(
    {},
    {
      self: { peer: router.self, contact: { id: identity.id, ...router.libp2pAddress } },
      wire: createLibp2pWire({
        streams: router.streams,
        codec: createSwarmCodec(),
        clock: systemClock,
        logger: silentLogger(),
      }),
      closest: (key, count) => router.closest(key, count),
      clock: systemClock,
      random: Math.random,
      signer: createPieceSigner(identity),
      load: () => 0,
      logger: silentLogger(),
      metrics: createSwarmMetrics(new Registry()),
    },
  );
  await swarm.start(new AbortController().signal);
  return swarm;
};

const join = (swarm: MirrorSwarm): SwarmMember =>
  swarm.join(
    { digest, size: SIZE, geometry, have: new PieceMap(geometry.count) },
    new AbortController().signal,
  );

await t.test("five real nodes: leases, neighbours, signed hashes, and a coordinator that dies", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const nodes = await mesh.startMany(5);
  const order = nodes[0]?.router.closest(digest, 5).map(({ id }) => id) ?? [];
  const ranked = order.flatMap((id) => nodes.filter(({ identity }) => identity.id === id));
  const swarms = new Map<string, MirrorSwarm>();
  for (const node of ranked) swarms.set(node.identity.id, await swarmOf(node));
  t.teardown(() => Promise.all([...swarms.values()].map((swarm) => swarm.close())));

  // The closest node does not want the blob itself.
  const members: RealNode[] = ranked.slice(1).flatMap((node) => {
    const swarm = swarms.get(node.identity.id);
    return swarm === undefined ? [] : [{ node, swarm, member: join(swarm) }];
  });
  const began = performance.now();
  await until("all have leases and each other", () =>
    members.every(({ member }) => member.leases.length > 0 && member.neighbours.length === 3),
  );
  t.comment(`after ${(performance.now() - began).toFixed(0)} ms`);
  t.ok(members.every(({ member }) => member.coordinator?.id === order[0]));
  const runs = members.flatMap(({ member }) => member.leases).toSorted((a, b) => a.first - b.first);
  for (const [at, run] of runs.entries()) t.ok((runs[at - 1]?.end ?? 0) <= run.first, "leased once");

  const [one, two] = members;
  const [lease] = one?.member.leases ?? [];
  if (one === undefined || two === undefined || lease === undefined) throw new Error("no members");
  one.member.have(lease.first, pieceHash(lease.first), true);
  await until("the others know of the piece, and its hash", () =>
    members.every(
      ({ member }) =>
        member === one.member || (member.rarity(lease.first) === 1 && member.hashOf(lease.first)),
    ),
  );
  t.same(two.member.hashOf(lease.first), pieceHash(lease.first));
  t.equal(two.member.signerOf(lease.first), one.node.identity.id);

  const [coordinator] = ranked;
  const died = performance.now();
  await Promise.all([coordinator?.close(), coordinator && swarms.get(coordinator.identity.id)?.close()]);
  await until(
    "the stand-in has all",
    () => members.every(({ member }) => member.coordinator?.id === order[1] && member.leases.length > 0),
    { timeoutMs: 5_000 },
  );
  const took = performance.now() - died;
  t.ok(took < 2_000, `within 2 s: ${took.toFixed(0)} ms`);
  const again = members.flatMap(({ member }) => member.leases).toSorted((a, b) => a.first - b.first);
  for (const [at, run] of again.entries()) t.ok((again[at - 1]?.end ?? 0) <= run.first, "leased once");
  await until("what is there is not leased any more", () =>
    members.every(({ member }) =>
      member.leases.every(({ first, end }) => lease.first < first || lease.first >= end),
    ),
  );

  await one.member.leave();
  await until("its neighbours know that it went", () =>
    members.slice(1).every(({ member }) => member.neighbours.length === 2),
  );
});

await t.test("a node alone is its own coordinator, without a network", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const [node] = await mesh.startMany(1);
  if (node === undefined) throw new Error("no node");
  const swarm = await swarmOf(node);
  t.teardown(() => swarm.close());
  const began = performance.now();
  const member = join(swarm);
  while (member.leases.length === 0) await member.change;
  const took = performance.now() - began;
  t.match(member.leases, [{ first: 0, end: geometry.count }]);
  // A coordinator that waits for others waits 300 ms.
  t.ok(took < 200, `its lease is there after ${took.toFixed(2)} ms`);
  await member.leave();
  t.same(swarm.coordinated(digest), []);
});
