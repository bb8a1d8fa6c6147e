import t from "tap";
import { MemoryMesh } from "../../src/routing/memory-router.ts";
import { routerConformance } from "../conformance/router.ts";
import { Mesh } from "./mesh.ts";

await t.test("the memory double", async (t) =>
  routerConformance(t, () => {
    const mesh = new MemoryMesh();
    const routers = ["a", "b", "c", "d"].map((id, nth) =>
      mesh.join({ id, host: "10.0.0.1", port: 1000 + nth }),
    );
    return Promise.resolve({ routers, close: () => Promise.resolve() });
  }),
);

await t.test("Kademlia over libp2p: four nodes", async (t) =>
  routerConformance(t, async () => {
    const mesh = new Mesh();
    const nodes = await mesh.startMany(4);
    return { routers: nodes.map((node) => node.router), close: () => mesh.close() };
  }),
);

await t.test("Kademlia over libp2p: each record at two of six nodes only", async (t) =>
  routerConformance(t, async () => {
    const mesh = new Mesh();
    const nodes = await mesh.startMany(6, { replication: 2 });
    return { routers: nodes.map((node) => node.router), close: () => mesh.close() };
  }),
);
