import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { blobsOf, makeImage } from "../test/rig/images.ts";
import type { Mirror } from "../test/rig/mirror.ts";
import { atLeast, median, rounded, type BenchResult } from "./lib/bench.ts";
import { startPlainServer } from "./lib/plain-server.ts";
import { drain, type Drained } from "./lib/programs.ts";
import { advertised, blobUrl, connected, MIB, Scene } from "./lib/scene.ts";

export const name = "relay";
export const description =
  "a cold blob from a peer to the client, verified and stored, against plain HTTPS without storing";

const REPOSITORY = "bench/relay";

/** Options: size in MiB (default 1024), runs (default 5). */
export async function run([size = "1024", runs = "5"]: readonly string[]): Promise<BenchResult> {
  await using scene = await Scene.open();
  const image = makeImage({ seed: "relay", layers: [Number(size) * MIB] });
  await scene.push(image, REPOSITORY);
  const layer = blobsOf(image).reduce((a, b) => (a.bytes.length > b.bytes.length ? a : b));
  const { digest } = layer.descriptor;

  const holder = await scene.mirror("holder");
  await drain(blobUrl(holder, REPOSITORY, digest));
  await advertised(holder, 1);
  const plain = scene.use(await startPlainServer(layer.bytes));
  const dir = await mkdtemp(join(tmpdir(), "bench-"));
  scene.defer(() => rm(dir, { recursive: true, force: true }));
  const tlsFile = join(dir, "tls.json");
  await writeFile(tlsFile, JSON.stringify({ rejectUnauthorized: false }));

  const rows: Record<string, number>[] = [];
  const ratios: number[] = [];
  for (let n = 1; n <= Number(runs); n += 1) {
    const direct = await drain(plain.url, tlsFile);
    const relayed = await coldPull(scene, holder, digest);
    const ratio = direct.seconds / relayed.seconds;
    ratios.push(ratio);
    rows.push({
      run: n,
      "https MB/s": Math.round(direct.bytes / direct.seconds / 1e6),
      "relay MB/s": Math.round(relayed.bytes / relayed.seconds / 1e6),
      "relay first byte ms": rounded(relayed.firstByteMs),
      "relay CPU s/GiB": rounded((relayed.cpuSeconds * 1024 * MIB) / relayed.bytes),
      ratio: rounded(ratio),
    });
  }
  return { rows, targets: [atLeast("median ratio relay / plain HTTPS", median(ratios), 0.6)] };
}

/** Through a mirror that has never seen the blob. */
async function coldPull(
  scene: Scene,
  holder: Mirror,
  digest: string,
): Promise<Drained & { cpuSeconds: number }> {
  await using asker = await scene.passing("asker", { bootstrap: [holder.p2pAddress] });
  await connected(asker);
  const before = (await asker.metrics()).sum("process_cpu_seconds_total");
  const drained = await drain(blobUrl(asker, REPOSITORY, digest));
  const metrics = await asker.metrics();
  const fromPeer = metrics.sum("p2p_mirror_received_bytes_total", { source: "peer" });
  if (fromPeer < drained.bytes) throw new Error(`only ${fromPeer} bytes came from the peer`);
  return { ...drained, cpuSeconds: metrics.sum("process_cpu_seconds_total") - before };
}
