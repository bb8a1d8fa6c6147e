import { createHash } from "node:crypto";
import { digestOf, silentLogger, VirtualClock, type Digest } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import { createSwarmCodec } from "../../src/swarm/codec.ts";
import { MemoryNetwork } from "../../src/swarm/memory-wire.ts";
import { createSwarmMetrics } from "../../src/swarm/metrics.ts";
import { createSwarm, type MirrorSwarm } from "../../src/swarm/mirror-swarm.ts";
import type { PieceSigner } from "../../src/swarm/piece-signer.ts";
import type { SwarmMember } from "../../src/swarm/swarm.ts";
import type { Contact } from "../../src/swarm/wire.ts";
import { PieceGeometry, PieceMap } from "../../src/transfer/pieces.ts";

export const MIB = 1024 * 1024;

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const sha256 = (...parts: (string | Uint8Array)[]): Buffer => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
};

/** The signer and the end of what is signed, which has the hash in it. */
const cheapSignature = (signer: string, bytes: Uint8Array): Buffer => {
  const signature = Buffer.alloc(64);
  signature.set(bytes.subarray(-48));
  signature.write(signer, 48, "latin1");
  return signature;
};

/** Signs in a way that anybody could: enough where nobody forges, and fast. */
export const cheapSigner = (id: string): PieceSigner => ({
  id,
  sign: (bytes) => cheapSignature(id, bytes),
  verify: (signer, bytes, given) => Buffer.compare(cheapSignature(signer, bytes), given) === 0,
});

const pieceHashes: Buffer[] = [];
export const pieceHash = (piece: number): Buffer => (pieceHashes[piece] ??= sha256(`piece ${piece}`));

export interface RigOptions {
  readonly nodes: number;
  readonly size?: number;
  readonly seed?: number;
  /** Between all, default 1 ms. */
  readonly latencyMs?: number;
  readonly latency?: (from: string, to: string) => number;
  readonly zoneOf?: (nth: number) => string;
  readonly maxUpstreamFetchers?: number;
  /** Messages are encoded and decoded on the way. Default true. */
  readonly encoded?: boolean;
}

export interface RigNode {
  readonly id: string;
  readonly contact: Contact;
  readonly zone: string;
  readonly swarm: MirrorSwarm;
  readonly metrics: Registry;
  /** Nodes that its routing table does not know. */
  readonly unknown: Set<string>;
  alive: boolean;
}

/** Nodes on one virtual clock that know each other, and one blob. */
export class Rig {
  readonly clock = new VirtualClock(1_000_000);
  readonly random: () => number;
  readonly network: MemoryNetwork;
  readonly nodes: RigNode[] = [];
  readonly digest: Digest;
  readonly geometry: PieceGeometry;
  readonly size: number;
  readonly seed: number;
  /** Nodes that no routing table names any more. */
  readonly forgotten = new Set<string>();
  readonly #options: RigOptions;
  readonly #byId = new Map<string, RigNode>();
  /** All nodes, closest first. */
  #ranking: readonly Contact[] = [];

  constructor(options: RigOptions) {
    this.#options = options;
    this.seed = options.seed ?? 1;
    this.random = seeded(this.seed);
    this.size = options.size ?? 64 * MIB;
    this.geometry = new PieceGeometry(this.size);
    this.digest = digestOf(Buffer.from(`blob of ${this.seed}`));
    const latency = options.latencyMs ?? 1;
    this.network = new MemoryNetwork({
      clock: this.clock,
      latency: options.latency ?? (() => latency),
      ...(options.encoded !== false && { codec: createSwarmCodec() }),
    });
  }

  async start(): Promise<this> {
    for (let nth = 0; nth < this.#options.nodes; nth += 1) await this.add(nth);
    return this;
  }

  async add(nth: number): Promise<RigNode> {
    const id = `node${nth.toString().padStart(4, "0")}`;
    const host = `10.0.${nth >> 8}.${nth & 255}`;
    const contact = { id, host, port: 24222 };
    const metrics = new Registry();
    const unknown = new Set<string>();
    const { maxUpstreamFetchers } = this.#options;
    const zone = this.#options.zoneOf?.(nth) ?? "";
    const swarm = createSwarm(
      { zone, ...(maxUpstreamFetchers !== undefined && { maxUpstreamFetchers }) },
      {
        self: { contact, peer: { id, host, port: 24221 } },
        wire: this.network.node(id),
        closest: (digest, count) => this.#closest(digest, count, unknown),
        clock: this.clock,
        random: this.random,
        signer: cheapSigner(id),
        load: () => 0,
        logger: silentLogger(),
        metrics: createSwarmMetrics(metrics),
      },
    );
    await swarm.start(new AbortController().signal);
    const node: RigNode = { id, contact, zone, swarm, metrics, unknown, alive: true };
    this.nodes.push(node);
    this.#byId.set(id, node);
    return node;
  }

  /** Closest to the blob first: the coordinator, the stand-in, and so on. */
  ranked(): RigNode[] {
    const order = this.#closest(this.digest, this.nodes.length, new Set());
    return order.map(({ id }) => this.node(id));
  }

  node(id: string): RigNode {
    const found = this.#byId.get(id);
    if (found === undefined) throw new Error(`no ${id}`);
    return found;
  }

  join(node: RigNode, have = new PieceMap(this.geometry.count), signal?: AbortSignal): SwarmMember {
    const { digest, size, geometry } = this;
    return node.swarm.join({ digest, size, geometry, have }, signal ?? new AbortController().signal);
  }

  kill(node: RigNode): void {
    node.alive = false;
    this.network.kill(node.id);
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map(({ swarm }) => swarm.close()));
    await this.clock.run(60_000);
  }

  #closest(digest: Digest, count: number, unknown: ReadonlySet<string>): Contact[] {
    if (digest !== this.digest) throw new Error("there is one blob");
    if (this.#ranking.length !== this.nodes.length) {
      const distance = (id: string): bigint =>
        BigInt(`0x${sha256(digest).toString("hex")}`) ^ BigInt(`0x${sha256(id).toString("hex")}`);
      this.#ranking = this.nodes
        .map(({ contact }) => ({ contact, far: distance(contact.id) }))
        .toSorted((a, b) => (a.far < b.far ? -1 : 1))
        .map(({ contact }) => contact);
    }
    const found: Contact[] = [];
    for (const contact of this.#ranking) {
      if (found.length >= count) break;
      if (!unknown.has(contact.id) && !this.forgotten.has(contact.id)) found.push(contact);
    }
    return found;
  }
}
