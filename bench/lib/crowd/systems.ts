import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Component } from "../../../test/rig/components.ts";
import { peersOf } from "../../../test/rig/cluster.ts";
import type { Containerd } from "../../../test/rig/containerd.ts";
import { startDockerRegistry } from "../../../test/rig/docker-registry.ts";
import { writeHosts, type HostsFile } from "../../../test/rig/hosts.ts";
import { startMirror, writeClusterSecret, type Mirror } from "../../../test/rig/mirror.ts";
import { tempFolder } from "../../../test/rig/temp.ts";
import { until } from "../../../test/rig/until.ts";
import { programOfImage } from "../programs.ts";
import { ENVIRONMENT, V8_FLAGS } from "../scene.ts";
import type { CrowdOptions } from "./options.ts";
import type { SystemName } from "./shapes.ts";
import { REGISTRY, type Site } from "./site.ts";
import { startAll } from "./start-all.ts";

/** What stands between the nodes' containerds and upstream. */
export interface System extends AsyncDisposable {
  readonly name: SystemName;
  /** Pids of what it runs besides containerd and upstream. */
  readonly daemons: readonly number[];
  /** Resolves when all nodes can know what the first one holds: so many objects in all. */
  seeded(objects: number): Promise<void>;
  /** The end of what the daemon beside a node (by its index) wrote. */
  logOf(index: number): string;
  /** To be called while it still runs: what a person wants to read afterwards. */
  keepLogs(folder: string): Promise<void>;
}

export interface SystemDeps {
  readonly site: Site;
  readonly registry: Component;
  /** Of the first nodes of the site; as many mirrors are started. */
  readonly containerds: readonly Containerd[];
  readonly options: CrowdOptions;
}

type Start = (deps: SystemDeps) => Promise<System>;

export const startSystem = (name: SystemName, deps: SystemDeps): Promise<System> => STARTS[name](deps);

const NOTHING = { seeded: async () => undefined, keepLogs: async () => undefined, logOf: () => "" };
/** For a hundred that start on two cores. */
const MEET_MS = 120_000;
/** Kademlia's k. Half of all nodes are in the farthest bucket, which has room for so many: of 32 nodes a few know not all. */
const BUCKET = 20;
const LOG_END = 4000;
/** With `--logs`: all of it, unless something has gone quite wrong. */
const KEPT_LOG = 64 * 1024 * 1024;

async function direct({ site, containerds }: SystemDeps): Promise<System> {
  await tellAll(containerds, () => ({ server: site.upstream.url, mirrors: [] }));
  return { ...NOTHING, name: "direct", daemons: [], [Symbol.asyncDispose]: async () => undefined };
}

async function cache({ site, registry, containerds }: SystemDeps): Promise<System> {
  const { netns, address } = site.cachePlace;
  const remote = site.upstream.url;
  const running = await startDockerRegistry({ component: registry, netns, address, remote });
  await tellAll(containerds, () => ({ server: site.upstream.url, mirrors: [running.url] }));
  return {
    ...NOTHING,
    name: "cache",
    daemons: [running.pid],
    logOf: () => running.log().slice(-LOG_END),
    [Symbol.asyncDispose]: () => running.close(),
  };
}

async function mirror({ site, containerds, options }: SystemDeps): Promise<System> {
  await using starting = new AsyncDisposableStack();
  const home = await tempFolder("crowd");
  starting.defer(() => rm(home, { recursive: true, force: true }));
  const secret = await writeClusterSecret(join(home, "secret"));
  const program = options.sources ? {} : { program: await programOfImage(home) };
  const places = site.nodePlaces.slice(0, containerds.length);
  const start = (containerd: Containerd, index: number): Promise<Mirror> => {
    const node = places[index];
    if (node === undefined) throw new TypeError("every containerd has a place");
    return startMirror({
      name: `mirror-${index + 1}`,
      node,
      secretFiles: [secret],
      bootstrap: index === 0 ? [] : places.slice(0, 1).map((first) => `${first.address}:24222`),
      upstreams: { [REGISTRY]: site.upstream.url },
      containerdSocket: containerd.socket,
      // As in production: the image's program, as it is started there, quiet.
      ...program,
      nodeFlags: V8_FLAGS,
      env: ENVIRONMENT,
      ...(options.logs === undefined ? { logLevel: "warn" } : { logLevel: "debug", logLimit: KEPT_LOG }),
      flags: options.mirrorFlag,
    });
  };
  const first = await startAll(starting, containerds.slice(0, 1), start);
  const others = await startAll(starting, containerds.slice(1), (one, index) => start(one, index + 1));
  const mirrors = [...first, ...others];
  await tellAll(containerds, (index) => ({
    server: site.upstream.url,
    mirrors: [mirrors[index]?.url ?? ""],
  }));
  const met = async (): Promise<boolean> => {
    const peers = await Promise.all(mirrors.map(peersOf));
    return peers.every((count) => count >= Math.min(mirrors.length - 1, BUCKET));
  };
  // To be asked costs a mirror some milliseconds: dozens on two cores would do nothing else.
  await until("the mirrors know each other", met, { timeoutMs: MEET_MS, everyMs: 20 * mirrors.length });
  const running = starting.move();
  return {
    name: "mirror",
    daemons: mirrors.map(({ pid }) => pid),
    async seeded(objects) {
      const [holder] = mirrors;
      if (holder === undefined) return;
      await until("what the first node holds is advertised", async () => {
        return (await holder.metrics()).sum("p2p_mirror_dht_records_advertised") >= objects;
      });
    },
    logOf: (index) => mirrors[index]?.log().slice(-LOG_END) ?? "",
    async keepLogs(folder) {
      await mkdir(folder, { recursive: true });
      for (const one of mirrors) {
        await writeFile(join(folder, `${one.name}.log`), one.log());
        if (one.running) await writeFile(join(folder, `${one.name}.metrics`), (await one.metrics()).text);
      }
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

async function tellAll(
  containerds: readonly Containerd[],
  hosts: (index: number) => HostsFile,
): Promise<void> {
  for (const [index, { certsDir }] of containerds.entries()) {
    await writeHosts(certsDir, REGISTRY, hosts(index));
  }
}

const STARTS: Readonly<Record<SystemName, Start>> = { direct, cache, mirror };
