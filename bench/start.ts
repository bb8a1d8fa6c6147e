import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeImage } from "../test/rig/images.ts";
import { atMost, median, rounded, type BenchResult } from "./lib/bench.ts";
import { DIGESTS, pullMany } from "./lib/held.ts";
import { pullThrough, Scene } from "./lib/scene.ts";

export const name = "start";
export const description = "from exec to Ready with 1,000 blobs held";

/** Options: runs (default 7). */
export async function run([runs = "7"]: readonly string[]): Promise<BenchResult> {
  await using scene = await Scene.open();
  const dataDir = await mkdtemp(join(tmpdir(), "bench-start-"));
  scene.defer(() => rm(dataDir, { recursive: true, force: true }));
  const mirror = await scene.mirror("mirror", { dataDir });
  await pullMany(async (layers, n) => {
    const image = makeImage({ seed: `start ${n}`, layers });
    await scene.push(image, `bench/start-${n}`);
    await pullThrough(mirror, image, `bench/start-${n}`);
  });
  const held = (await mirror.metrics()).sum("p2p_mirror_cache_blobs");
  if (held < DIGESTS) throw new Error(`the mirror holds ${held} blobs`);

  const seconds: number[] = [];
  const rows: Record<string, number>[] = [];
  for (let n = 1; n <= Number(runs); n += 1) {
    await mirror.stop();
    const began = performance.now();
    await mirror.start();
    const took = (performance.now() - began) / 1000;
    seconds.push(took);
    rows.push({ run: n, "blobs held": held, "ready after s": rounded(took) });
  }
  return { rows, targets: [atMost("median seconds from exec to Ready", median(seconds), 2, "s")] };
}
