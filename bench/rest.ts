import { readFile } from "node:fs/promises";
import { component } from "../test/rig/components.ts";
import { startContainerd } from "../test/rig/containerd.ts";
import { makeImage } from "../test/rig/images.ts";
import { cpuAtRest, restTargets } from "./lib/at-rest.ts";
import { rounded, type BenchResult } from "./lib/bench.ts";
import { cpuSeconds } from "./lib/cpu.ts";
import { DIGESTS, pullMany } from "./lib/held.ts";
import { advertised, connected, pullThrough, Scene } from "./lib/scene.ts";

export const name = "rest";
export const description =
  "resident memory and CPU of a mirror that holds 1,000 digests and has nothing to do";

/**
 * Options: seconds watched (default 120), and other flags of Node. With a containerd beside it and hosts.toml to keep, as in
 * a Pod; needs root for that.
 */
export async function run([seconds = "120", ...flags]: readonly string[]): Promise<BenchResult> {
  await using scene = await Scene.open();
  const containerd = scene.use(await startContainerd({ component: await component("containerd-1.7") }));
  const mirror = await scene.mirror("mirror", {
    containerdSocket: containerd.socket,
    logLevel: "info",
    flags: ["--hosts-dir", containerd.certsDir],
    ...(flags.length === 0 ? {} : { nodeFlags: flags }),
  });
  await pullMany(async (layers, n) => {
    const image = makeImage({ seed: `rest ${n}`, layers });
    await scene.push(image, `bench/rest-${n}`);
    await pullThrough(mirror, image, `bench/rest-${n}`);
  });
  await mirror.stop();
  const began = performance.now();
  await mirror.start();
  const start = (performance.now() - began) / 1000;
  await scene.mirror("other", { bootstrap: [mirror.p2pAddress] });
  await connected(mirror);
  await advertised(mirror, DIGESTS);
  const percent = await cpuAtRest(Number(seconds), () => cpuSeconds(mirror.pid));
  const memory = await memoryMib(mirror.pid);
  return {
    rows: [
      {
        "blobs held": (await mirror.metrics()).sum("p2p_mirror_cache_blobs"),
        "ready after s": rounded(start),
        "RSS MiB": rounded(memory.VmRSS),
        "of it files": rounded(memory.RssFile),
        "peak MiB": rounded(memory.VmHWM),
        "% of a core": rounded(percent),
      },
    ],
    targets: restTargets(memory.VmRSS, percent),
  };
}

async function memoryMib(pid: number): Promise<Record<"VmRSS" | "RssFile" | "VmHWM", number>> {
  const text = await readFile(`/proc/${pid}/status`, "utf8");
  const field = (what: string): number =>
    Number(new RegExp(`^${what}:\\s+(\\d+) kB`, "m").exec(text)?.[1]) / 1024;
  return { VmRSS: field("VmRSS"), RssFile: field("RssFile"), VmHWM: field("VmHWM") };
}
