/** Connections between members of a crowd break, or nothing comes through between them. */
import { setTimeout as away } from "node:timers/promises";
import type { ClusterNode } from "./rig/cluster.ts";
import { sizeOf } from "./swarm-faults/crowd.ts";
import { dropConnections, dropUnheard, part } from "./swarm-faults/network-faults.ts";
import { coordinatorOf, holderOf, ON_THE_WAY } from "./swarm-faults/roles.ts";
import { COPY_SECONDS, EARLY, mib, runGroup, type Fault } from "./swarm-faults/run.ts";

const sum = (numbers: readonly number[]): number => numbers.reduce((all, one) => all + one, 0);

function fallApart(nodes: readonly ClusterNode[]): Promise<() => Promise<void>> {
  const networks = nodes.map(({ network }) => network);
  return part(networks.slice(0, 2), networks.slice(2));
}

await runGroup({
  name: "network",
  faults: ({ nodes }): readonly Fault[] => [
    {
      title: "all connections of the coordinator are reset",
      seconds: 1,
      named: "they are made again",
      strike: async (crowd) => {
        const { node } = coordinatorOf(await crowd.roles());
        const dropped = await dropConnections(node.network);
        return {
          what: `reset ${dropped} connections of ${node.mirror.name}`,
          destroyed: ON_THE_WAY,
          check: async (t) => void t.ok(dropped > 0, "there were some"),
        };
      },
    },
    {
      title: "all connections between all mirrors are reset, one node's after the other's",
      seconds: 1,
      named: "they are made again",
      strike: async () => {
        const dropped = await Promise.all(nodes.map(({ network }) => dropConnections(network)));
        return {
          what: `reset ${sum(dropped)} connections`,
          destroyed: ON_THE_WAY,
          check: async (t) => void t.ok(sum(dropped) > 0, "there were some"),
        };
      },
    },
    {
      title: "the others do not know that the connections of a lease holder are gone (half-open)",
      seconds: 2,
      named: "a lease lapses, and who is silent loses its pieces",
      strike: async (crowd) => {
        const { node, fetched } = holderOf(await crowd.roles());
        const others = nodes.filter((one) => one !== node).map(({ network }) => network);
        const dropped = await dropUnheard(node.network, others);
        return {
          what: `${node.mirror.name} lost ${dropped} connections, and nobody was told`,
          destroyed: fetched + ON_THE_WAY,
          check: async (t) => void t.ok(dropped > 0, "there were some"),
        };
      },
    },
    {
      title: "the mesh falls into two and three nodes, and heals when all are through",
      share: EARLY,
      seconds: 4 + COPY_SECONDS,
      named: "a part without coordinator has a stand-in, a lease lapses, and each part needs a copy",
      strike: async (crowd) => {
        const heal = await fallApart(nodes);
        return {
          what: "the first two were cut off from the others",
          destroyed: sizeOf(crowd.image) + ON_THE_WAY,
          mend: heal,
        };
      },
    },
    {
      title: "the mesh falls into two and three nodes, and heals after 2 s, while all are pulling",
      share: EARLY,
      seconds: 6,
      named: "a part without coordinator has a stand-in, a lease lapses, and TCP is silent as long again",
      strike: async (crowd) => {
        const heal = await fallApart(nodes);
        await away(2_000);
        await heal();
        // All of them are still at it.
        await crowd.reaches(EARLY);
        return {
          what: "the first two were cut off from the others for 2 s",
          destroyed: sizeOf(crowd.image) + ON_THE_WAY,
        };
      },
    },
    {
      title: "a member is cut off from all others for 3 s",
      share: EARLY,
      seconds: 2 + COPY_SECONDS,
      named: "a lease lapses, while that node gets a copy by itself",
      strike: async (crowd) => {
        const { node, fetched } = holderOf(await crowd.roles());
        const others = nodes.filter((one) => one !== node).map(({ network }) => network);
        const heal = await part([node.network], others);
        await away(3_000);
        await heal();
        return {
          what: `cut off ${node.mirror.name} (${mib(fetched)} from upstream)`,
          destroyed: fetched + ON_THE_WAY + sizeOf(crowd.image),
        };
      },
    },
  ],
});
