/** Nodes of a crowd die, stop, become slow, start again, or have no room on their disk. */
import { statfs } from "node:fs/promises";
import { setTimeout as outage } from "node:timers/promises";
import { exec } from "./rig/exec.ts";
import { until } from "./rig/until.ts";
import { killNode, NODE_RATE, SLOW_RATE, SMALL_DISK, type Arena } from "./swarm-faults/arena.ts";
import { sizeOf, type Role } from "./swarm-faults/crowd.ts";
import { coordinatorOf, holderOf, lostWith } from "./swarm-faults/roles.ts";
import { COPY_SECONDS, EARLY, mib, runGroup, type Fault, type Struck } from "./swarm-faults/run.ts";

/** Seconds that a source is stopped. */
const STOPPED = 60;

async function killAll(roles: readonly Role[]): Promise<Struck> {
  await Promise.all(roles.map(({ node }) => killNode(node)));
  const names = roles.map(
    ({ node, coordinates, fetched }) =>
      `${node.mirror.name} (coordinates ${coordinates} layers, ${mib(fetched)} from upstream)`,
  );
  return {
    what: `killed ${names.join(", ")}`,
    dead: roles.map(({ node }) => node),
    destroyed: lostWith(...roles),
  };
}

/** Leaves no byte on the disk of the last node's mirror: the disk becomes as small as what is on it, at once. */
async function fill({ nodes }: Arena): Promise<Struck> {
  const { mirror } = nodes.at(-1) ?? {};
  if (mirror === undefined) throw new TypeError("five nodes");
  const { dataDir } = mirror;
  const unstored = async (): Promise<number> =>
    (await mirror.metrics()).sum("p2p_mirror_unstored_blobs_total") ?? 0;
  const before = await unstored();
  const resize = (size: string): Promise<unknown> =>
    exec(["mount", "-o", `remount,size=${size}`, "tmpfs", dataDir]);
  // A disk that is written to meanwhile may have outgrown what was just read.
  const shrink = async (): Promise<boolean> => {
    const { blocks, bfree, bsize } = await statfs(dataDir);
    await resize(`${(blocks - bfree) * bsize}`).catch(() => undefined);
    return (await statfs(dataDir)).bavail === 0;
  };
  await until("the disk is full", shrink, { timeoutMs: 10_000 });
  const { blocks, bsize } = await statfs(dataDir);
  return {
    what: `left no room on the disk of ${mirror.name}, with ${mib(blocks * bsize)} on it`,
    mend: async () => void (await resize(SMALL_DISK)),
    check: async (t) => void t.ok((await unstored()) > before, "a blob could not be stored"),
  };
}

await runGroup({
  name: "nodes",
  arena: { smallDisk: true },
  faults: (arena): readonly Fault[] => [
    {
      title: "a lease holder is killed",
      seconds: 2,
      named: "a lease lapses",
      strike: async (crowd) => killAll([holderOf(await crowd.roles())]),
    },
    {
      title: "the coordinator is killed",
      seconds: 2,
      named: "the stand-in has heard from all",
      strike: async (crowd) => killAll([coordinatorOf(await crowd.roles())]),
    },
    {
      title: "the coordinator and a lease holder are killed",
      seconds: 4,
      named: "the stand-in has heard from all, then a lease lapses",
      strike: async (crowd) => {
        const roles = await crowd.roles();
        return killAll([coordinatorOf(roles), holderOf(roles)]);
      },
    },
    {
      title: `a source stops without a word (SIGSTOP) for ${STOPPED} s`,
      seconds: 2,
      named: "a lease lapses",
      strike: async (crowd) => {
        const holder = holderOf(await crowd.roles());
        const { mirror } = holder.node;
        mirror.signal("SIGSTOP");
        const over = outage(STOPPED * 1_000);
        return {
          what: `stopped ${mirror.name} (${mib(holder.fetched)} from upstream)`,
          late: [holder.node],
          destroyed: lostWith(holder),
          mend: async () => {
            await over;
            mirror.signal("SIGCONT");
          },
        };
      },
    },
    {
      title: "a lease holder's link falls to 1/20 until the others are through",
      seconds: 2,
      named: "a lease lapses",
      strike: async (crowd) => {
        const holder = holderOf(await crowd.roles());
        await holder.node.network.shape({ egress: SLOW_RATE, ingress: SLOW_RATE });
        return {
          what: `slowed ${holder.node.mirror.name}`,
          late: [holder.node],
          destroyed: lostWith(holder),
          mend: () => holder.node.network.shape({ egress: NODE_RATE, ingress: NODE_RATE }),
        };
      },
    },
    {
      title: "a lease holder's daemon is killed and started again",
      seconds: 2 + COPY_SECONDS,
      named: "a lease lapses, while that node's containerd pulls a copy past the swarm",
      strike: async (crowd) => {
        const holder = holderOf(await crowd.roles());
        const { mirror } = holder.node;
        await mirror.kill();
        await mirror.start();
        return {
          what: `killed ${mirror.name} (${mib(holder.fetched)} from upstream), started it again`,
          destroyed: lostWith(holder) + sizeOf(crowd.image),
        };
      },
    },
    {
      title: "the disk of a node is full",
      share: EARLY,
      seconds: 0,
      named: "its mirror goes on without storing",
      strike: () => fill(arena),
    },
  ],
});
