import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { blobsOf, makeImage } from "../test/rig/images.ts";
import type { Mirror } from "../test/rig/mirror.ts";
import { atLeast, median, rounded, type BenchResult } from "./lib/bench.ts";
import { startBareRelay } from "./lib/bare-relay.ts";
import { startPlainServer } from "./lib/plain-server.ts";
import { drain, residentMemory, type Drained } from "./lib/programs.ts";
import { advertised, blobUrl, connected, MIB, REGISTRY, Scene } from "./lib/scene.ts";

export const name = "relay";
export const description =
  "a cold blob from a peer to the client, verified and stored, against plain HTTPS without storing, and against the least a relay has to do";

const REPOSITORY = "bench/relay";

/** Options: size in MiB (default 512), runs (default 5, after one that is not counted). Each run has a blob of its own. */
export async function run([size = "512", runs = "5"]: readonly string[]): Promise<BenchResult> {
  await using scene = await Scene.open();
  const layers = Array.from({ length: Number(runs) + 1 }, () => Number(size) * MIB);
  const image = makeImage({ seed: "relay", layers });
  await scene.push(image, REPOSITORY);
  const blobs = blobsOf(image).filter(({ bytes }) => bytes.length > MIB);
  const holder = await scene.mirror("holder");
  for (const { descriptor } of blobs) await drain(blobUrl(holder, REPOSITORY, descriptor.digest));
  await advertised(holder, blobs.length);
  const [first] = blobs;
  if (first === undefined) throw new TypeError("there is a blob");
  const plain = scene.use(await startPlainServer(first.bytes));
  const dir = await mkdtemp(join(tmpdir(), "bench-"));
  scene.defer(() => rm(dir, { recursive: true, force: true }));
  const tlsFile = join(dir, "tls.json");
  await writeFile(tlsFile, JSON.stringify({ rejectUnauthorized: false }));
  const bare = scene.use(await startBareRelay(plain.url, join(dir, "relayed")));
  const asker = await scene.mirror("asker", { bootstrap: [holder.p2pAddress] });
  await connected(asker);
  // As every client does first; sizes come from it.
  const manifest = `${asker.url}/v2/${REPOSITORY}/manifests/${image.descriptor.digest}?ns=${REGISTRY}`;
  if (!(await fetch(manifest)).ok) throw new Error("the manifest cannot be had");

  const rows: Record<string, number>[] = [];
  const ratios: number[] = [];
  for (const [n, { descriptor }] of blobs.entries()) {
    const direct = await drain(plain.url, tlsFile);
    await residentMemory(2 * Number(size) * MIB);
    const relayed = await coldPull(asker, descriptor.digest);
    await residentMemory(2 * Number(size) * MIB);
    const barely = await drain(bare.url);
    await rm(join(dir, "relayed"));
    // The first one also warms both servers up: a daemon runs for months.
    if (n === 0) continue;
    const ratio = direct.seconds / relayed.seconds;
    ratios.push(ratio);
    rows.push({
      run: n,
      "https MB/s": Math.round(direct.bytes / direct.seconds / 1e6),
      "relay MB/s": Math.round(relayed.bytes / relayed.seconds / 1e6),
      "bare relay MB/s": Math.round(barely.bytes / barely.seconds / 1e6),
      "relay first byte ms": rounded(relayed.firstByteMs),
      "relay CPU s/GiB": rounded((relayed.cpuSeconds * 1024 * MIB) / relayed.bytes),
      ratio: rounded(ratio),
      "bare relay's ratio": rounded(direct.seconds / barely.seconds),
      "of bare relay": rounded(barely.seconds / relayed.seconds),
    });
  }
  return { rows, targets: [atLeast("median ratio relay / plain HTTPS", median(ratios), 0.6)] };
}

async function coldPull(asker: Mirror, digest: string): Promise<Drained & { cpuSeconds: number }> {
  const before = await asker.metrics();
  const drained = await drain(blobUrl(asker, REPOSITORY, digest));
  const after = await asker.metrics();
  const grown = (name: string, labels = {}): number => after.sum(name, labels) - before.sum(name, labels);
  const fromPeer = grown("p2p_mirror_received_bytes_total", { source: "peer" });
  if (fromPeer < drained.bytes) throw new Error(`only ${fromPeer} bytes came from the peer`);
  return { ...drained, cpuSeconds: grown("process_cpu_seconds_total") };
}
