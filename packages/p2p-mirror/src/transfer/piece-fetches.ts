import type { Readable } from "node:stream";
import { heldMsOf, SourceError, type Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { Neighbour } from "../swarm/swarm.ts";
import type { Crowd, FetchDeps } from "./fetch-deps.ts";
import { fetchPiece, type AskForPiece, type FetchPieceDeps, type PieceFetchOptions } from "./fetch-piece.ts";
import { NeighbourConduct } from "./neighbour-conduct.ts";
import { NeighbourFaults } from "./neighbour-faults.ts";
import type { WantedPiece } from "./peer-client.ts";
import { choosePiece } from "./piece-choice.ts";
import { fromMemory, holdPiece, type HeldPiece } from "./held-piece.ts";
import type { HolderPlace } from "./holder-queue.ts";
import { PieceHedges } from "./piece-hedges.ts";
import { PieceTurns } from "./piece-turns.ts";
import { ReaderPatience } from "./reader-patience.ts";

/**
 * Neighbours asked at a time (all there are), and pieces asked of each: enough that the next piece is on its way when one
 * is there. In simulation, last node / bound with seven nodes around one holder, and fifteen: six neighbours and three
 * pieces each 1.23 and 1.75, this 1.12 and 1.25.
 * A node with several blobs under way (an image has layers) has pieces enough on its way with one each, and needs half
 * the connections: eight real mirrors used 84 instead of 116 s of CPU, 215 instead of 254 MiB (docs/performance.md).
 */
const MAX_NEIGHBOURS_ASKED = 12;
const PIECES_EACH = 2;
const FEW_NEIGHBOURS = 3;
const FEW_BLOBS = 2;
/** Where pieces come as quickly as this, turns at a holder would be spent on waiting for the next request to arrive. */
const QUICK_MS = 300;
/** A turn is over after so long, whatever comes: others' pieces may come better. */
const TURN_MS = 5_000;
/** A neighbour that is silent for so long loses the piece. */
const STALL_MS = 1_500;
const FIRST_BYTE_MS = 2_000;
/**
 * A piece that takes longer than this, and than so many times what pieces take, is asked of another: bytes that trickle in
 * are progress for the watch of the connection, but no use.
 */
const SLOWEST_MS = 2_000;
const SLOWEST_FACTOR = 4;
/** While no piece has come from anybody. */
const UNKNOWN_MS = 10_000;

/** A piece is given out when it is whole and its hash is right: nothing arrives before. */
export type PieceFetchesDeps = Omit<FetchDeps, "arrived"> & Omit<Crowd, "recall">;

/** A piece that a neighbour was asked for. */
interface Asked {
  readonly peer: Peer;
  readonly piece: number;
  /** Of the piece, in bytes. */
  readonly length: number;
  readonly abort: AbortController;
  /** Milliseconds, without those in which a limit of this node held it up: that holds up whomever it asks. */
  readonly taken: () => number;
  /** Another neighbour that is asked for the same besides, once; undefined in the end: it has not brought it. */
  second?: { readonly abort: AbortController; readonly held: Promise<HeldPiece | undefined> };
  /** That one is at it. */
  hasCompany: boolean;
  /** The other one was first. */
  outrun: boolean;
  /** It is this flight's turn at a holder, which is to be given back. */
  isTurn: boolean;
  /** Until it is looked at again. */
  cancel?: () => void;
}

/** Pieces that are on their way from neighbours, and who is asked next for which. */
export class PieceFetches {
  readonly #options: { readonly digest: Digest; readonly size: number };
  readonly #deps: PieceFetchesDeps;
  readonly #asked = new Set<Asked>();
  /** Requests to each neighbour. */
  readonly #askedOf = new Map<string, number>();
  readonly #conduct: NeighbourConduct;
  readonly #faults: NeighbourFaults;
  readonly #turns: PieceTurns;
  readonly #readers: ReaderPatience;
  readonly #hedges = new PieceHedges();
  readonly #place: HolderPlace;
  #closed = false;

  constructor(options: { readonly digest: Digest; readonly size: number }, deps: PieceFetchesDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#conduct = new NeighbourConduct(deps.clock);
    this.#faults = new NeighbourFaults(options.digest, { ...deps, conduct: this.#conduct });
    this.#place = deps.holders.place(deps.changed);
    this.#readers = new ReaderPatience(deps.clock);
    this.#turns = new PieceTurns({
      ...deps,
      usual: (piece) => this.#hedges.usual(deps.pieces.geometry.length(piece)),
      gives: ({ peer }, piece) => this.#conduct.gives(peer.id, piece),
    });
  }

  get active(): number {
    return this.#asked.size;
  }

  /** Somebody will be asked again later. */
  get waiting(): boolean {
    return this.#faults.pausing || this.takesTurns;
  }

  /** A piece is left to another node for a moment, or its holder gives another blob's first. */
  get takesTurns(): boolean {
    return this.#turns.waiting || this.#place.waiting;
  }

  /** Who is at work. */
  get sources(): string[] {
    return [...this.#askedOf.keys()];
  }

  /** `from`: the piece the newest reader waits for. */
  askAll(from: number): void {
    const { member, random, blobs } = this.#deps;
    const turns = this.#turns;
    turns.look();
    const open = this.#open(from);
    const { pieceSize } = this.#deps.pieces.geometry;
    const urgent = this.#readers.urgent(open, this.#hedges.usual(pieceSize) ?? 0);
    const excluded = (neighbour: Neighbour, piece: number): boolean =>
      !this.#conduct.isOpenFor(neighbour.peer.id, piece) ||
      turns.isOthers(neighbour, piece, piece === urgent);
    // One piece of each before a second of any: the load is spread.
    const many = member.neighbours.length > FEW_NEIGHBOURS && blobs() > FEW_BLOBS;
    const each = many ? 1 : PIECES_EACH;
    this.#askEach(open, each, (neighbour) =>
      choosePiece(neighbour, { open, urgent, member, random, inOrder: turns.inOrder, excluded }),
    );
    // The piece it is in line for may have been asked of another one meanwhile.
    this.#place.settle(open.size > 0);
    this.#hedges.left(open.size, this.#asked.size);
    if (this.#hedges.atEnd) for (const asked of this.#asked) this.#look(asked);
  }

  #askEach(open: Set<number>, each: number, choose: (neighbour: Neighbour) => number | undefined): void {
    const { member, pieces } = this.#deps;
    const { neighbours } = member;
    for (let round = 1; round <= each; round += 1) {
      for (const neighbour of neighbours) {
        if (open.size === 0) return;
        const { id } = neighbour.peer;
        // Of one that all ask one piece each: with two, seven nodes around it took 1.17 of the bound.
        const isShared = neighbour.complete && this.#turns.crowded;
        if ((isShared && round > 1) || !this.#mayAsk(id, round)) continue;
        const piece = choose(neighbour);
        if (piece === undefined) continue;
        const usual = this.#hedges.usual(pieces.geometry.length(piece)) ?? Infinity;
        const inTurn = isShared && usual >= QUICK_MS;
        if (inTurn && !this.#place.take(id)) continue;
        open.delete(piece);
        this.#ask(neighbour.peer, piece, inTurn);
      }
    }
  }

  /** Asks nobody for now. */
  rest(): void {
    this.#place.settle(false);
  }

  close(): void {
    this.#closed = true;
    this.rest();
    this.#turns.close();
    this.#faults.close();
    for (const { abort, second } of this.#asked) {
      abort.abort();
      second?.abort.abort();
    }
  }

  /** From the piece `from` on, then those before it; without what this node brings from upstream itself. */
  #open(from: number): Set<number> {
    const { member, hashes, pieces } = this.#deps;
    const { count } = pieces.geometry;
    const { leases } = member;
    const open = new Set<number>();
    for (let nth = 0; nth < count; nth += 1) {
      const piece = (from + nth) % count;
      const leased = leases.some(({ first, end }) => piece >= first && piece < end);
      if (!leased && pieces.picker.isFree(piece) && !hashes.isDoubted(piece)) open.add(piece);
    }
    return open;
  }

  #mayAsk(id: string, round: number): boolean {
    const asked = this.#askedOf.get(id) ?? 0;
    if (asked >= round || (asked === 0 && this.#askedOf.size >= MAX_NEIGHBOURS_ASKED)) return false;
    return this.#conduct.isOpen(id);
  }

  #ask(peer: Peer, piece: number, isTurn: boolean): void {
    const { pieces, clock } = this.#deps;
    const run = pieces.picker.takeWithin(piece, piece + 1);
    if (run === undefined) {
      if (isTurn) this.#place.giveBack(peer.id);
      return;
    }
    const began = clock.now();
    let body: Readable | undefined;
    const asked: Asked = {
      peer,
      piece,
      length: pieces.geometry.length(piece),
      abort: new AbortController(),
      taken: () => clock.now() - began - heldMsOf(body),
      hasCompany: false,
      outrun: false,
      isTurn,
    };
    this.#asked.add(asked);
    this.#hedges.asked();
    this.#begins(peer.id);
    this.#lookLater(asked);
    const ask: AskForPiece = async (...request) => {
      const answer = await this.#deps.ask(...request);
      body = answer.body;
      return answer;
    };
    void this.#bring(asked, ask)
      .catch((error: unknown) => {
        if (!this.#closed) this.#faults.failed(peer, piece, error);
      })
      .finally(() => {
        asked.cancel?.();
        asked.second?.abort.abort();
        this.#asked.delete(asked);
        this.#answered(peer.id);
        pieces.picker.release(run);
        this.#endTurn(asked);
        this.#deps.changed();
      });
  }

  #endTurn(asked: Asked): void {
    if (asked.isTurn) this.#place.giveBack(asked.peer.id);
    asked.isTurn = false;
  }

  async #bring(asked: Asked, ask: AskForPiece): Promise<void> {
    const { peer, piece, length, abort, taken } = asked;
    const deps: FetchPieceDeps = { ...this.#deps, ask, accepted: () => this.#deps.accepted("peer") };
    const { digest } = this.#options;
    try {
      const sha256 = await fetchPiece(peer, digest, this.#request(asked), this.#times(abort), deps);
      this.#taken(peer.id, piece, sha256, length, taken());
    } catch (error) {
      const own = !asked.outrun;
      const held = await asked.second?.held;
      if (held === undefined) throw error;
      if (own) this.#faults.failed(peer, piece, error);
      const late = new AbortController();
      const memory = { ...deps, ask: fromMemory(held) };
      const sha256 = await fetchPiece(held.peer, digest, this.#request(asked), this.#times(late), memory);
      this.#taken(held.peer.id, piece, sha256, length, taken());
    }
  }

  #request({ piece, length }: Asked): WantedPiece {
    return { size: this.#options.size, piece, length };
  }

  #times({ signal }: AbortController): PieceFetchOptions {
    return { signal, stallMs: STALL_MS, firstByteMs: FIRST_BYTE_MS };
  }

  /** A piece that is late is asked of another neighbour as well, if one has it and nothing to do; of the same zone. */
  #hedge(asked: Asked): void {
    const { piece, length, abort } = asked;
    if (asked.second !== undefined || abort.signal.aborted || !this.#hedges.may(length, asked.taken()))
      return;
    const { member, zone, logger } = this.#deps;
    const other = member.neighbours.find((neighbour) => {
      const { id } = neighbour.peer;
      if (neighbour.zone !== zone || !neighbour.has(piece)) return false;
      if (this.#turns.isOthers(neighbour, piece)) return false;
      return !this.#askedOf.has(id) && this.#conduct.gives(id, piece);
    });
    if (other === undefined) return;
    const { peer } = other;
    logger.debug(
      { digest: this.#options.digest, piece, peer: asked.peer.id, other: peer.id },
      "a piece is late: another is asked, too",
    );
    const second = new AbortController();
    asked.second = { abort: second, held: this.#bringSecond(asked, peer, second) };
  }

  async #bringSecond(asked: Asked, peer: Peer, abort: AbortController): Promise<HeldPiece | undefined> {
    const { digest } = this.#options;
    this.#begins(peer.id);
    const over = this.#hedges.begin();
    asked.hasCompany = true;
    try {
      const held = await holdPiece(peer, digest, this.#request(asked), this.#times(abort), this.#deps);
      asked.outrun = true;
      asked.abort.abort();
      this.#deps.hedged?.(true);
      return held;
    } catch (error) {
      if (!this.#closed && !abort.signal.aborted) this.#faults.failed(peer, asked.piece, error);
      this.#deps.hedged?.(false);
      return undefined;
    } finally {
      over();
      asked.hasCompany = false;
      this.#answered(peer.id);
      this.#deps.changed();
    }
  }

  #begins(id: string): void {
    this.#askedOf.set(id, (this.#askedOf.get(id) ?? 0) + 1);
  }

  #answered(id: string): void {
    const left = (this.#askedOf.get(id) ?? 0) - 1;
    if (left > 0) this.#askedOf.set(id, left);
    else this.#askedOf.delete(id);
  }

  /** A request that takes long gets company, or ends while somebody else could bring the piece. */
  #look(asked: Asked): void {
    const { peer, piece, length, abort, taken } = asked;
    if (taken() >= TURN_MS) this.#endTurn(asked);
    this.#hedge(asked);
    const late = !asked.hasCompany && taken() >= this.#longest(length);
    if (late && this.#deps.member.rarity(piece) > 1)
      abort.abort(new SourceError("STALLED", peer.id, { message: "slower than others" }));
    else this.#lookLater(asked);
  }

  #lookLater(asked: Asked): void {
    asked.cancel?.();
    const ms = this.#hedges.nextLook(asked.length, asked.taken());
    asked.cancel = this.#deps.clock.after(Math.min(ms, TURN_MS), () => this.#look(asked));
  }

  /** Milliseconds that so many bytes may take. */
  #longest(length: number): number {
    const usual = this.#hedges.usual(length);
    return usual === undefined ? UNKNOWN_MS : Math.max(SLOWEST_MS, SLOWEST_FACTOR * usual);
  }

  #taken(id: string, piece: number, sha256: Buffer, length: number, ms: number): void {
    this.#conduct.reached(id);
    this.#hedges.took(ms, length);
    this.#deps.member.have(piece, sha256, false);
    this.#deps.written("peer", length);
  }
}
