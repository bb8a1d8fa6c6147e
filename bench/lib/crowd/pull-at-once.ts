import { rm } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import type { Containerd } from "../../../test/rig/containerd.ts";
import { tempFolder } from "../../../test/rig/temp.ts";
import { armCri, armFetch, type ArmedPull } from "./armed-pull.ts";
import { crowdBound, payloadRate } from "./bound.ts";
import type { CrowdOptions } from "./options.ts";
import { linksOf, SLOWER, type PushedImage, type Site } from "./site.ts";

/** One node's pull. */
export interface Pulled {
  readonly index: number;
  /** Seconds after the first one's beginning. */
  readonly began: number;
  /** From its own beginning. */
  readonly seconds: number;
  /** What ctr or containerd said, where it failed. */
  readonly failure: string | undefined;
}

export interface PullDeps {
  readonly site: Site;
  readonly containerds: readonly Containerd[];
  readonly options: CrowdOptions;
  readonly signal: AbortSignal;
  readonly say: (text: string) => void;
}

/** Behind a barrier, and with `stagger` one after the other from there on. Resolves when every pull has ended. */
export async function pullAtOnce(
  image: PushedImage,
  nodes: readonly number[],
  deps: PullDeps,
): Promise<readonly Pulled[]> {
  const { site, containerds, options, signal, say } = deps;
  await using stage = new AsyncDisposableStack();
  const folder = await tempFolder("crowd");
  stage.defer(() => rm(folder, { recursive: true, force: true }));
  const timeoutMs = patienceMs(image, options);
  const armed: { readonly index: number; readonly pull: ArmedPull }[] = [];
  for (const index of nodes) {
    const containerd = containerds[index];
    const place = site.nodePlaces[index];
    if (containerd === undefined || place === undefined) throw new TypeError(`there is no node ${index}`);
    const target = { containerd, place, reference: image.reference, timeoutMs };
    const pull = await (options.via === "cri"
      ? armCri(target)
      : armFetch(target, folder, `node-${index + 1}`));
    armed.push({ index, pull: stage.use(pull) });
  }
  const stop = (): void => {
    for (const { pull } of armed) void pull[Symbol.asyncDispose]();
  };
  signal.addEventListener("abort", stop);
  stage.defer(async () => signal.removeEventListener("abort", stop));
  signal.throwIfAborted();
  const spread = image === site.image ? staggerMs(options, image) : 0;
  const start = performance.now();
  const pulling = Promise.all(
    armed.map(async ({ index, pull }, nth): Promise<Pulled> => {
      if (spread > 0) await pause((nth * spread) / armed.length, undefined, { signal });
      const began = performance.now();
      pull.release();
      const failure = await pull.done.then(
        () => undefined,
        (error: unknown) => String(error),
      );
      const end = performance.now();
      return { index, began: (began - start) / 1000, seconds: (end - began) / 1000, failure };
    }),
  );
  say(`${nodes.length} of ${containerds.length} nodes pull ${image.reference}`);
  const pulled = await pulling;
  signal.throwIfAborted();
  return pulled;
}

/** What the last node's beginning waits for, of which the first one's is the start. */
function staggerMs(options: CrowdOptions, image: PushedImage): number {
  const { stagger } = options;
  return 1000 * (stagger === "pull" ? crowdBound(image.bytes, 1, linksOf(options)) : stagger);
}

/** Longer than the worst of the systems takes, when every copy goes through the thinnest of the links. */
function patienceMs(image: PushedImage, options: CrowdOptions): number {
  const { upstreamRate, nodeRate, cacheRate = nodeRate, wanPerNode = nodeRate, nodes, slowNode } = options;
  const thinnest = payloadRate(Math.min(upstreamRate, nodeRate, cacheRate, wanPerNode));
  const alone = slowNode ? (SLOWER * image.bytes) / linksOf(options).ingress : 0;
  return 1000 * (60 + alone + (1.5 * (nodes + 1) * image.bytes) / thinnest);
}
