import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import t from "tap";
import { isDigest, type Digest } from "@p2p-mirror/shared";
import { seededNumbers } from "../packages/p2p-mirror/test/conformance/seeded.ts";
import { runCache, temporaryDir } from "../packages/p2p-mirror/test/store/cache-fixture.ts";
import { readLayout } from "../packages/p2p-mirror/test/store/layout-reader.ts";

const RUNS = 100;
/** Directories worked on side by side; each is crashed and reopened again and again. */
const LANES = 2;
const SEED = process.env["TEST_SEED"] ?? String(Date.now() % 1_000_000_000);
const CHILD = fileURLToPath(new URL("../packages/p2p-mirror/test/store/crash-child.ts", import.meta.url));

/** What the children said of a directory, over all their lives. */
class Claims {
  readonly held = new Set<Digest>();
  readonly tags = new Map<string, Digest>();

  take(line: string): void {
    const [verb, first = "", second = ""] = line.split(" ");
    if (verb === "added" && isDigest(first)) this.held.add(first);
    else if (verb === "removed" && isDigest(first)) this.held.delete(first);
    else if (verb === "tagged" && isDigest(second)) this.tags.set(first, second);
  }
}

const spawnChild = (args: readonly string[], compiled: string) =>
  spawn(process.execPath, ["--conditions=@p2p-mirror/source", CHILD, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, NODE_COMPILE_CACHE: compiled, NODE_OPTIONS: "" },
  });

/** Lets a child work until it has said so many lines, and kills it in the middle of what it does then. */
async function crash(
  dir: string,
  seed: string,
  afterLines: number,
  claims: Claims,
  compiled: string,
): Promise<void> {
  const child = spawnChild([dir, seed], compiled);
  const exited = once(child, "exit");
  let lines = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    claims.take(line);
    if (lines++ === afterLines) child.kill("SIGKILL");
  }
  const [code, signal]: unknown[] = await exited;
  if (signal !== "SIGKILL") throw new Error(`the child ended by itself: ${String(code)} ${String(signal)}`);
}

function integrityOf(file: string): unknown {
  const db = new DatabaseSync(file);
  try {
    return db.prepare("PRAGMA integrity_check").get()?.["integrity_check"];
  } finally {
    db.close();
  }
}

await t.test(`killed at any moment, the cache loses nothing it said it has (seed ${SEED})`, async (t) => {
  const compiled = await temporaryDir(t);
  await once(spawnChild([], compiled), "exit");
  let verified = 0;

  const lane = async (nth: number): Promise<void> => {
    const dir = await temporaryDir(t);
    const claims = new Claims();
    const random = seededNumbers(`${SEED} lane ${nth}`);
    for (let run = nth; run < RUNS; run += LANES) {
      const seed = `${SEED} run ${run}`;
      // One in eight while it is still starting up on what the last one left behind.
      const afterLines = random(8) === 0 ? 0 : random(80);
      await crash(dir, seed, afterLines, claims, compiled);
      const where = `${seed}, killed after ${afterLines} lines`;
      if (!(await fs.stat(path.join(dir, "index.json")).catch(() => undefined))) continue;
      const { blobs } = await readLayout(dir);
      verified += blobs.size;
      const lost = [...claims.held].filter((digest) => !blobs.has(digest));
      if (lost.length > 0) t.fail(`lost ${lost.join(", ")}`, { where });
      if (integrityOf(path.join(dir, "index.db")) !== "ok") t.fail("the database is damaged", { where });
    }

    const cache = await runCache(t, { dir });
    t.same(await fs.readdir(path.join(dir, "ingest")), [], "nothing half-done is left");
    for (const digest of claims.held) {
      const blob = await cache.store.stat(digest);
      const stream = await cache.store.read(digest, { start: 0, end: blob?.size ?? 0 });
      await t.resolves(stream?.toArray() ?? Promise.reject(new Error(`${digest} cannot be read`)));
    }
    for (const [tag, digest] of claims.tags) {
      const entry = cache.catalog.tag({ registry: "registry.test", repository: "crash/test" }, tag);
      t.equal(entry?.descriptor.digest, digest, `${tag} is what it was last`);
    }
    await cache.close();
    const { manifests, blobs } = await readLayout(dir);
    t.ok(
      manifests.every(({ digest }) => blobs.has(digest)),
      "index.json names only what is there",
    );
  };

  await Promise.all(Array.from({ length: LANES }, (_, nth) => lane(nth)));
  t.ok(verified > RUNS, `${verified} blobs were hashed after ${RUNS} crashes`);
});
