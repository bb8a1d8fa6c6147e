/** A router in a process of its own, to be killed: prints its peer ID once it has advertised `argv[3]`. */
import { silentLogger } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import { createRouter } from "../../src/routing/kad-router.ts";
import { createRoutingMetrics } from "../../src/routing/metrics.ts";
import { clusterSecrets } from "../../src/trust/cluster-secret.ts";
import { newIdentity } from "../../src/trust/identity.ts";
import { keyOf } from "../conformance/router.ts";
import { until } from "../../../../test/rig/until.ts";

const [, , bootstrap = "", text = "", dataDir = "", peers = "1"] = process.argv;
const router = await createRouter(
  { listen: { host: "127.0.0.1", port: 0 }, peerPort: 45_678, bootstrap: [bootstrap], dataDir },
  {
    identity: await newIdentity(),
    secrets: clusterSecrets([Buffer.alloc(32, "mesh")]),
    logger: silentLogger(),
    metrics: createRoutingMetrics(new Registry()),
  },
);
await router.start(new AbortController().signal);
await until("the child sees the mesh", () => router.peers().length >= Number(peers), { timeoutMs: 20_000 });
await router.advertise([keyOf(text)]);
process.stdout.write(`${router.self.id}\n`);
