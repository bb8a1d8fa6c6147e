import { createHash } from "node:crypto";
import { VirtualClock, type Digest } from "@p2p-mirror/shared";
import { createSwarmCodec } from "../../../packages/p2p-mirror/src/swarm/codec.ts";
import { MemoryNetwork } from "../../../packages/p2p-mirror/src/swarm/memory-wire.ts";
import type { Contact } from "../../../packages/p2p-mirror/src/swarm/wire.ts";
import { Notifier } from "../../../packages/p2p-mirror/src/transfer/notifier.ts";
import { PieceGeometry } from "../../../packages/p2p-mirror/src/transfer/pieces.ts";
import { seeded } from "../../../packages/p2p-mirror/test/swarm/rig.ts";
import type { Links } from "../crowd/bound.ts";
import type { Blob, Blobs } from "./blobs.ts";
import type { Connections } from "./connections.ts";
import type { FlowBody } from "./flow-body.ts";
import { Flows } from "./flows.ts";
import { NO_CHANGES, type Changes } from "./changes.ts";
import { SimNode, swarmMetrics } from "./sim-node.ts";
import { UPSTREAM, UpstreamModel } from "./upstream-model.ts";

export interface WorldOptions {
  readonly seed: number;
  readonly nodes: number;
  /** Of the blob, in bytes. */
  readonly size: number;
  /** Bytes a second. */
  readonly links: Links;
  /** Between nodes, one way, in milliseconds; to upstream it is five times as far. */
  readonly latencyMs: number;
  /** The link to upstream is one that dozens of connections share, with what TCP makes of that; default false. */
  readonly crowded?: boolean;
  readonly zones?: number;
  readonly maxUpstreamFetchers?: number;
  /** Bytes a second that each write goes on at; default: that of a disk. */
  readonly diskRate?: number;
  /** Messages are encoded and decoded on their way. */
  readonly encoded: boolean;
  /** Another world, of the same nodes and another blob: both are on its clock, and share its links. */
  readonly beside?: World;
  /** Default: nobody waits for a connection, since the requests for one blob do not use them up. */
  readonly connections?: Connections;
  /** See Flows. */
  readonly quantumMs?: number;
  /** The code under test is changed like this, to see whether that is noticed. */
  readonly changes?: Changes;
}

/** A cluster, its network and its upstream on one virtual clock. Everything in it follows from its options. */
export class World {
  readonly options: WorldOptions;
  readonly clock: VirtualClock;
  readonly random: () => number;
  readonly blob: Blob;
  readonly digest: Digest;
  readonly geometry: PieceGeometry;
  readonly network: MemoryNetwork;
  readonly flows: Flows;
  readonly upstream: UpstreamModel;
  readonly nodes: SimNode[] = [];
  /** Of all nodes together. */
  readonly metrics = swarmMetrics();
  readonly changes: Changes;
  /** Bodies under way, and between whom. */
  readonly bodies = new Map<FlowBody, { readonly from: string; readonly to: string }>();
  /** Bytes that went from one zone to another. */
  crossed = 0;
  /** The simulation is over: nobody comes back. */
  closed = false;
  /** Who can reach whom has changed. */
  readonly ways = new Notifier();
  /** Those on one side of a partition that there was, is or will be. */
  far: ReadonlySet<string> = new Set();
  readonly #byId = new Map<string, SimNode>();
  readonly #ranking: readonly Contact[];
  #parted: ((a: string, b: string) => boolean) | undefined;

  constructor(options: WorldOptions, blobs: Blobs) {
    this.options = options;
    const { beside } = options;
    this.clock = beside?.clock ?? new VirtualClock(1_000_000);
    this.changes = options.changes ?? NO_CHANGES;
    this.random = seeded(options.seed);
    this.blob = blobs.of(options.size);
    this.digest = this.blob.digest;
    this.geometry = new PieceGeometry(options.size);
    this.network = new MemoryNetwork({
      clock: this.clock,
      latency: (from, to) => this.latency(from, to),
      ...(options.encoded && { codec: createSwarmCodec() }),
    });
    this.flows =
      beside?.flows ?? new Flows(this.clock, options.quantumMs ?? 0, (from, to) => !this.reaches(from, to));
    this.upstream = new UpstreamModel(this, beside?.upstream.link ?? { rate: options.links.upstream });
    for (let nth = 0; nth < options.nodes; nth += 1) {
      const node = new SimNode(this, nth);
      this.nodes.push(node);
      this.#byId.set(node.id, node);
    }
    // Where nodes are in the ring follows from the seed, as their identities would.
    const distance = (id: string): string =>
      createHash("sha256").update(`${options.seed} ${id} ${this.digest}`).digest("hex");
    this.#ranking = this.nodes
      .map(({ contact }) => ({ contact, far: distance(contact.id) }))
      .toSorted((a, b) => (a.far < b.far ? -1 : 1))
      .map(({ contact }) => contact);
  }

  async start(): Promise<this> {
    for (const node of this.nodes) await node.boot();
    return this;
  }

  /** Closest to the blob first: the coordinator, the stand-in, and so on. Routing tables know the dead for long. */
  closest(count: number): readonly Contact[] {
    return this.#ranking.slice(0, count);
  }

  node(id: string): SimNode {
    const found = this.#byId.get(id);
    if (found === undefined) throw new Error(`no ${id}`);
    return found;
  }

  latency(from: string, to: string): number {
    const { latencyMs } = this.options;
    return from === UPSTREAM || to === UPSTREAM ? 5 * latencyMs : latencyMs;
  }

  /** Bytes get from one to the other at the moment. */
  reaches(from: string, to: string): boolean {
    if (from === UPSTREAM) return !this.upstream.faults.stalled && !this.node(to).stopped;
    return !this.node(from).stopped && !this.node(to).stopped && this.#parted?.(from, to) !== true;
  }

  /** Between which nodes nothing goes any more; undefined: everything does again. */
  part(parted: ((a: string, b: string) => boolean) | undefined): void {
    this.#parted = parted;
    this.network.part(parted ?? (() => false));
    this.waysChanged();
  }

  waysChanged(): void {
    this.flows.changed();
    this.ways.notify();
  }

  /** Connections of a node are reset. */
  cut(id: string, error: Error): void {
    for (const [body, { from, to }] of this.bodies) if (from === id || to === id) body.destroy(error);
  }

  /** Nodes that have the whole blob and say so. */
  holders(): SimNode[] {
    const now = this.clock.now();
    return this.nodes.filter(({ advertisedFrom }) => now >= advertisedFrom);
  }

  async close(): Promise<void> {
    this.closed = true;
    for (const node of this.nodes) if (node.alive) node.crash();
    await this.clock.run(60_000);
  }
}
