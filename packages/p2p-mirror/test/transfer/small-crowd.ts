import { Readable } from "node:stream";
import {
  digestOf,
  NotFoundError,
  raceSignal,
  silentLogger,
  SourceError,
  VirtualClock,
  type Digest,
  type Repository,
} from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import type { Test } from "tap";
import { MemoryMesh } from "../../src/routing/memory-router.ts";
import type { Router } from "../../src/routing/router.ts";
import { createSwarmCodec } from "../../src/swarm/codec.ts";
import { MemoryNetwork } from "../../src/swarm/memory-wire.ts";
import { createSwarmMetrics } from "../../src/swarm/metrics.ts";
import { createSwarm, type MirrorSwarm } from "../../src/swarm/mirror-swarm.ts";
import { createTransferMetrics } from "../../src/transfer/metrics.ts";
import { MirrorSources } from "../../src/transfer/mirror-sources.ts";
import { pause } from "../../src/transfer/patience.ts";
import type { PeerClient } from "../../src/transfer/peer-client.ts";
import { SmallObjects } from "../../src/transfer/small-objects.ts";
import type { SmallObject } from "../../src/transfer/small-request.ts";
import { cheapSigner, seeded } from "../swarm/rig.ts";

const ORIGIN: Repository = { registry: "registry.example.test", repository: "team/app" };
/** From the last byte to the record that others find (routing/advertiser.ts: 100 ms, and a message). */
const ADVERTISED_MS = 110;
/** Until a small object is on disk. */
const STORED_MS = 30;

export interface SmallCrowdOptions {
  readonly nodes: number;
  readonly seed?: number;
  /** One way, milliseconds; default 1. */
  readonly latency?: (from: string, to: string) => number;
  /** What upstream has for the n-th node. */
  readonly upstream: (nth: number, bytes: Buffer, signal: AbortSignal) => Promise<Buffer>;
  /** What becomes of an object on its way from one node to another. */
  readonly onTheWay?: (from: number, to: number, bytes: Buffer) => Buffer;
  /** False: the node keeps nothing. */
  readonly stores?: (nth: number) => boolean;
}

export interface CrowdNode {
  readonly nth: number;
  readonly id: string;
  readonly router: Router;
  readonly swarm: MirrorSwarm;
  readonly small: SmallObjects;
  readonly stored: Map<Digest, Buffer>;
  state: "alive" | "dead" | "silent";
}

/** Nodes of one process on a virtual clock that fetch small objects: the real swarm, a network and disks in memory. */
export class SmallCrowd {
  readonly clock = new VirtualClock(1_000_000);
  readonly network: MemoryNetwork;
  readonly nodes: CrowdNode[] = [];
  /** What arrived at upstream, in order; `at`: milliseconds since the beginning. */
  readonly requests: { readonly nth: number; readonly digest: Digest; readonly at: number }[] = [];
  readonly began = this.clock.now();
  readonly #mesh = new MemoryMesh();
  readonly #options: SmallCrowdOptions;
  readonly #latency: (from: string, to: string) => number;

  private constructor(options: SmallCrowdOptions) {
    this.#options = options;
    this.#latency = options.latency ?? (() => 1);
    this.network = new MemoryNetwork({
      clock: this.clock,
      latency: this.#latency,
      codec: createSwarmCodec(),
    });
  }

