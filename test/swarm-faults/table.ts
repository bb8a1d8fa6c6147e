/** The table of docs/reliability.md, made of what a run has measured. */
import { readFile, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";

export interface Row {
  readonly fault: string;
  /** Seconds until the last live node had the image. */
  readonly last: number;
  /** Seconds more than undisturbed, and how many of them are allowed. */
  readonly extra: number | undefined;
  readonly allowed: number | undefined;
  /** Bytes that left upstream, in copies of the image. */
  readonly copies: number;
  readonly limit: number;
}

/** What the reader of the figures must know of the run. */
export interface Run {
  /** In words. */
  readonly scene: string;
  /** Of this machine, while nothing of the run was going on: 1 for each processor that others kept busy. */
  readonly loadBefore: number;
}

const FILE = path.resolve(import.meta.dirname, "../../docs/reliability.md");
/** Each has a table of its own, between two marks. */
export type GroupName = "nodes" | "network" | "peers" | "upstream" | "clients";

/** Replaces the group's table in docs/reliability.md. */
export async function writeTable(group: GroupName, rows: readonly Row[], run: Run): Promise<void> {
  const text = await readFile(FILE, "utf8");
  const first = `<!-- swarm faults, ${group}: begin -->`;
  const begin = text.indexOf(first);
  const end = text.indexOf(`<!-- swarm faults, ${group}: end -->`);
  if (begin < 0 || end < begin) throw new Error(`${FILE} has no place for the table of ${group}`);
  const made = `${first}\n\n${caption(run)}\n\n${table(rows)}\n\n`;
  await writeFile(FILE, text.slice(0, begin) + made + text.slice(end));
}

function caption({ scene, loadBefore }: Run): string {
  const cpus = os.cpus();
  const memory = Math.round(os.totalmem() / 2 ** 30);
  const busy =
    loadBefore < 0.5
      ? "Nothing else ran on it."
      : `It was busy with other work: a load of ${loadBefore.toFixed(1)} before the run began.`;
  return [
    `${new Date().toISOString().slice(0, 10)}, Linux ${os.release()}, ${cpus.length} x ${cpus[0]?.model}, ${memory} GiB.`,
    busy,
    scene,
  ].join("\n");
}

function table(rows: readonly Row[]): string {
  const cells = [
    ["Fault", "last node, s", "extra, s", "allowed, s", "copies out of upstream", "allowed"],
    ...rows.map(({ fault, last, extra, allowed, copies, limit }) => [
      fault,
      last.toFixed(1),
      extra?.toFixed(1) ?? "",
      allowed?.toFixed(1) ?? "",
      copies.toFixed(2),
      limit.toFixed(2),
    ]),
  ];
  const widths = cells[0]?.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? "").length)));
  const pad = (text: string, column: number): string =>
    column === 0 ? text.padEnd(widths?.[column] ?? 0) : text.padStart(widths?.[column] ?? 0);
  const line = (row: readonly string[]): string => `| ${row.map(pad).join(" | ")} |`;
  const rule = `| ${(widths ?? []).map((width, column) => (column === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`)).join(" | ")} |`;
  const [head = [], ...body] = cells;
  return [line(head), rule, ...body.map(line)].join("\n");
}
