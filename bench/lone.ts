import { Agent, request } from "undici";
import { blobsOf, makeImage, type Content } from "../test/rig/images.ts";
import type { Mirror } from "../test/rig/mirror.ts";
import { startShapedLink } from "../test/rig/shaped-link.ts";
import { atMost, median, rounded, type BenchResult } from "./lib/bench.ts";
import { cpuSeconds } from "./lib/cpu.ts";
import { drain, residentMemory } from "./lib/programs.ts";
import { blobUrl, connected, MIB, REGISTRY, Scene } from "./lib/scene.ts";

export const name = "lone";
export const description =
  "cold blobs from upstream to a node that nobody else pulls with: the mirror, the mirror without swarm, and direct";

const REPOSITORY = "bench/lone";
/** The least that is not one request in memory. */
const FIRST_BYTE_MIB = 2;
/** So many of the small ones are not counted. */
const WARM_UP = 5;
/** Both from the sources: the other one has no bundle. */
const MAIN = new URL("../packages/p2p-mirror/src/main.ts", import.meta.url).pathname;
const WITHOUT_SWARM = new URL("lib/lone/without-swarm.ts", import.meta.url).pathname;

interface System {
  readonly name: string;
  readonly url: (digest: string) => string;
  readonly mirror: Mirror | undefined;
  readonly seconds: number[];
  readonly firstByteMs: number[];
  cpu: number;
  smallCpu: number;
}

/**
 * Options: MiB of a blob (default 256), how many (default 5, after one that is not counted), Mbit/s of the link to upstream
 * (default 1000; 0: loopback), how many blobs of 2 MiB for the first byte (default 50). Another node is there and idle: it
 * may be the coordinator.
 */
export async function run([
  size = "256",
  rounds = "5",
  mbits = "1000",
  small = "50",
]: readonly string[]): Promise<BenchResult> {
  await using scene = await Scene.open();
  const image = makeImage({
    seed: "lone",
    layers: [
      ...Array.from({ length: Number(rounds) + 1 }, () => Number(size) * MIB),
      ...Array.from({ length: Number(small) + WARM_UP }, () => FIRST_BYTE_MIB * MIB),
    ],
  });
  await scene.push(image, REPOSITORY);
  const rate = Number(mbits) === 0 ? undefined : (Number(mbits) * 1e6) / 8;
  const target = { host: "127.0.0.1", port: scene.registry.port };
  const link = await startShapedLink({ target, ...(rate === undefined ? {} : { downRate: rate }) });
  scene.defer(() => link.close());
  const systems = await systemsOf(scene, `http://127.0.0.1:${link.port}`, image);

  const blobs = blobsOf(image).map(({ descriptor }) => descriptor);
  const large = blobs.filter(
    (blob) => blob.size > (Number(size) - 1) * MIB && blob.size > FIRST_BYTE_MIB * MIB * 2,
  );
  for (const [round, { digest, size: bytes }] of large.entries()) {
    for (const system of inTurn(systems, round)) {
      await residentMemory(2 * bytes);
      const before = await cpuOf(system);
      const { seconds } = await drain(system.url(digest));
      // The first one warms both up: a daemon runs for months.
      if (round === 0) continue;
      system.seconds.push(seconds);
      system.cpu += (await cpuOf(system)) - before;
    }
  }
  const agent = new Agent({ connections: 1 });
  scene.defer(() => agent.close());
  const few = blobs.filter(
    (blob) => blob.size >= FIRST_BYTE_MIB * MIB && blob.size < FIRST_BYTE_MIB * MIB * 2,
  );
  for (const [round, { digest }] of few.entries())
    for (const system of inTurn(systems, round)) {
      const before = await cpuOf(system);
      const ms = await firstByte(system.url(digest), agent);
      if (round < WARM_UP) continue;
      system.firstByteMs.push(ms);
      system.smallCpu += (await cpuOf(system)) - before;
    }
  return resultOf(systems, Number(size) * Number(rounds));
}

const cpuOf = async ({ mirror }: System): Promise<number> =>
  mirror === undefined ? 0 : cpuSeconds(mirror.pid);

async function systemsOf(scene: Scene, upstream: string, image: Content): Promise<System[]> {
  const started = [MAIN, WITHOUT_SWARM].map(async (program) => {
    const options = { program, upstreams: { [REGISTRY]: upstream } };
    // Each in a mesh of its own: what one has pulled, the other would get from it.
    const idle = await scene.mirror("idle", options);
    const mirror = await scene.mirror(program, { ...options, bootstrap: [idle.p2pAddress] });
    await connected(mirror);
    // As every client does first; sizes come from it.
    const manifest = `${mirror.url}/v2/${REPOSITORY}/manifests/${image.descriptor.digest}?ns=${REGISTRY}`;
    if (!(await fetch(manifest)).ok) throw new Error("the manifest cannot be had");
    return mirror;
  });
  const [mirror, alone] = await Promise.all(started);
  const system = (called: string, through: Mirror | undefined): System => ({
    name: called,
    mirror: through,
    url: (digest) =>
      through === undefined
        ? `${upstream}/v2/${REPOSITORY}/blobs/${digest}`
        : blobUrl(through, REPOSITORY, digest),
    seconds: [],
    firstByteMs: [],
    cpu: 0,
    smallCpu: 0,
  });
  return [system("mirror", mirror), system("without swarm", alone), system("direct", undefined)];
}

/** Who goes first alternates. */
const inTurn = <T>(all: readonly T[], round: number): T[] => [
  ...all.slice(round % all.length),
  ...all.slice(0, round % all.length),
];

/** Milliseconds from the request to the first byte of the body; the rest is read, so that the next one finds all idle. */
async function firstByte(url: string, agent: Agent): Promise<number> {
  const began = performance.now();
  const { statusCode, body } = await request(url, { dispatcher: agent });
  if (statusCode !== 200) throw new Error(`${url} answered ${statusCode}`);
  let ms = Number.NaN;
  body.once("data", () => (ms = performance.now() - began));
  await new Promise((resolve, reject) => body.once("end", resolve).once("error", reject).resume());
  return ms;
}

function resultOf(systems: readonly System[], mib: number): BenchResult {
  const [mirror, alone, direct] = systems;
  if (mirror === undefined || alone === undefined || direct === undefined) throw new TypeError("three");
  // Pairs of the same round, so that what else the machine does meets both.
  const ratios = mirror.seconds.map((seconds, round) => seconds / (alone.seconds[round] ?? Number.NaN));
  return {
    rows: systems.map((system) => ({
      system: system.name,
      "s, median": rounded(median(system.seconds)),
      "s, best": rounded(Math.min(...system.seconds)),
      "CPU s/GiB": system.mirror === undefined ? "" : rounded((system.cpu * 1024) / mib),
      "first byte ms, median": rounded(median(system.firstByteMs)),
      "first byte ms, best": rounded(Math.min(...system.firstByteMs)),
      "CPU ms/2 MiB":
        system.mirror === undefined ? "" : rounded((system.smallCpu * 1000) / system.firstByteMs.length),
    })),
    targets: [
      atMost("time of a cold pull / without swarm, median of rounds", median(ratios), 1.02),
      atMost(
        "first byte after direct's, median",
        median(mirror.firstByteMs) - median(direct.firstByteMs),
        10,
        "ms",
      ),
    ],
  };
}
