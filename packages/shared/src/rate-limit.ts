import type { Readable } from "node:stream";
import { systemClock, type Clock } from "./clock.ts";

/** A body gets so much of the rate at a time, in milliseconds; bounded, so that turns are short and not all overhead. */
const QUANTUM_MS = 16;
const MIN_QUANTUM = 16 * 1024;
const MAX_QUANTUM = 256 * 1024;
/** While there are bodies, what was not used can be caught up for so long: a process that is busy must not lose rate. */
const BURST_MS = 250;

/**
 * A bound of bytes per second that any number of bodies share: a token bucket, given out in turns (deficit round robin,
 * Shreedhar and Varghese 1995). Bytes are counted when they have passed, so nothing is copied or kept here: whoever has
 * used its turn pauses its socket until the next one. Who comes new waits one round at most, whatever the others move;
 * small messages (`charge`) never wait, but the others wait for them.
 *
 * The token buckets of npm (limiter, simple-token-bucket) have a promise for each chunk and no turns.
 */
export class RateLimit {
  readonly bytesPerSecond: number;
  /** Bytes of one turn. Who sends should not send more at once. */
  readonly quantum: number;
  readonly #clock: Clock;
  readonly #queue = new Set<RateShare>();
  readonly #burst: number;
  #bodies = 0;
  #balance = 0;
  #at: number;
  #cancel: (() => void) | undefined;

  constructor(bytesPerSecond: number, clock: Clock = systemClock) {
    this.bytesPerSecond = bytesPerSecond;
    this.quantum = Math.round(
      Math.min(MAX_QUANTUM, Math.max(MIN_QUANTUM, (bytesPerSecond * QUANTUM_MS) / 1000)),
    );
    this.#clock = clock;
    this.#burst = Math.max(this.quantum, (bytesPerSecond * BURST_MS) / 1000);
    this.#at = clock.now();
  }

  /** Bodies that wait for their turn. */
  get held(): number {
    return this.#queue.size;
  }

  /** How long a body waits from turn to turn, in milliseconds. */
  get roundMs(): number {
    return (this.#queue.size * this.quantum * 1000) / this.bytesPerSecond;
  }

  /** For one body. `onTurn` is called when it may go on after it was held up. It must be closed. */
  share(onTurn: () => void): RateShare {
    this.#refill();
    this.#bodies += 1;
    return new RateShare(onTurn, this.#clock, {
      turn: (share) => this.#turn(share),
      leave: (share, unused) => {
        this.#refill();
        this.#bodies -= 1;
        this.#balance += unused;
        this.#queue.delete(share);
        if (this.#queue.size === 0) this.#stop();
      },
    });
  }

  /** Bytes of something small, which is not held up. */
  charge(bytes: number): void {
    this.#balance -= bytes;
  }

  /** True: it goes on at once. */
  #turn(share: RateShare): boolean {
    this.#refill();
    if (this.#queue.size === 0)
      while (this.#balance > 0) {
        this.#balance -= this.quantum;
        if (share.grant(this.quantum)) return true;
      }
    this.#queue.add(share);
    this.#arm();
    return false;
  }

  #serve(): void {
    this.#refill();
    for (const share of this.#queue) {
      if (this.#balance <= 0) break;
      this.#balance -= this.quantum;
      // Whoever owes for more than a turn goes to the end, which this loop comes to as well.
      this.#queue.delete(share);
      if (share.grant(this.quantum)) share.goOn();
      else this.#queue.add(share);
    }
    this.#arm();
  }

  #arm(): void {
    if (this.#cancel !== undefined || this.#queue.size === 0) return;
    const ms = Math.max(1, Math.ceil(((1 - this.#balance) * 1000) / this.bytesPerSecond));
    this.#cancel = this.#clock.after(ms, () => {
      this.#cancel = undefined;
      this.#serve();
    });
  }

  #stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #refill(): void {
    const now = this.#clock.now();
    const earned = (Math.max(0, now - this.#at) * this.bytesPerSecond) / 1000;
    this.#balance = Math.min(this.#bodies > 0 ? this.#burst : this.quantum, this.#balance + earned);
    this.#at = now;
  }
}

interface Turns {
  turn(share: RateShare): boolean;
  leave(share: RateShare, unused: number): void;
}

/** What one body has of a limit. */
export class RateShare {
  readonly #onTurn: () => void;
  readonly #clock: Clock;
  readonly #turns: Turns;
  #credit = 0;
  #heldSince: number | undefined;
  #heldMs = 0;
  #closed = false;

  constructor(onTurn: () => void, clock: Clock, turns: Turns) {
    this.#onTurn = onTurn;
    this.#clock = clock;
    this.#turns = turns;
  }

  /** It waits for its turn. */
  get held(): boolean {
    return this.#heldSince !== undefined;
  }

  /** For how long it was held up until now, in all. */
  get heldMs(): number {
    return this.#heldMs + (this.#heldSince === undefined ? 0 : this.#clock.now() - this.#heldSince);
  }

  /** So many bytes have passed. False: no more until `onTurn`. */
  spend(bytes: number): boolean {
    this.#credit -= bytes;
    if (this.#closed || this.held || this.#credit >= 0) return !this.held;
    if (this.#turns.turn(this)) return true;
    this.#heldSince = this.#clock.now();
    return false;
  }

  /** The body is over. What it owes, or has not used, is the others'. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#letGo();
    this.#turns.leave(this, this.#credit);
  }

  /** From the limit: a turn. True: it owes nothing any more. */
  grant(bytes: number): boolean {
    this.#credit += bytes;
    return this.#credit >= 0;
  }

  /** From the limit, after such a turn. */
  goOn(): void {
    this.#letGo();
    this.#onTurn();
  }

  #letGo(): void {
    this.#heldMs = this.heldMs;
    this.#heldSince = undefined;
  }
}

/** A body that a limit of this node may hold up: then nothing comes, and that is not its source's fault. */
export interface LimitedReadable extends Readable {
  /** For how long that was so until now, in milliseconds. */
  readonly heldMs: number;
}

/** 0 for bodies without a limit. */
export const heldMsOf = (stream: Readable | undefined): number =>
  stream !== undefined && "heldMs" in stream && typeof stream.heldMs === "number" ? stream.heldMs : 0;
