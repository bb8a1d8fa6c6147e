import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { Component } from "../../../test/rig/components.ts";
import { startContainerd, type Containerd } from "../../../test/rig/containerd.ts";
import { RigError } from "../../../test/rig/errors.ts";
import type { NetworkNode } from "../../../test/rig/netns.ts";
import { tempFolder } from "../../../test/rig/temp.ts";
import { cpuSeconds } from "../cpu.ts";
import { armCri, armFetch, type ArmedPull } from "./armed-pull.ts";
import { crowdBound, payloadRate } from "./bound.ts";
import { LoadMeter, peakResident, type MachineLoad } from "./machine.ts";
import type { CrowdOptions } from "./options.ts";
import type { SystemName } from "./shapes.ts";
import { SLOWER, type PushedImage, type Site } from "./site.ts";
import { startAll } from "./start-all.ts";
import { startSystem, type System } from "./systems.ts";
import { differences } from "./verify.ts";

export interface CrowdDeps {
  readonly site: Site;
  readonly registry: Component;
  readonly containerd: Component;
  readonly signal: AbortSignal;
  /** One line for the person who waits. */
  readonly say: (text: string) => void;
}

/** What one node saw. */
export interface NodeResult {
  /** From 0, in the order of the site. */
  readonly index: number;
  /** Seconds after the first one's beginning. */
  readonly began: number;
  /** Seconds from its own beginning to the end of its pull. */
  readonly seconds: number;
  /** Bytes that left its interface from the first beginning to the last end of all. */
  readonly sentBytes: number;
  /** In words: a pull that failed, or content that is not right. */
  readonly wrong: readonly string[];
}

export interface CrowdResult {
  readonly system: SystemName;
  /** Nodes of this run, holders included. */
  readonly nodes: number;
  readonly pullers: readonly NodeResult[];
  /**
   * Bytes that left upstream's interface from the first beginning to the last end, by its counter. It counts segments as
   * the kernel hands them over, with one header for several frames: 1 to 2 % above the payload, where the wire's frames,
   * by which the link is shaped, have 4.6 %.
   */
  readonly upstreamBytes: number;
  readonly load: MachineLoad;
  /** CPU seconds that the system's daemons used meanwhile, all together. */
  readonly daemonCpuSeconds: number;
  /** Of the one that had most; 0 where there is none. */
  readonly daemonPeakBytes: number;
}

/** The crowd once, on fresh containerds and a fresh system, which are gone afterwards. */
export async function runCrowd(
  name: SystemName,
  options: CrowdOptions,
  deps: CrowdDeps,
): Promise<CrowdResult> {
  const { site, registry, signal, say } = deps;
  await using stage = new AsyncDisposableStack();
  const places = site.nodePlaces.slice(0, options.nodes);
  const containerds = await startAll(stage, places, ({ netns }) =>
    startContainerd({ component: deps.containerd, netns, chunked: options.chunked }),
  );
  signal.throwIfAborted();
  const system = stage.use(await startSystem(name, { site, registry, containerds, options }));
  signal.throwIfAborted();
  const all = containerds.map((_, index) => index);
  const pull = (image: PushedImage, nodes: readonly number[]): Promise<Pulled> =>
    pullAtOnce(image, nodes, { site, containerds, options, signal, say });

  if (site.warmUp !== undefined) refuseFailures(await pull(site.warmUp, all));
  if (options.seeded) {
    await site.shape(false);
    refuseFailures(await pull(site.image, [0]));
    await system.seeded(site.image.objects.length);
    await site.shape(true);
  }
  await idle(system, signal);

  const pullers = options.seeded ? all.slice(1) : all;
  const before = await daemonCpu(system);
  using meter = await LoadMeter.start();
  const sentBefore = await sent(places);
  const counted = (await site.upstreamPlace.counters()).txBytes;
  const pulled = await pull(site.image, pullers);
  const upstreamBytes = (await site.upstreamPlace.counters()).txBytes - counted;
  const load = await meter.stop();
  const sentAfter = await sent(places);
  const daemonCpuSeconds = (await daemonCpu(system)) - before;
  const daemonPeakBytes = Math.max(0, ...(await Promise.all(system.daemons.map(peakResident))));
  if (options.logs !== undefined) await system.keepLogs(join(options.logs, name));
  signal.throwIfAborted();

  const results: NodeResult[] = [];
  for (const one of pulled) {
    const containerd = containerds[one.index];
    if (containerd === undefined) throw new TypeError("every puller has a containerd");
    const wrong =
      one.failure === undefined ? await differences(containerd.contentDir, site.image) : [one.failure];
    const { index, began, seconds } = one;
    const sentBytes = (sentAfter[index] ?? Number.NaN) - (sentBefore[index] ?? Number.NaN);
    results.push({ index, began, seconds, sentBytes, wrong });
  }
  return {
    system: name,
    nodes: options.nodes,
    pullers: results,
    upstreamBytes,
    load,
    daemonCpuSeconds,
    daemonPeakBytes,
  };
}