  static async of(t: Test, options: SmallCrowdOptions): Promise<SmallCrowd> {
    const crowd = new SmallCrowd(options);
    const random = seeded(options.seed ?? 1);
    for (let nth = 0; nth < options.nodes; nth += 1) crowd.nodes.push(await crowd.#node(nth, random));
    t.teardown(() => crowd.close());
    return crowd;
  }

  /** Idempotent. */
  async close(): Promise<void> {
    const closing = this.nodes.splice(0).map(async ({ small, swarm }) => {
      await small.close();
      await swarm.close();
    });
    await Promise.all([Promise.all(closing), this.clock.run(120_000)]);
  }

  /** Milliseconds since the beginning. */
  get now(): number {
    return this.clock.now() - this.began;
  }

  node(nth: number): CrowdNode {
    const node = this.nodes[nth];
    if (node === undefined) throw new RangeError(`no node ${nth}`);
    return node;
  }

  /** The node that coordinates an object, as long as it is there. */
  coordinatorOf(bytes: Buffer): CrowdNode {
    const [closest] = this.node(0).router.closest(digestOf(bytes), 1);
    const node = this.nodes.find(({ id }) => id === closest?.id);
    if (node === undefined) throw new Error("nobody is closest");
    return node;
  }

  /** The n-th node wants it; the reader never leaves. */
  async get(nth: number, bytes: Buffer): Promise<SmallObject> {
    const digest = digestOf(bytes);
    const node = this.node(nth);
    const stored = node.stored.get(digest);
    if (stored !== undefined) return { bytes: stored, source: "cache" };
    return node.small.get(
      {
        kind: "blob",
        digest,
        origin: ORIGIN,
        upstream: async (signal) => {
          this.requests.push({ nth, digest, at: this.now });
          return { bytes: await raceSignal(this.#options.upstream(nth, bytes, signal), signal) };
        },
        describe: ({ bytes: { length: size } }) => ({ digest, size, mediaType: "application/octet-stream" }),
      },
      new AbortController().signal,
    );
  }

  /** Milliseconds until each has it; undefined: it failed, or never got it in `ms`. All begin now. */
  async all(bytes: Buffer, nodes: readonly CrowdNode[], ms = 60_000): Promise<(number | undefined)[]> {
    const began = this.now;
    const took: (number | undefined)[] = nodes.map(() => undefined);
    let over = 0;
    const get = async (at: number, nth: number): Promise<void> => {
      const object = await this.get(nth, bytes).catch(() => undefined);
      if (object?.bytes.equals(bytes) === true) took[at] = this.now - began;
      over += 1;
    };
    for (const [at, { nth }] of nodes.entries()) void get(at, nth);
    await this.clock.run(ms, () => over === nodes.length);
    return took;
  }

  /** As kill -9: connections are reset. */
  kill({ nth, id }: CrowdNode): void {
    this.network.kill(id);
    this.node(nth).state = "dead";
  }

  /** As SIGSTOP: nothing comes from it any more. */
  silence({ nth, id }: CrowdNode): void {
    this.network.silence(id);
    this.node(nth).state = "silent";
  }

  async #node(nth: number, random: () => number): Promise<CrowdNode> {
    const peer = { id: `node${nth}`, host: "127.0.0.1", port: 1_000 + nth };
    const router = this.#mesh.join(peer);
    const swarm = createSwarm(
      {},
      {
        self: { contact: peer, peer },
        wire: this.network.node(peer.id),
        closest: (digest, count) => router.closest(digest, count),
        clock: this.clock,
        random,
        signer: cheapSigner(peer.id),
        load: () => 0,
        logger: silentLogger(),
        metrics: createSwarmMetrics(new Registry()),
      },
    );
    await swarm.start(new AbortController().signal);
    const stored = new Map<Digest, Buffer>();
    const peerClient = { blob: this.#blob(nth) };
    const sources = new MirrorSources({
      router,
      peerClient,
      upstream: { blob: () => Promise.reject(new Error("a flight?")), reachable: () => true },
      catalog: { parentsOf: () => [] },
      refuted: () => undefined,
    });
    const small = new SmallObjects({
      swarm,
      sources,
      peerClient,
      clock: this.clock,
      random,
      metrics: createTransferMetrics(new Registry()),
      logger: silentLogger(),
      cache: {
        put: async ({ digest }, bytes) => {
          if (this.#options.stores?.(nth) === false) return;
          await this.#pause(STORED_MS);
          stored.set(digest, Buffer.from(bytes));
          this.clock.after(ADVERTISED_MS, () => void router.advertise([digest]));
        },
      },
    });
    return { nth, id: peer.id, router, swarm, small, stored, state: "alive" };
  }

  /** The peer data plane of a node: a request, an answer, each takes its way. */
  #blob(asker: number): PeerClient["blob"] {
    return async (peer, digest, _range, { signal } = {}) => {
      const node = this.nodes.find(({ id }) => id === peer.id);
      const there = this.#latency(this.node(asker).id, peer.id);
      await this.#pause(there, signal);
      if (node === undefined || node.state === "dead") throw new SourceError("UNREACHABLE", peer.id);
      if (node.state === "silent") await this.#pause(Infinity, signal);
      const bytes = node.small.held(digest) ?? node.stored.get(digest);
      await this.#pause(there, signal);
      if (bytes === undefined) throw new NotFoundError("BLOB_UNKNOWN", digest);
      const sent = this.#options.onTheWay?.(node.nth, asker, bytes) ?? bytes;
      return { size: sent.length, body: Readable.from([sent], { objectMode: false }) };
    };
  }

  #pause(ms: number, signal = new AbortController().signal): Promise<void> {
    return pause(ms, this.clock, signal);
  }
}
