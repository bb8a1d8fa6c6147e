import type { Readable } from "node:stream";
import { heldMsOf, IntegrityError, NotFoundError, SourceError, type Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { Neighbour } from "../swarm/swarm.ts";
import type { Crowd, FetchDeps } from "./fetch-deps.ts";
import { fetchPiece, type FetchPieceDeps } from "./fetch-piece.ts";
import { FAULT_PAUSE_MS, NeighbourConduct } from "./neighbour-conduct.ts";
import { BusyError } from "./peer-client.ts";
import { choosePiece } from "./piece-choice.ts";
import { PieceTurns } from "./piece-turns.ts";

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
/**
 * Of one that has everything, while others fetch, too: all ask it, and the sooner the first has a piece whole, the sooner
 * it gives it on. Two each: 1.17 with seven nodes around one holder.
 */
const PIECES_OF_HOLDER = 1;
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
/** Times that pieces took are remembered of so many. */
const REMEMBERED = 15;
/** After "busy" a neighbour is left alone for so long. */
const BUSY_PAUSE_MS = 100;
/**
 * The first piece that is not on its way is asked for first when it has been that for so long: rare pieces are for those who
 * come later, and containerd gives a pull up that brings nothing for 5 minutes.
 */
const READER_PATIENCE_MS = 10_000;

/** A piece is given out when it is whole and its hash is right: nothing arrives before. */
export type PieceFetchesDeps = Omit<FetchDeps, "arrived"> & Omit<Crowd, "recall">;

/** Pieces that are on their way from neighbours, and who is asked next for which. */
export class PieceFetches {
  readonly #options: { readonly digest: Digest; readonly size: number };
  readonly #deps: PieceFetchesDeps;
  readonly #asked = new Set<AbortController>();
  /** Requests to each neighbour. */
  readonly #askedOf = new Map<string, number>();
  readonly #conduct: NeighbourConduct;
  readonly #turns: PieceTurns;
  /** The first piece, from where the newest reader began, that is not on its way; and since when it is that. */
  #next: { readonly piece: number | undefined; readonly since: number } = { piece: undefined, since: 0 };
  readonly #timers = new Set<() => void>();
  /** Milliseconds a byte, of the last pieces. */
  readonly #paces: number[] = [];
  #closed = false;

  constructor(options: { readonly digest: Digest; readonly size: number }, deps: PieceFetchesDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#conduct = new NeighbourConduct(deps.clock);
    this.#turns = new PieceTurns(deps);
  }

  get active(): number {
    return this.#asked.size;
  }

  /** Somebody will be asked again later. */
  get waiting(): boolean {
    return this.#timers.size > 0 || this.#turns.waiting;
  }

  /** A piece is left to another node for a moment. */
  get takesTurns(): boolean {
    return this.#turns.waiting;
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
    const urgent = this.#urgent(open);
    const excluded = (neighbour: Neighbour, piece: number): boolean =>
      !this.#conduct.isOpenFor(neighbour.peer.id, piece) || turns.isOthers(neighbour, piece);
    // One piece of each before a second of any: the load is spread.
    const many = member.neighbours.length > FEW_NEIGHBOURS && blobs() > FEW_BLOBS;
    const each = many ? 1 : PIECES_EACH;
    for (let round = 1; round <= each; round += 1) {
      for (const neighbour of member.neighbours) {
        if (open.size === 0) return;
        if (neighbour.complete && turns.crowded && round > PIECES_OF_HOLDER) continue;
        if (!this.#mayAsk(neighbour.peer.id, round)) continue;
        const piece = choosePiece(neighbour, { open, urgent, member, random, excluded });
        if (piece === undefined) continue;
        open.delete(piece);
        this.#ask(neighbour.peer, piece);
      }
    }
  }

  close(): void {
    this.#closed = true;
    this.#turns.close();
    for (const cancel of this.#timers) cancel();
    for (const abort of this.#asked) abort.abort();
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

  #urgent([piece]: Iterable<number>): number | undefined {
    const now = this.#deps.clock.now();
    if (this.#next.piece !== piece) this.#next = { piece, since: now };
    const waits = now - this.#next.since >= READER_PATIENCE_MS;
    return waits ? piece : undefined;
  }

  #mayAsk(id: string, round: number): boolean {
    const asked = this.#askedOf.get(id) ?? 0;
    if (asked >= round || (asked === 0 && this.#askedOf.size >= MAX_NEIGHBOURS_ASKED)) return false;
    return this.#conduct.isOpen(id);
  }

  #ask(peer: Peer, piece: number): void {
    const { pieces } = this.#deps;
    const run = pieces.picker.takeWithin(piece, piece + 1);
    if (run === undefined) return;
    const abort = new AbortController();
    this.#asked.add(abort);
    this.#askedOf.set(peer.id, (this.#askedOf.get(peer.id) ?? 0) + 1);
    const length = pieces.geometry.end(piece) - pieces.geometry.start(piece);
    const request = { size: this.#options.size, piece, length };
    const options = { signal: abort.signal, stallMs: STALL_MS, firstByteMs: FIRST_BYTE_MS };
    const { ask, clock } = this.#deps;
    const began = clock.now();
    let body: Readable | undefined;
    // A limit of this node holds up whomever it asks.
    const taken = (): number => clock.now() - began - heldMsOf(body);
    const deps: FetchPieceDeps = {
      ...this.#deps,
      accepted: () => this.#deps.accepted("peer"),
      ask: async (...asked) => {
        const answer = await ask(...asked);
        body = answer.body;
        return answer;
      },
    };
    const cancel = this.#limit(peer, { piece, length, taken }, abort);
    void fetchPiece(peer, this.#options.digest, request, options, deps)
      .then(
        (sha256) => this.#taken(peer.id, piece, sha256, length, taken()),
        (error: unknown) => {
          if (!this.#closed) this.#failed(peer, piece, error);
        },
      )
      .finally(() => {
        cancel();
        this.#asked.delete(abort);
        this.#answered(peer.id);
        pieces.picker.release(run);
        this.#deps.changed();
      });
  }

  #answered(id: string): void {
    const left = (this.#askedOf.get(id) ?? 0) - 1;
    if (left > 0) this.#askedOf.set(id, left);
    else this.#askedOf.delete(id);
  }

  /** Ends a request that is slow beyond measure, while somebody else could bring the piece. */
  #limit(
    peer: Peer,
    { piece, length, taken }: { piece: number; length: number; taken: () => number },
    abort: AbortController,
  ): () => void {
    const { clock, member } = this.#deps;
    const look = (): void => {
      const late = taken() >= this.#longest(length);
      if (late && member.rarity(piece) > 1)
        abort.abort(new SourceError("STALLED", peer.id, { message: "slower than others" }));
      else cancel = clock.after(SLOWEST_MS, look);
    };
    let cancel = clock.after(SLOWEST_MS, look);
    return () => cancel();
  }

  /** Milliseconds that so many bytes may take. */
  #longest(length: number): number {
    const paces = this.#paces.toSorted((a, b) => a - b);
    const usual = paces[Math.floor(paces.length / 2)];
    return usual === undefined ? UNKNOWN_MS : Math.max(SLOWEST_MS, SLOWEST_FACTOR * usual * length);
  }

  #taken(id: string, piece: number, sha256: Buffer, length: number, ms: number): void {
    this.#conduct.reached(id);
    this.#paces.push(ms / length);
    if (this.#paces.length > REMEMBERED) this.#paces.shift();
    this.#deps.member.have(piece, sha256, false);
    this.#deps.written("peer", length);
  }

  #failed(peer: Peer, piece: number, error: unknown): void {
    const { member, logger } = this.#deps;
    const { id } = peer;
    logger.debug({ err: error, digest: this.#options.digest, peer: id, piece }, "a neighbour failed");
    if (error instanceof BusyError) return this.#pause(id, BUSY_PAUSE_MS);
    if (error instanceof NotFoundError) {
      this.#pausePiece(id, piece);
      if (this.#hasNothing(id)) member.unreachable(peer);
      return;
    }
    const wrong = error instanceof IntegrityError;
    if (wrong) this.#pausePiece(id, piece);
    else this.#pause(id, FAULT_PAUSE_MS);
    if (wrong ? this.#conduct.offends(id, "wrong") : this.#isUseless(id, error)) member.unreachable(peer);
  }

  /** A member tells what it has, and may be late to give it; who went with the whole blob gives everything, or nothing. */
  #hasNothing(id: string): boolean {
    const left = this.#deps.member.neighbours.find(({ peer }) => peer.id === id)?.left === true;
    return left && this.#conduct.offends(id, "missed");
  }

  #isUseless(id: string, error: unknown): boolean {
    if (!(error instanceof SourceError)) return false;
    return error.code === "NO_FIRST_BYTE" || (error.code === "UNREACHABLE" && this.#conduct.staysAway(id));
  }

  #pausePiece(id: string, piece: number): void {
    this.#conduct.pausePiece(id, piece);
    this.#later(FAULT_PAUSE_MS);
  }

  #pause(id: string, ms: number): void {
    this.#conduct.pause(id, ms);
    this.#later(ms);
  }

  #later(ms: number): void {
    const cancel = this.#deps.clock.after(ms, () => {
      this.#timers.delete(cancel);
      this.#deps.changed();
    });
    this.#timers.add(cancel);
  }
}
