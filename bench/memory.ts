import { readFile } from "node:fs/promises";
import { blobsOf, makeImage } from "../test/rig/images.ts";
import { atMost, rounded, type BenchResult } from "./lib/bench.ts";
import { drain } from "./lib/programs.ts";
import { advertised, blobUrl, connected, MIB, pullThrough, Scene, V8_FLAGS } from "./lib/scene.ts";

export const name = "memory";
export const description = "resident memory of a mirror that serves 8 and fetches 8 blobs of 256 MiB at once";

const REPOSITORY = "bench/memory";

/** Options: blobs each way (default 8), MiB each (default 256). */
export async function run([count = "8", size = "256"]: readonly string[]): Promise<BenchResult> {
  await using scene = await Scene.open();
  const layers = Array.from({ length: Number(count) }, () => Number(size) * MIB);
  const served = makeImage({ seed: "memory served", layers });
  await scene.push(served, `${REPOSITORY}-served`);
  const preparing = await scene.mirror("mirror");
  await pullThrough(preparing, served, `${REPOSITORY}-served`);
  const fetched = makeImage({ seed: "memory fetched", layers });
  await scene.push(fetched, `${REPOSITORY}-fetched`);
  const holder = await scene.mirror("holder", { bootstrap: [preparing.p2pAddress] });
  await pullThrough(holder, fetched, `${REPOSITORY}-fetched`);
  await advertised(holder, layers.length);
  // Afresh, with what it holds on disk: what counts is this work, not what came before.
  await preparing.stop();
  await preparing.start();
  await connected(preparing);
  const idle = await residentMib(preparing.pid);
  const urls = [served, fetched].flatMap((image, index) =>
    blobsOf(image)
      .filter(({ bytes }) => bytes.length > MIB)
      .map(({ descriptor }) =>
        blobUrl(preparing, `${REPOSITORY}-${index === 0 ? "served" : "fetched"}`, descriptor.digest),
      ),
  );
  const drained = await Promise.all(urls.map((url) => drain(url)));
  const bytes = drained.reduce((sum, one) => sum + one.bytes, 0);
  const peak = await peakMib(preparing.pid);
  return {
    rows: [
      {
        "V8 flags": V8_FLAGS.join(" "),
        "bodies at once": urls.length,
        "GiB moved": rounded(bytes / 1024 / MIB),
        "idle MiB": rounded(idle),
        "peak MiB": rounded(peak),
      },
    ],
    targets: [atMost("peak resident memory", peak, 160, "MiB")],
  };
}

const field = async (pid: number, name: string): Promise<number> => {
  const text = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1]) / 1024;
};

const residentMib = (pid: number): Promise<number> => field(pid, "VmRSS");
/** High-water mark since the start, as the kernel saw it: no peak is missed between samples. */
const peakMib = (pid: number): Promise<number> => field(pid, "VmHWM");
