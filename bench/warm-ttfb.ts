import { generateKeyPair } from "@libp2p/crypto/keys";
import { Agent, request, type Dispatcher } from "undici";
import { clusterSecrets } from "../packages/p2p-mirror/src/trust/cluster-secret.ts";
import { identityOf } from "../packages/p2p-mirror/src/trust/identity.ts";
import { createPeerTls } from "../packages/p2p-mirror/src/trust/peer-tls.ts";
import { blobsOf, makeImage } from "../test/rig/images.ts";
import type { Mirror } from "../test/rig/mirror.ts";
import { atMost, percentile, rounded, type BenchResult } from "./lib/bench.ts";
import { advertised, blobUrl, connected, pullThrough, REGISTRY, Scene } from "./lib/scene.ts";

export const name = "warm-ttfb";
export const description =
  "first byte of layers and manifests through a mirror whose peer holds them, against straight to that peer";

const LAYER_BYTES = 80 * 1024;
/** Asked for before anything is measured: a node's mirror has long been running, and code that runs for the first time is slow. */
const WARM_UP = 20;

/** Options: how many of each (default 500). The first request of the process is reported beside them. */
export async function run([count = "500"]: readonly string[]): Promise<BenchResult> {
  await using scene = await Scene.open();
  const holder = await scene.mirror("holder");
  const images = Array.from({ length: WARM_UP + Number(count) }, (_, n) => {
    return { image: makeImage({ seed: `ttfb ${n}`, layers: [LAYER_BYTES] }), repository: `bench/ttfb-${n}` };
  });
  for (const { image, repository } of images) {
    await scene.push(image, repository);
    await pullThrough(holder, image, repository);
  }
  await advertised(holder, images.length * 3);
  const asker = await scene.mirror("asker", { bootstrap: [holder.p2pAddress] });
  await connected(asker);

  using toPeer = await peerAgent(holder);
  using toMirror = closing(new Agent({ connections: 1 }));
  const times = {
    manifest: { through: [] as number[], straight: [] as number[] },
    layer: { through: [] as number[], straight: [] as number[] },
  };
  const peer = `https://${holder.peerAddress}/p2p/v1/blobs/`;
  for (const { image, repository } of images) {
    const { digest } = image.descriptor;
    const layer = blobsOf(image).find(({ bytes }) => bytes.length > LAYER_BYTES)?.descriptor.digest ?? "";
    // In turn, so that what else the machine does meets all alike.
    times.manifest.straight.push(await firstByte(`${peer}${digest}`, toPeer.agent));
    times.manifest.through.push(
      await firstByte(`${asker.url}/v2/${repository}/manifests/${digest}?ns=${REGISTRY}`, toMirror.agent),
    );
    times.layer.straight.push(await firstByte(`${peer}${layer}`, toPeer.agent));
    times.layer.through.push(await firstByte(blobUrl(asker, repository, layer), toMirror.agent));
  }
  const rows = Object.entries(times).map(([what, all]) => {
    const through = all.through.slice(WARM_UP);
    const straight = all.straight.slice(WARM_UP);
    return {
      what,
      "straight p50 ms": rounded(percentile(straight, 0.5)),
      "straight p99 ms": rounded(percentile(straight, 0.99)),
      "mirror p50 ms": rounded(percentile(through, 0.5)),
      "mirror p99 ms": rounded(percentile(through, 0.99)),
      "added p50 ms": rounded(percentile(through, 0.5) - percentile(straight, 0.5)),
      "added p99 ms": rounded(percentile(through, 0.99) - percentile(straight, 0.99)),
      "slowest ms": rounded(Math.max(...through)),
      "first of the process ms": rounded(all.through[0] ?? Number.NaN),
    };
  });
  return {
    rows,
    targets: rows.flatMap((row) => [
      atMost(`${row.what}: added to the first byte, p50`, row["added p50 ms"], 3, "ms"),
      atMost(`${row.what}: added to the first byte, p99`, row["added p99 ms"], 12, "ms"),
    ]),
  };
}

/** Milliseconds from the request to the first byte of the body. */
async function firstByte(url: string, dispatcher: Dispatcher): Promise<number> {
  const began = performance.now();
  const { statusCode, body } = await request(url, { dispatcher });
  if (statusCode !== 200) throw new Error(`${url} answered ${statusCode}`);
  let first: number | undefined;
  for await (const chunk of body) {
    void chunk;
    first ??= performance.now() - began;
  }
  return first ?? Number.NaN;
}

/** A client the holder takes for a peer: on the open mesh any identity is one. */
async function peerAgent(holder: Mirror): Promise<{ agent: Agent } & Disposable> {
  const key = await generateKeyPair("Ed25519");
  const tls = createPeerTls(identityOf(key), clusterSecrets([]));
  const id = JSON.parse(await (await fetch(`${holder.adminUrl}/status`)).text()) as { node: { id: string } };
  return closing(new Agent({ connections: 1, connect: tls.clientOptions(id.node.id) }));
}

const closing = (agent: Agent): { agent: Agent } & Disposable => ({
  agent,
  [Symbol.dispose]: () => void agent.close(),
});
