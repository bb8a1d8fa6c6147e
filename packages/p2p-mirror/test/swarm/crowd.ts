import type { HandBackReason, Lease, Neighbour, SwarmMember } from "../../src/swarm/swarm.ts";
import { PieceMap } from "../../src/transfer/pieces.ts";
import { pieceHash, type Rig, type RigNode } from "./rig.ts";

/** Outstanding pieces from peers, and uploads, of a node. */
const SLOTS = 8;
/** Pieces ahead of the first one that is missing, as a flight does for its reader. */
const WINDOW = 16;

/** A body reports what came about so often. */
const CHUNK_MS = 100;

/** A source that would take longer for a piece is left after `WATCH_MS`. */
const SLOW_MS = 10_000;
const WATCH_MS = 1_500;

export interface UpstreamModel {
  /** Bytes a second over the link that all share. */
  readonly rate: number;
  /** Bytes a second of one node at most. */
  readonly perNode?: (node: RigNode) => number;
  readonly firstByteMs?: number;
  /** Why a node gets nothing, if so. */
  readonly refuses?: (node: RigNode) => HandBackReason | undefined;
  readonly ranges?: boolean;
}

export interface CrowdOptions {
  readonly upstream: UpstreamModel;
  /** Bytes a second between nodes, in and out. */
  readonly nodeRate: number;
}

export interface CrowdSource {
  readonly node: RigNode;
  readonly rate: number;
  uploads: number;
}

/** The flights of all nodes, in a coarse model: pieces take time, links are shared by slots. Bytes are only counted. */
export class Crowd {
  readonly rig: Rig;
  readonly flights: CrowdFlight[] = [];
  readonly #byId = new Map<string, CrowdFlight>();
  readonly seeds = new Map<string, CrowdSource>();
  readonly options: CrowdOptions;
  /** Pieces that came from upstream, as often as they came. */
  fromUpstream = 0;
  upstreamBytes = 0;
  downloading = 0;

  constructor(rig: Rig, options: CrowdOptions) {
    this.rig = rig;
    this.options = options;
  }

  start(node: RigNode, have?: PieceMap): CrowdFlight {
    const flight = new CrowdFlight(this, node, have ?? new PieceMap(this.rig.geometry.count));
    this.flights.push(flight);
    this.#byId.set(node.id, flight);
    void flight.run();
    return flight;
  }

  /** A node that has the whole blob and is no member; it gives `rate` bytes a second to each. */
  seed(node: RigNode, rate?: number): void {
    const { digest, size, geometry } = this.rig;
    const hashes = node.swarm.hashes({ digest, size, geometry });
    for (let piece = 0; piece < geometry.count; piece += 1) hashes.sign(piece, pieceHash(piece));
    this.seeds.set(node.id, { node, uploads: 0, rate: rate ?? this.options.nodeRate });
  }

  source(id: string): CrowdSource | undefined {
    return this.flightOf(id) ?? this.seeds.get(id);
  }

  get live(): CrowdFlight[] {
    return this.flights.filter(({ node }) => node.alive);
  }

  /** Runs until every live flight is complete, or the time is over. Resolves to how long it took. */
  async run(ms: number, from = this.rig.clock.now()): Promise<number | undefined> {
    const done = await this.rig.clock.run(ms, () =>
      this.flights.every(({ node, complete }) => complete || !node.alive),
    );
    return done ? this.rig.clock.now() - from : undefined;
  }

  /** Bytes from upstream over the size of the blob. */
  get amplification(): number {
    return this.upstreamBytes / this.rig.size;
  }

  flightOf(id: string): CrowdFlight | undefined {
    return this.#byId.get(id);
  }
}

/** One node's flight of the blob. */
export class CrowdFlight {
  readonly node: RigNode;
  readonly member: SwarmMember;
  readonly have: PieceMap;
  /** Leases that were seen, in order, by first piece. */
  readonly seen = new Map<number, Lease>();
  completedAt: number | undefined;
  firstLeaseAt: number | undefined;
  uploads = 0;
  readonly rate: number;
  readonly #crowd: Crowd;
  readonly #asked = new Set<number>();
  /** Sources that were left for being slow. */
  readonly #slow = new Set<string>();
  #fetching = false;
  /** Bytes of the stream of an upstream without ranges. */
  #streamed = 0;

  constructor(crowd: Crowd, node: RigNode, have: PieceMap) {
    this.#crowd = crowd;
    this.node = node;
    this.rate = crowd.options.nodeRate;
    this.have = have;
    this.member = crowd.rig.join(node, have);
  }

  get complete(): boolean {
    return this.have.complete;
  }

  async run(): Promise<void> {
    while (this.node.alive && !this.complete) {
      const { change } = this.member;
      this.#look();
      await change;
    }
  }

  #look(): void {
    if (!this.node.alive || this.complete) return;
    const [lease] = this.member.leases;
    if (lease !== undefined) {
      this.firstLeaseAt ??= this.#crowd.rig.clock.now();
      this.seen.set(lease.id, lease);
    }
    if (!this.#fetching && this.member.pausedMs === 0) {
      if (lease !== undefined) this.#fetchLeased(lease);
      else if (this.member.alone) this.#fetchAlone();
    }
    while (this.#asked.size < SLOTS && this.#fetchFromPeer());
  }

