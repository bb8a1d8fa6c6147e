/** A member of a crowd lies: about what it gives, or about what it has from upstream. */
import { rm } from "node:fs/promises";
import path from "node:path";
import { isMirrorStatus } from "../packages/p2p-mirror/src/status-shape.ts";
import { IDENTITY_FILE } from "../packages/p2p-mirror/src/trust/identity.ts";
import type { ClusterNode } from "./rig/cluster.ts";
import type { Scrape } from "./rig/metrics.ts";
import { type Arena } from "./swarm-faults/arena.ts";
import { sizeOf, type Crowd } from "./swarm-faults/crowd.ts";
import { liesTold, tell, type Lie } from "./swarm-faults/lies.ts";
import { holderOf, lostWith } from "./swarm-faults/roles.ts";
import { COPY_SECONDS, EARLY, runGroup, type Fault, type Struck } from "./swarm-faults/run.ts";

/** From now on a lease holder lies about every piece it gives. */
async function lies(crowd: Crowd, lie: Lie): Promise<Struck> {
  const { node } = holderOf(await crowd.roles());
  const before = await liesTold(node.mirror);
  await tell(node.mirror, lie);
  return {
    what: `what ${node.mirror.name} gave was wrong (${lie})`,
    // What only it has is fetched again.
    destroyed: async () => lostWith(await crowd.roleOf(node)),
    mend: () => tell(node.mirror, undefined),
    check: async (t) => {
      const told = (await liesTold(node.mirror)) - before;
      t.comment(`it lied about ${told} pieces`);
      t.ok(told > 0, "it was asked for pieces");
    },
  };
}

const lying = (lie: Lie, title: string): Fault => ({
  title,
  share: EARLY,
  seconds: 2,
  named: "a lease lapses, of what only it has",
  strike: (crowd) => lies(crowd, lie),
});

/** The layer of which containerd got wrong bytes. */
const failedLayer = (failure: string): string | undefined =>
  /(?<="layer-)sha256:[0-9a-f]+/.exec(failure)?.[0];

async function idOf({ mirror }: ClusterNode): Promise<string> {
  const status: unknown = await (await fetch(`${mirror.adminUrl}/status`)).json();
  if (!isMirrorStatus(status)) throw new TypeError(JSON.stringify(status));
  return status.node.id;
}

/** Whom the metrics name as one who signed wrong hashes. */
const bannedBy = ({ text }: Scrape): string[] =>
  text.match(/(?<=^p2p_mirror_swarm_signers_banned\{peer=")[^"]+(?="\} 1$)/gm) ?? [];

/** What a lease holder gets from upstream from now on is wrong, and it signs that. */
function wrongSigner(arena: Arena): Fault {
  const { faulty } = arena.registries;
  let known: ClusterNode | undefined;
  return {
    title: "a member signs hashes of wrong bytes",
    registry: "faulty",
    share: EARLY,
    seconds: 2 + COPY_SECONDS,
    named: "pulls fail once, and all is fetched again",
    again: true,
    prepare: async () => {
      if (known === undefined) return;
      // A second try: nobody believes this one any more, unless it has another name.
      await known.mirror.stop();
      await rm(path.join(known.mirror.dataDir, IDENTITY_FILE));
      await arena.whole();
    },
    strike: async (crowd) => {
      const { node } = holderOf(await crowd.roles());
      known = node;
      const from = node.network.address;
      const others = arena.nodes.filter((one) => one !== node);
      const before = await Promise.all(others.map(async ({ mirror }) => bannedBy(await mirror.metrics())));
      await faulty.set([{ match: { kind: "blob", method: "GET", from }, corruptAt: 1_000 }]);
      let wrong = 0;
      return {
        what: `what upstream gave to ${node.mirror.name} was wrong`,
        late: [node],
        // All of the first try, and what upstream gives to this node as long as it is wrong.
        destroyed: () => sizeOf(crowd.image) + wrong,
        pastOthers: 1,
        mend: async () => {
          wrong = (await crowd.roleOf(node)).fetched;
          await faulty.set([]);
          // Its own client was given wrong bytes, or none, as long as upstream gave them: kubelet asks again.
          if (await crowd.hasFailed(node)) crowd.comeBack(node);
        },
        check: async (t) => {
          const liar = await idOf(node);
          for (const [nth, other] of others.entries()) {
            const { mirror } = other;
            const layers = crowd.failuresOf(other).map(failedLayer);
            const failures = `${layers.length} pulls of ${mirror.name} failed`;
            t.equal(new Set(layers).size, layers.length, `${failures}, each for another layer`);
            const named = bannedBy(await mirror.metrics()).slice(before[nth]?.length);
            t.same(named, [liar], `the metrics of ${mirror.name} name who lied`);
          }
        },
      };
    },
  };
}

await runGroup({
  name: "peers",
  arena: { liars: true },
  faults: (arena) => [
    lying("flips", "a member flips a bit of each piece it gives"),
    lying("short", "a member gives half of each piece"),
    lying("long", "a member gives more than each piece has"),
    wrongSigner(arena),
  ],
});
