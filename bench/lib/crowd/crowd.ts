import { join } from "node:path";
import type { Component } from "../../../test/rig/components.ts";
import { startContainerd } from "../../../test/rig/containerd.ts";
import { RigError } from "../../../test/rig/errors.ts";
import type { Counters, NetworkNode } from "../../../test/rig/netns.ts";
import { cpuOf, goneOf, peakOf, untilIdle } from "./daemons.ts";
import { LoadMeter, type MachineLoad } from "./machine.ts";
import type { CrowdOptions } from "./options.ts";
import type { SystemName } from "./shapes.ts";
import { pullAtOnce, type Pulled } from "./pull-at-once.ts";
import type { PushedImage, Site } from "./site.ts";
import { startAll } from "./start-all.ts";
import { startSystem } from "./systems.ts";
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
  /** In words: a pull that failed, or content that is not right. */
  readonly wrong: readonly string[];
}

export interface CrowdResult {
  readonly system: SystemName;
  /** Nodes of this run, holders included. */
  readonly nodes: number;
  readonly pullers: readonly NodeResult[];
  /**
   * Bytes that left upstream's interface from the first beginning to the last end, by its counter. It counts packets as
   * the kernel hands them over, with one header for several frames: up to 2 % above the payload, where the frames by
   * which the link is shaped have 4.6 %.
   */
  readonly upstreamBytes: number;
  /** The same without the headers of Ethernet, IP and TCP. */
  readonly upstreamPayload: number;
  /** The same of every node, holders included: who carried how much. */
  readonly sentBytes: readonly number[];
  readonly load: MachineLoad;
  /** CPU seconds that the system's daemons used meanwhile, all together. */
  readonly daemonCpuSeconds: number;
  /** Of the one that had most; 0 where there is none. */
  readonly daemonPeakBytes: number;
  /** How many of them ended by themselves; their CPU time and memory are not in the figures. */
  readonly daemonsGone: number;
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
  const pull = (image: PushedImage, nodes: readonly number[]): Promise<readonly Pulled[]> =>
    pullAtOnce(image, nodes, { site, containerds, options, signal, say });

  if (site.warmUp !== undefined) refuseFailures(await pull(site.warmUp, all));
  if (options.seeded) {
    await site.unshape();
    refuseFailures(await pull(site.image, [0]));
    await system.seeded(site.image.objects.length + (site.warmUp?.objects.length ?? 0));
    await site.shape(options);
    stage.defer(() => site.shape());
  }
  await untilIdle(system, signal);

  const pullers = options.seeded ? all.slice(1) : all;
  const before = await cpuOf(system);
  using meter = await LoadMeter.start();
  const sentBefore = await sent(places);
  const counted = await site.upstreamPlace.counters();
  const pulled = await pull(site.image, pullers);
  const after = await site.upstreamPlace.counters();
  const load = await meter.stop();
  const sentAfter = await sent(places);
  const daemonCpuSeconds = Math.max(0, (await cpuOf(system)) - before);
  const daemonPeakBytes = await peakOf(system);
  const gone = await goneOf(system);
  for (const index of gone) say(`${name} ${index + 1} ended by itself:\n${system.logOf(index)}`);
  if (options.logs !== undefined) await system.keepLogs(join(options.logs, name));
  signal.throwIfAborted();

  const results: NodeResult[] = [];
  for (const one of pulled) {
    const containerd = containerds[one.index];
    if (containerd === undefined) throw new TypeError("every puller has a containerd");
    const wrong =
      one.failure === undefined ? await differences(containerd.contentDir, site.image) : [one.failure];
    if (wrong.length > 0) say(`node ${one.index + 1}: ${wrong.join("; ")}\n${system.logOf(one.index)}`);
    const { index, began, seconds } = one;
    results.push({ index, began, seconds, wrong });
  }
  return {
    system: name,
    nodes: options.nodes,
    pullers: results,
    upstreamBytes: after.txBytes - counted.txBytes,
    upstreamPayload: payloadOf(after) - payloadOf(counted),
    sentBytes: sentAfter.map((bytes, index) => bytes - (sentBefore[index] ?? 0)),
    load,
    daemonCpuSeconds,
    daemonPeakBytes,
    daemonsGone: gone.length,
  };
}

/** Of Ethernet (14), IPv4 (20) and TCP with timestamps (32). */
const HEADERS = 66;

const payloadOf = ({ txBytes, txPackets }: Counters): number => txBytes - HEADERS * txPackets;

const sent = (places: readonly NetworkNode[]): Promise<number[]> =>
  Promise.all(places.map(async (place) => (await place.counters()).txBytes));

function refuseFailures(pulled: readonly Pulled[]): void {
  for (const { index, failure } of pulled) {
    if (failure !== undefined) throw new RigError("PULL_FAILED", `preparing node ${index + 1}: ${failure}`);
  }
}