  #fetchLeased(lease: Lease): void {
    const { options } = this.#crowd;
    const why = options.upstream.refuses?.(this.node);
    if (why !== undefined) return this.member.handBack(lease, why);
    const ranges = options.upstream.ranges ?? true;
    if (!ranges && (lease.first !== 0 || lease.end !== this.#crowd.rig.geometry.count)) {
      return this.member.handBack(lease, { kind: "unranged" });
    }
    if (!ranges) return this.#stream(lease);
    for (let piece = lease.first; piece < lease.end; piece += 1) {
      if (!this.have.has(piece)) return this.#fetch(piece, lease);
    }
  }

  /** From the beginning, whatever is there. */
  #stream(lease: Lease): void {
    const { geometry, size } = this.#crowd.rig;
    if (this.#streamed < size) this.#fetch(geometry.at(this.#streamed), lease);
  }

  #fetchAlone(): void {
    for (let piece = 0; piece < this.#crowd.rig.geometry.count; piece += 1) {
      if (!this.have.has(piece)) return this.#fetch(piece, undefined);
    }
  }

  #fetch(piece: number, lease: Lease | undefined): void {
    const crowd = this.#crowd;
    const { geometry, clock } = crowd.rig;
    const { rate, perNode, firstByteMs = 20 } = crowd.options.upstream;
    const bytes = geometry.length(piece);
    this.#fetching = true;
    crowd.downloading += 1;
    const share = Math.min(rate / crowd.downloading, perNode?.(this.node) ?? Infinity);
    const ms = (bytes / share) * 1_000;
    const chunks = Math.max(1, Math.round(ms / CHUNK_MS));
    // What comes is reported as it comes.
    for (let nth = 1; nth <= chunks; nth += 1) {
      clock.after((ms * nth) / chunks, () => {
        if (this.node.alive && lease !== undefined) this.member.received(lease, Math.floor(bytes / chunks));
      });
    }
    clock.after(ms + (lease === undefined || piece === lease.first ? firstByteMs : 0), () => {
      crowd.downloading -= 1;
      this.#fetching = false;
      if (!this.node.alive) return;
      crowd.fromUpstream += 1;
      crowd.upstreamBytes += bytes;
      this.#streamed += bytes;
      this.#got(piece, true);
    });
  }

  #fetchFromPeer(): boolean {
    const { geometry, random } = this.#crowd.rig;
    let first = 0;
    while (first < geometry.count && this.have.has(first)) first += 1;
    let best: { piece: number; from: Neighbour; rarity: number } | undefined;
    let seen = 0;
    for (let piece = first; piece < geometry.count && (seen < WINDOW || best === undefined); piece += 1) {
      if (this.have.has(piece)) continue;
      seen += 1;
      if (this.#asked.has(piece)) continue;
      // Of equally rare ones any, lest all nodes ask for the same at the same time.
      const rarity = this.member.rarity(piece) && this.member.rarity(piece) + random();
      if (rarity === 0 || (best !== undefined && rarity >= best.rarity)) continue;
      const from = this.member.neighbours.find((one) => one.has(piece) && this.#takes(one));
      if (from !== undefined) best = { piece, from, rarity };
    }
    if (best === undefined) return false;
    this.#fetchPiece(best.piece, best.from);
    return true;
  }

  #takes({ peer }: Neighbour): boolean {
    const source = this.#crowd.source(peer.id);
    if (this.#slow.has(peer.id)) return false;
    return source === undefined || source.uploads < SLOTS;
  }

  #fetchPiece(piece: number, from: Neighbour): void {
    const { geometry, clock } = this.#crowd.rig;
    const source = this.#crowd.source(from.peer.id);
    this.#asked.add(piece);
    if (source?.node.alive !== true) {
      clock.after(2, () => {
        this.#asked.delete(piece);
        this.member.unreachable(from.peer);
        this.#look();
      });
      return;
    }
    source.uploads += 1;
    const bytes = geometry.length(piece);
    const { nodeRate } = this.#crowd.options;
    const share = Math.min(source.rate, nodeRate) / Math.max(source.uploads, this.#asked.size);
    const ms = (bytes / share) * 1_000;
    const isSlow = ms > SLOW_MS;
    clock.after(isSlow ? WATCH_MS : ms, () => {
      this.#asked.delete(piece);
      source.uploads -= 1;
      if (isSlow) {
        this.#slow.add(from.peer.id);
        this.#look();
        return;
      }
      if (!this.node.alive) return;
      if (source.node.alive) this.#check(piece, source);
      else this.member.unreachable(from.peer);
      this.#look();
    });
  }

  /** Its hash came with the piece. */
  #check(piece: number, source: CrowdSource): void {
    const { digest, size, geometry } = this.#crowd.rig;
    const about = { digest, size, geometry };
    const hash = source.node.swarm.hashes(about).of(piece);
    if (hash !== undefined) this.node.swarm.hashes(about).learn(hash);
    if (this.member.hashOf(piece)?.equals(pieceHash(piece)) !== true) {
      throw new Error(`${this.node.id}: ${source.node.id} knows no hash of piece ${piece}`);
    }
    this.#got(piece, false);
  }

  #got(piece: number, fromUpstream: boolean): void {
    this.have.set(piece);
    this.member.have(piece, pieceHash(piece), fromUpstream);
    if (this.complete) this.completedAt ??= this.#crowd.rig.clock.now();
    if (this.complete) void this.member.leave();
    else this.#look();
  }
}
