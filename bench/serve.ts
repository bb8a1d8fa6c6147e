import { createHash, randomFillSync } from "node:crypto";
import path from "node:path";
import { mkdir, rm } from "node:fs/promises";
import { Registry } from "prom-client";
import { MEDIA_TYPES, parseDigest, silentLogger, type Digest } from "@p2p-mirror/shared";
import { createCache } from "../packages/p2p-mirror/src/store/cache/create-cache.ts";
import { createStoreMetrics } from "../packages/p2p-mirror/src/store/metrics.ts";
import { startMirror } from "../test/rig/mirror.ts";
import { startProcess } from "../test/rig/process.ts";
import { tempFolder } from "../test/rig/temp.ts";
import { atLeast, median, rounded, type BenchResult } from "./lib/bench.ts";
import { cpuSeconds } from "./lib/cpu.ts";
import { discard } from "./lib/discard.ts";

export const name = "serve";
export const description =
  "One verified blob of 1 GiB from the mirror's store over loopback, against a bare fs.createReadStream HTTP server " +
  "on the same file, alternating; medians. Arguments: [rounds, default 9] [MiB, default 1024]";

const MIB = 1024 * 1024;
const ORIGIN = { registry: "registry.example", repository: "bench/serve" };
const MUST_RATIO = 0.85;
const MUST_BYTES_PER_SECOND = 1.2e9;

interface Server {
  readonly name: string;
  readonly pid: number;
  readonly url: URL;
  readonly seconds: number[];
  cpu: number;
}

export async function run(args: readonly string[]): Promise<BenchResult> {
  const rounds = Number(args[0] ?? 9);
  const size = Number(args[1] ?? 1024) * MIB;
  await using scene = new AsyncDisposableStack();
  const folder = scene.adopt(await tempFolder("bench"), (it) => rm(it, { recursive: true, force: true }));
  const dataDir = path.join(folder, "data");
  const digest = await fillCache(path.join(dataDir, "cache"), size);

  const mirror = scene.use(await startMirror({ dataDir, access: "open", logLevel: "info" }));
  const bare = scene.use(
    await startProcess({
      name: "bare server",
      argv: [
        process.execPath,
        path.join(import.meta.dirname, "lib/bare-server.ts"),
        path.join(dataDir, "cache/blobs/sha256", digest.slice("sha256:".length)),
      ],
    }),
  );
  const port = await bare.until("it listens", () => /^port (\d+)$/m.exec(bare.log())?.[1]);
  const target = `/v2/${ORIGIN.repository}/blobs/${digest}?ns=${ORIGIN.registry}`;
  const servers: Server[] = [
    { name: "mirror", pid: mirror.pid, url: new URL(target, mirror.url), seconds: [], cpu: 0 },
    { name: "bare", pid: bare.pid, url: new URL(`http://127.0.0.1:${port}/`), seconds: [], cpu: 0 },
  ];

  // The first read after a start is hashed (a figure of its own); two rounds each warm the page cache and the compiler.
  const cpuBefore = await cpuSeconds(mirror.pid);
  const hashed = await discard(servers[0]?.url ?? new URL("about:blank"), size);
  const hashedCpu = (await cpuSeconds(mirror.pid)) - cpuBefore;
  for (let round = -2; round < rounds; round++) {
    // Who goes first alternates too.
    for (const server of round % 2 === 0 ? servers : servers.toReversed()) {
      const before = await cpuSeconds(server.pid);
      const seconds = await discard(server.url, size);
      if (round < 0) continue;
      server.seconds.push(seconds);
      server.cpu += (await cpuSeconds(server.pid)) - before;
    }
  }
  const rows = servers.map((server) => ({
    server: server.name,
    "GB/s": rounded(size / median(server.seconds) / 1e9),
    "best GB/s": rounded(size / Math.min(...server.seconds) / 1e9),
    "CPU s/GiB": rounded(server.cpu / rounds / (size / 1024 / MIB)),
    "GB per CPU second": rounded((size * rounds) / server.cpu / 1e9),
  }));
  const [ours, theirs] = servers.map((server) => size / median(server.seconds));
  const ratio = (ours ?? 0) / (theirs ?? 1);
  const perCore = (size * rounds) / (servers[0]?.cpu ?? 1);
  return {
    rows: [
      ...rows,
      {
        server: "mirror, first read after a start (hashed)",
        "GB/s": rounded(size / hashed / 1e9),
        "best GB/s": rounded(size / hashed / 1e9),
        "CPU s/GiB": rounded(hashedCpu / (size / 1024 / MIB)),
        "GB per CPU second": rounded(size / hashedCpu / 1e9),
      },
    ],
    targets: [
      atLeast("mirror / bare server", ratio, MUST_RATIO),
      atLeast("on one core", perCore / 1e9, MUST_BYTES_PER_SECOND / 1e9, "GB/s"),
    ],
  };
}

/** A random blob in a cache as the daemon would have left it, so that it starts with the blob held. */
async function fillCache(dir: string, size: number): Promise<Digest> {
  await mkdir(dir, { recursive: true });
  const cache = createCache(
    { dir, size: size * 2 + 64 * MIB, minFree: { bytes: 0 }, registries: new Map() },
    { logger: silentLogger(), metrics: createStoreMetrics(new Registry()) },
  );
  await cache.start(new AbortController().signal);
  try {
    const hash = createHash("sha256");
    const seed = randomFillSync(Buffer.alloc(MIB));
    for (let at = 0; at < size; at += MIB) {
      seed.writeUInt32LE(at / MIB);
      hash.update(seed);
    }
    const digest = parseDigest(`sha256:${hash.digest("hex")}`);
    const ingest = await cache.store.ingest({ digest, size, mediaType: MEDIA_TYPES.octetStream }, ORIGIN);
    if (ingest === undefined) throw new Error(`no room for ${size} bytes in ${dir}`);
    try {
      for (let at = 0; at < size; at += MIB) {
        seed.writeUInt32LE(at / MIB);
        await ingest.file.write(seed, 0, MIB, at);
      }
      await ingest.commit();
    } finally {
      await ingest.release();
    }
    return digest;
  } finally {
    await cache.close();
  }
}
