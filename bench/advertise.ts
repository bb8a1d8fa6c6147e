import { cidOf, keyHashOf } from "../packages/p2p-mirror/src/routing/key.ts";
import { atMost, median, rounded, type BenchResult } from "./lib/bench.ts";
import { BenchMesh, cpuMs, formPlainKad, keysOf } from "./lib/mesh.ts";

export const name = "advertise";
export const description =
  "CPU over a 30-node cluster per advertised digest, 1,000 digests; `advertise baseline`: kad-dht's own, too";

const NODES = 30;
const DIGESTS = 1_000;
const RUNS = 5;

interface Measured {
  readonly ms: number;
  readonly cpuMs: number;
}

async function measure(digests: number, work: () => Promise<void>): Promise<Measured> {
  const cpu = process.cpuUsage();
  const began = performance.now();
  await work();
  return { ms: performance.now() - began, cpuMs: cpuMs(cpu) / digests };
}

const row = (what: string, digests: number, { ms, cpuMs: cpu }: Measured) => ({
  what,
  digests,
  "seconds in all": rounded(ms / 1_000),
  "CPU ms a digest, all nodes": rounded(cpu),
});

async function ours(): Promise<BenchResult> {
  await using mesh = await BenchMesh.form(NODES);
  const rows: BenchResult["rows"][number][] = [];
  const batched: number[] = [];
  for (let run = 0; run < RUNS; run += 1) {
    const keys = keysOf(`advertise ${run}`, DIGESTS);
    const router = mesh.router(run);
    const said = await measure(DIGESTS, () => router.advertise(keys));
    batched.push(said.cpuMs);
    rows.push(row("advertised in one call", DIGESTS, said));
    rows.push(row("withdrawn in one call", DIGESTS, await measure(DIGESTS, () => router.withdraw(keys))));
  }
  // The worst case for batching: blobs that complete one by one.
  const single = keysOf("one by one", 200);
  const alone = await measure(single.length, async () => {
    for (const key of single) await mesh.router(7).advertise([key]);
  });
  rows.push(row("advertised one by one", single.length, alone));
  return {
    rows,
    targets: [
      atMost("CPU ms a digest over 30 nodes, 1,000 in one call (median of 5)", median(batched), 5, "ms"),
    ],
  };
}

async function baseline(): Promise<BenchResult["rows"]> {
  const nodes = await formPlainKad(NODES);
  try {
    const keys = keysOf("baseline", 50);
    const provided = await measure(keys.length, async () => {
      for (const key of keys) {
        for await (const _ of nodes[1]?.services.dht.provide(cidOf(keyHashOf(key))) ?? []);
      }
    });
    return [row("kad-dht's own provide", keys.length, provided)];
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