interface PulledNode {
  readonly index: number;
  readonly began: number;
  readonly seconds: number;
  readonly failure: string | undefined;
}
type Pulled = readonly PulledNode[];

interface PullDeps {
  readonly site: Site;
  readonly containerds: readonly Containerd[];
  readonly options: CrowdOptions;
  readonly signal: AbortSignal;
  readonly say: (text: string) => void;
}

/** Behind a barrier, and with `stagger` one after the other from there on. Resolves when every pull has ended. */
async function pullAtOnce(image: PushedImage, nodes: readonly number[], deps: PullDeps): Promise<Pulled> {
  const { site, containerds, options, signal, say } = deps;
  await using stage = new AsyncDisposableStack();
  const folder = await tempFolder("crowd");
  stage.defer(() => rm(folder, { recursive: true, force: true }));
  const timeoutMs = patienceMs(image, options, site);
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
  const spread = image === site.image ? staggerMs(options, site) : 0;
  const start = performance.now();
  const pulling = Promise.all(
    armed.map(async ({ index, pull }, nth): Promise<PulledNode> => {
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
function staggerMs({ stagger }: CrowdOptions, { image, links }: Site): number {
  return 1000 * (stagger === "pull" ? crowdBound(image.bytes, 1, links) : stagger);
}

/** Longer than the worst of the systems takes, when every copy goes through the thinnest of the links. */
function patienceMs(image: PushedImage, options: CrowdOptions, { links }: Site): number {
  const { upstreamRate, nodeRate, cacheRate = nodeRate, wanPerNode = nodeRate, nodes, slowNode } = options;
  const thinnest = payloadRate(Math.min(upstreamRate, nodeRate, cacheRate, wanPerNode));
  const alone = slowNode ? (SLOWER * image.bytes) / links.ingress : 0;
  return 1000 * (60 + alone + (1.5 * (nodes + 1) * image.bytes) / thinnest);
}

const IDLE_LOOKS = 20;
const IDLE_MS = 500;

/**
 * Until the daemons have done what they do after their start, for ten seconds at most: nodes run for months, and here
 * all of them share the cores.
 */
async function idle(system: System, signal: AbortSignal): Promise<void> {
  let last = await daemonCpu(system);
  for (let look = 0; look < IDLE_LOOKS; look += 1) {
    await pause(IDLE_MS, undefined, { signal });
    const now = await daemonCpu(system);
    // Ticks are 10 ms: an idle daemon may have had two.
    if (now - last <= 0.02 * system.daemons.length) return;
    last = now;
  }
}

async function daemonCpu(system: System): Promise<number> {
  const each = await Promise.all(system.daemons.map(cpuSeconds));
  return each.reduce((sum, one) => sum + one, 0);
}

const sent = (places: readonly NetworkNode[]): Promise<number[]> =>
  Promise.all(places.map(async (place) => (await place.counters()).txBytes));

function refuseFailures(pulled: Pulled): void {
  for (const { index, failure } of pulled) {
    if (failure !== undefined) throw new RigError("PULL_FAILED", `preparing node ${index + 1}: ${failure}`);
  }
}
