import { silentLogger } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import t from "tap";
import { Bans } from "../../src/swarm/bans.ts";
import { createSwarmMetrics } from "../../src/swarm/metrics.ts";

async function setUp() {
  const registry = new Registry();
  const bans = new Bans({ logger: silentLogger(), metrics: createSwarmMetrics(registry) });
  const named = async (): Promise<string[]> =>
    (await registry.metrics()).match(/^p2p_mirror_swarm_signers_banned\b.*$/gm) ?? [];
  return { bans, named };
}

const series = (peer: string): string => `p2p_mirror_swarm_signers_banned{peer="${peer}"} 1`;

await t.test("who is banned is named in the metrics, once", async (t) => {
  const { bans, named } = await setUp();
  t.same(await named(), []);
  bans.add("liar");
  bans.add("another");
  bans.add("liar");
  t.same(await named(), [series("liar"), series("another")]);
});

await t.test("metrics name the 32 that were banned last; the others stay banned", async (t) => {
  const { bans, named } = await setUp();
  const peers = Array.from({ length: 40 }, (_, nth) => `peer${nth}`);
  for (const peer of peers) bans.add(peer);
  t.same(await named(), peers.slice(-32).map(series));
  t.ok(peers.every((peer) => bans.has(peer)));
});
