import { setTimeout as delay } from "node:timers/promises";
import type { KadRouter } from "../packages/p2p-mirror/src/routing/kad-router.ts";
import type { RoutingKey } from "../packages/p2p-mirror/src/routing/router.ts";
import { cidOf, keyHashOf } from "../packages/p2p-mirror/src/routing/key.ts";
import { atMost, percentile, rounded, type BenchResult } from "./lib/bench.ts";
import { BenchMesh, cpuMs, formPlainKad, keysOf } from "./lib/mesh.ts";

export const name = "lookup";
export const description =
  "DHT lookup of a digest that another node holds, 30 nodes; `lookup baseline`: kad-dht's own, too";

const NODES = 30;
const KEYS = 1_000;
const COMPLETED_MS = 2_000;

interface Series {
  readonly ms: number[];
  /** Of all nodes, in all. */
  cpuMs: number;
  misses: number;
}

/** Time to the first provider of each key, one after the other, each asked by another node. */
async function series(
  keys: readonly RoutingKey[],
  first: (key: RoutingKey, nth: number) => Promise<boolean>,
): Promise<Series> {
  const ms: number[] = [];
  let misses = 0;
  const cpu = process.cpuUsage();
  for (const [nth, key] of keys.entries()) {
    const began = performance.now();
    if (!(await first(key, nth))) misses += 1;
    ms.push(performance.now() - began);
  }
  return { ms, cpuMs: cpuMs(cpu), misses };
}

const row = (what: string, { ms, cpuMs: cpu, misses }: Series) => ({
  what,
  lookups: ms.length,
  "p50 ms": rounded(percentile(ms, 0.5)),
  "p90 ms": rounded(percentile(ms, 0.9)),
  "p99 ms": rounded(percentile(ms, 0.99)),
  "CPU ms each, all nodes": rounded(cpu / ms.length),
  "without a provider": misses,
});

async function finds(router: KadRouter, key: RoutingKey): Promise<boolean> {
  for await (const peer of router.find(key)) if (peer.id !== router.self.id) return true;
  return false;
}

async function ours(): Promise<BenchResult> {
  await using mesh = await BenchMesh.form(NODES);
  const keys = keysOf("lookup", KEYS);
  // Node n holds the keys whose number ends there; another asks.
  await Promise.all(
    mesh.routers.map((router, n) => router.advertise(keys.filter((_, nth) => nth % NODES === n))),
  );
  await delay(COMPLETED_MS);
  // A node that keeps the record itself knows at once: those lookups are a row of their own, and not the target.
  const held: Series = { ms: [], cpuMs: 0, misses: 0 };
  const known: Series = { ms: [], cpuMs: 0, misses: 0 };
  for (const [nth, key] of keys.entries()) {
    const before = await mesh.asked();
    const one = await series([key], () => finds(mesh.router(nth + 1 + (nth % (NODES - 1))), key));
    const into = (await mesh.asked()) > before || one.misses > 0 ? held : known;
    into.ms.push(...one.ms);
    into.cpuMs += one.cpuMs;
    into.misses += one.misses;
  }
  const absent = await series(keysOf("nobody has it", 200), (key, nth) => finds(mesh.router(nth), key));

  // One blob completes after the other: 2 s later every other node must find it.
  const fresh = keysOf("fresh", 20);
  for (const [nth, key] of fresh.entries()) await mesh.router(nth).advertise([key]);
  await delay(COMPLETED_MS);
  let negatives = 0;
  for (const [holder, key] of fresh.entries()) {
    for (const [nth, router] of mesh.routers.entries()) {
      if (nth !== holder && !(await finds(router, key))) negatives += 1;
    }
  }
  const everywhere = fresh.length * (NODES - 1);
  return {
    rows: [
      row("held by another node, asked for", held),
      row("held by another node, record kept here", known),
      row("held by nobody", absent),
    ],
    targets: [
      atMost("p50 of a lookup of a held digest", percentile(held.ms, 0.5), 3, "ms"),
      atMost("false negatives of the lookups above", held.misses + known.misses, 0),
      atMost(`false negatives of ${everywhere} lookups 2 s after completion`, negatives, 0),
    ],
  };
}

async function baseline(): Promise<BenchResult["rows"]> {
  const nodes = await formPlainKad(NODES);
  try {
    const keys = keysOf("baseline", 100);
    for (const [nth, key] of keys.entries()) {
      const provider = nodes[nth % NODES];
      for await (const _ of provider?.services.dht.provide(cidOf(keyHashOf(key))) ?? []);
    }
    const found = await series(keys, async (key, nth) => {
      const node = nodes[(nth + 1 + (nth % (NODES - 1))) % NODES];
      for await (const event of node?.services.dht.findProviders(cidOf(keyHashOf(key))) ?? []) {
        if (event.name === "PROVIDER") return true;
      }
      return false;
    });
    return [row("kad-dht's own (two thirds have the record themselves)", found)];
  } finally {
    await Promise.all(nodes.map(async (node) => node.stop()));
  }
}

/** Options: `baseline`. */
export async function run(args: readonly string[]): Promise<BenchResult> {
  const result = await ours();
  if (!args.includes("baseline")) return result;
  return { ...result, rows: [...result.rows, ...(await baseline())] };
}
