import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { blobsOf, makeImage, pushImage } from "../test/rig/images.ts";
import { startMirror, type Mirror } from "../test/rig/mirror.ts";
import { startOciRegistry } from "../test/rig/oci-registry.ts";
import { until } from "../test/rig/until.ts";
import { atLeast, median, rounded, type BenchResult } from "./lib/bench.ts";
import { startPlainServer } from "./lib/plain-server.ts";
import { build, drain } from "./lib/programs.ts";

export const name = "relay";
export const description =
  "a cold blob from a peer to the client, verified and stored, against plain HTTPS without storing";

const MIB = 1024 * 1024;
const REGISTRY = "bench.example";

/** Options: size in MiB (default 1024), runs (default 5). */
export async function run([size = "1024", runs = "5"]: readonly string[]): Promise<BenchResult> {
  await build();
  await using scene = new AsyncDisposableStack();
  const registry = scene.adopt(await startOciRegistry(), (it) => it.close());
  const image = makeImage({ seed: "relay", layers: [Number(size) * MIB] });
  await pushImage(image, { registry: registry.url, repository: "bench/relay", tags: ["v1"] });
  const layer = blobsOf(image).reduce((a, b) => (a.bytes.length > b.bytes.length ? a : b));
  const { digest } = layer.descriptor;
  const path = `/v2/bench/relay/blobs/${digest}?ns=${REGISTRY}`;

  const options = {
    built: true,
    access: "open",
    logLevel: "warn",
    upstreams: { [REGISTRY]: registry.url },
  } as const;
  const holder = scene.use(await startMirror({ ...options, name: "holder" }));
  await drain(holder.url + path);
  await until("the holder advertises the blob", async () => {
    return (await holder.metrics()).sum("p2p_mirror_dht_records_advertised") > 0;
  });
  const plain = scene.use(await startPlainServer(layer.bytes));
  const tlsFile = await tempFile(
    scene,
    "tls.json",
    JSON.stringify({ rejectUnauthorized: false }),
  );

  const rows: Record<string, number>[] = [];
  const ratios: number[] = [];
  for (let n = 1; n <= Number(runs); n += 1) {
    const direct = await drain(plain.url, tlsFile);
    const relayed = await coldPull(holder, path, options);
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

async function coldPull(
  holder: Mirror,
  path: string,
  options: Parameters<typeof startMirror>[0],
): Promise<{ bytes: number; seconds: number; firstByteMs: number; cpuSeconds: number }> {
  await using asker = await startMirror({ ...options, name: "asker", bootstrap: [holder.p2pAddress] });
  await until(
    "the asker knows the holder",
    async () => (await asker.metrics()).sum("p2p_mirror_dht_peers") > 0,
  );
  const before = (await asker.metrics()).sum("process_cpu_seconds_total");
  const drained = await drain(asker.url + path);
  const metrics = await asker.metrics();
  const fromPeer = metrics.sum("p2p_mirror_received_bytes_total", { source: "peer" });
  if (fromPeer !== drained.bytes) throw new Error(`only ${fromPeer} bytes came from the peer`);
  return { ...drained, cpuSeconds: metrics.sum("process_cpu_seconds_total") - before };
}

async function tempFile(scene: AsyncDisposableStack, file: string, text: string): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "bench-"));
  scene.defer(() => rm(dir, { recursive: true, force: true }));
  await writeFile(join(dir, file), text);
  return join(dir, file);
}
