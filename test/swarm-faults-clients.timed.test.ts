/** Clients in a crowd leave and come back, one of them in chunks, or are started again. */
import { COPY_SECONDS, mib, runGroup, type Fault } from "./swarm-faults/run.ts";
import { holderOf, ON_THE_WAY } from "./swarm-faults/roles.ts";

await runGroup({
  name: "clients",
  // Its layers are fetched in chunks in every pull here, also in the undisturbed one.
  arena: { chunked: true },
  faults: (arena): readonly Fault[] => [
    {
      title: "two clients leave, one of them with a lease, and come back; another reads in chunks",
      seconds: 1,
      named: "what was here is given at once, the rest as it comes",
      strike: async (crowd) => {
        const holder = holderOf(await crowd.roles());
        const other = arena.nodes.find((node) => node !== holder.node && node !== arena.nodes.at(-1));
        if (other === undefined) throw new TypeError("five nodes");
        const leaving = [holder.node, other];
        await Promise.all(leaving.map((node) => crowd.leave(node)));
        for (const node of leaving) crowd.comeBack(node);
        const names = leaving.map(({ mirror }) => mirror.name).join(" and ");
        return { what: `the clients of ${names} left and came back` };
      },
    },
    {
      title: "the client that reads in chunks leaves and comes back",
      seconds: 1,
      named: "what was here is given at once, the rest as it comes",
      strike: async (crowd) => {
        const node = arena.nodes.at(-1);
        if (node === undefined) throw new TypeError("five nodes");
        await crowd.leave(node);
        crowd.comeBack(node);
        return { what: `the client of ${node.mirror.name} left and came back` };
      },
    },
    {
      title: "the containerd of a lease holder is killed and started again",
      seconds: COPY_SECONDS,
      named: "its mirror goes on, and containerd begins anew",
      strike: async (crowd) => {
        const { node, fetched } = holderOf(await crowd.roles());
        await node.containerd.kill();
        await crowd.failed(node);
        await node.containerd.restart();
        crowd.comeBack(node);
        return {
          what: `killed the containerd of ${node.mirror.name} (${mib(fetched)} from upstream), started it again`,
          destroyed: ON_THE_WAY,
        };
      },
    },
  ],
});
