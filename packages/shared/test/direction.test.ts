import { readdir, readFile } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import t from "tap";
import { areaOf, findViolations, importsOf, PORTS, withoutComments } from "./direction-rules.ts";

const PACKAGES = join(import.meta.dirname, "..", "..");

async function readSources(): Promise<Map<string, string>> {
  const sources = new Map<string, string>();
  for (const name of ["shared", "p2p-mirror", "prefetcher"]) {
    const root = join(PACKAGES, name, "src");
    const entries = await readdir(root, { recursive: true, withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (!entry.isFile() || !/\.m?[jt]s$/.test(entry.name)) continue;
      const path = join(entry.parentPath, entry.name);
      sources.set(relative(PACKAGES, path).split(sep).join("/"), await readFile(path, "utf8"));
    }
  }
  return sources;
}

async function readDeclared(): Promise<Map<string, Set<string>>> {
  const declared = new Map<string, Set<string>>();
  for (const name of ["shared", "p2p-mirror", "prefetcher"]) {
    const manifest: { dependencies?: Record<string, string> } = JSON.parse(
      await readFile(join(PACKAGES, name, "package.json"), "utf8"),
    );
    declared.set(name, new Set(Object.keys(manifest.dependencies ?? {})));
  }
  return declared;
}

await t.test("every import of every package goes the way the architecture says", async (t) => {
  const sources = await readSources();
  t.ok(sources.size > 50, "the sources were found");
  for (const port of PORTS) t.ok(sources.has(port), `the port ${port} exists`);
  t.same(findViolations(sources, await readDeclared()), []);
});

const DECLARED = new Map([
  ["shared", new Set(["pino"])],
  ["p2p-mirror", new Set(["fastify", "undici", "libp2p", "commander", "@p2p-mirror/shared"])],
]);

const mirror = (file: string): string => `p2p-mirror/src/${file}`;

/** Whether one source at a path breaks a rule, beside the files it may import. */
function breaks(path: string, source: string): boolean {
  const others = [
    "store/content-store.ts",
    "store/cache/disk-cache.ts",
    "routing/kad-router.ts",
    "trust/identity.ts",
  ];
  const sources = new Map([
    ...others.map((other): [string, string] => [`p2p-mirror/src/${other}`, ""]),
    ["p2p-mirror/src/cli/program.ts", ""],
    ["p2p-mirror/src/daemon.ts", ""],
    [path, source],
  ]);
  return findViolations(sources, DECLARED).length > 0;
}

await t.test("the rules fail on what they forbid", async (t) => {
  const forbidden: [string, string][] = [
    ["shared/src/x.ts", 'import { fastify } from "fastify";'],
    ["shared/src/x.ts", 'import { x } from "@p2p-mirror/p2p-mirror";'],
    ["shared/src/x.ts", 'import { x } from "../../p2p-mirror/src/daemon.ts";'],
    ["shared/src/x.ts", 'import { x } from "undeclared";'],
    [mirror("http/x.ts"), 'import { DiskCache } from "../store/cache/disk-cache.ts";'],
    [mirror("http/x.ts"), 'import type { DiskCache } from "../store/cache/disk-cache.ts";'],
    [mirror("transfer/x.ts"), 'const { KadRouter } = await import("../routing/kad-router.ts");'],
    [mirror("transfer/x.ts"), 'export { KadRouter } from "../routing/kad-router.ts";'],
    [mirror("store/x.ts"), 'import "../trust/identity.ts";'],
    [mirror("store/content-store.ts"), 'import { DiskCache } from "./cache/disk-cache.ts";'],
    [mirror("cli/x.ts"), 'import { createDaemon } from "../daemon.ts";'],
    [mirror("daemon.ts"), 'import { runProgram } from "./cli/program.ts";'],
    [mirror("store/x.ts"), 'import { fastify } from "fastify";'],
    [mirror("routing/x.ts"), 'import { CoreV1Api } from "@kubernetes/client-node";'],
    [mirror("unheard-of/x.ts"), 'import { x } from "../trust/identity.ts";'],
    [mirror("store/x.ts"), 'import { x } from "./no-such-file.ts";'],
    [mirror("store/x.ts"), "const home = process.env.HOME;"],
    [mirror("store/x.ts"), 'const home = process["env"];'],
    [mirror("store/x.ts"), "const text = `${process.pid}`;"],
    [mirror("store/x.ts"), 'import { env } from "node:process";'],
    [mirror("store/x.ts"), "globalThis.process.exit(0);"],
  ];
  for (const [path, source] of forbidden) t.ok(breaks(path, source), `${path}: ${source}`);
});

await t.test("the rules pass what they allow", async (t) => {
  const allowed: [string, string][] = [
    [mirror("store/x.ts"), 'import type { ContentStore } from "./content-store.ts";'],
    [mirror("transfer/x.ts"), 'import type { ContentStore } from "../store/content-store.ts";'],
    [
      mirror("routing/x.ts"),
      'import { loadIdentity } from "../trust/identity.ts"; import { createLibp2p } from "libp2p";',
    ],
    [mirror("daemon.ts"), 'import { DiskCache } from "./store/cache/disk-cache.ts";'],
    [
      mirror("main.ts"),
      'process.exitCode = 0; await import("./daemon.ts"); import { p } from "./cli/program.ts";',
    ],
    [mirror("store/x.ts"), '// process.exit here would be wrong\nconst url = "http://x/process.html";'],
    [mirror("store/x.ts"), '/* import "../trust/identity.ts" */ const other = subprocess.pid;'],
    ["shared/src/x.ts", 'import { pino } from "pino"; import { open } from "node:fs/promises";'],
  ];
  for (const [path, source] of allowed) t.notOk(breaks(path, source), `${path}: ${source}`);
});

await t.test("imports are found in every form, and not in comments", async (t) => {
  const source = `
    import a, { type B } from "a";
    import type { C } from 'c';
    export * from "d";
    import "e"; // import "not-this"
    const f = await import("f");
    const g = require("g");
    /* from "nor-this" */
    import {
      h,
    } from "h";`;
  t.same(new Set(importsOf(source)), new Set(["a", "c", "d", "e", "f", "g", "h"]));
  t.equal(withoutComments('const url = "https://host"; // gone').trim(), 'const url = "https://host";');
  t.equal(areaOf("p2p-mirror/src/store/cache/disk-cache.ts"), "store");
  t.equal(areaOf("p2p-mirror/src/store/content-store.ts"), "ports");
  t.equal(areaOf("p2p-mirror/src/daemon.ts"), "daemon");
  t.equal(areaOf("p2p-mirror/src/daemon-status.ts"), "daemon");
});
