/** `npm run bench -- <name> [options]`: a readable table, then one line of JSON with machine and versions in it. */
import { readdir } from "node:fs/promises";
import { availableParallelism, cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import Table from "cli-table3";
import type { Bench, BenchResult } from "./lib/bench.ts";

const HERE = import.meta.dirname;
const NOT_BENCHES = new Set(["main.ts", "demo.ts"]);

async function names(): Promise<string[]> {
  const entries = await readdir(HERE, { withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts") && !NOT_BENCHES.has(entry.name))
    .map((entry) => entry.name.slice(0, -3))
    .toSorted();
}

async function load(name: string): Promise<Bench> {
  return (await import(join(HERE, `${name}.ts`))) as Bench;
}

function print(bench: Bench, result: BenchResult, seconds: number): void {
  const [first] = result.rows;
  if (first !== undefined) {
    const table = new Table({ head: Object.keys(first), style: { head: [], border: [] } });
    for (const row of result.rows) table.push(Object.values(row));
    console.log(table.toString());
  }
  for (const { ok, what, got, must } of result.targets) {
    console.log(`${ok ? "reached" : "MISSED "}  ${what}: ${got} (must be ${must})`);
  }
  console.log(
    JSON.stringify({
      bench: bench.name,
      at: new Date().toISOString(),
      seconds: Math.round(seconds),
      machine: {
        cpu: cpus()[0]?.model ?? "unknown",
        cores: availableParallelism(),
        memoryGiB: Math.round(totalmem() / 2 ** 30),
        kernel: release(),
        node: process.version,
        openssl: process.versions.openssl,
      },
      ...result,
    }),
  );
}

async function main(): Promise<number> {
  const [name, ...args] = process.argv.slice(2);
  const known = await names();
  if (name === undefined || !known.includes(name)) {
    console.error(
      name === undefined ? "usage: npm run bench -- <name> [options]" : `no bench is called ${name}`,
    );
    for (const one of known) console.error(`  ${one.padEnd(12)} ${(await load(one)).description}`);
    return 2;
  }
  const bench = await load(name);
  const began = performance.now();
  const result = await bench.run(args);
  print(bench, result, (performance.now() - began) / 1000);
  return result.targets.every(({ ok }) => ok) ? 0 : 1;
}

process.exitCode = await main();
