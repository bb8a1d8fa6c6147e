import type { Clock, Digest, Logger } from "@p2p-mirror/shared";
import { TIMES } from "../swarm/times.ts";

/**
 * A member of a swarm for whom nobody does anything for so long helps itself: that costs bytes twice, not a pull. Where
 * that is the whole blob, since upstream ignores ranges, it waits until whoever streams it has lost the lease. While others
 * bring what it can only wait for, it does, up to `LONGEST_WAIT_MS` since it got anything of theirs.
 */
const STUCK_MS = 2_000;
const LONGEST_WAIT_MS = 120_000;

/** What the swarm does for this node at the moment. */
export interface SwarmAtWork {
  /** Requests for leases, and for pieces of neighbours. */
  readonly active: number;
  /** It is up to this node to bring something, and it can. */
  readonly due: boolean;
  /** Upstream wants to be left alone for so long. */
  readonly pausedMs: number;
  /** A piece that neighbours have is left to another node for a moment. */
  readonly takesTurns: boolean;
  /** Others bring what this node can only wait for. */
  readonly waitsForOthers: boolean;
  /** Bytes that came by all that. */
  readonly received: number;
}

/** What this node does beside. */
export interface OwnWork {
  /** Bytes, from whomever. */
  readonly received: number;
  readonly active: number;
  /** Upstream ignores ranges. */
  readonly unranged: boolean;
}

export interface SelfHelpDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  /** It is time to look again. */
  readonly changed: () => void;
}

/** When a member of a swarm asks upstream for what others should bring: piece after piece, until they do again. */
export class SelfHelp {
  readonly #digest: Digest;
  readonly #deps: SelfHelpDeps;
  #helps = false;
  #waits = false;
  /** Since when nothing has happened, and what was here then. */
  #idle: { readonly received: number; readonly since: number };
  /** When something had come from others last, and how much it was by then. */
  #last: { readonly received: number; readonly at: number };
  #cancel: (() => void) | undefined;

  constructor({ digest }: { readonly digest: Digest }, deps: SelfHelpDeps) {
    const now = deps.clock.now();
    this.#digest = digest;
    this.#deps = deps;
    this.#idle = { received: 0, since: now };
    this.#last = { received: 0, at: now };
  }

  /** Others are at work for this node, which can only wait, and has not waited for too long. As of the last `isDue`. */
  get waits(): boolean {
    return this.#waits;
  }

  /** Piece after piece is no way any more, since upstream ignores ranges: all is waited for once more. */
  end(): void {
    this.#helps = false;
  }

  /** This node has to help itself now. To be asked after every change; while there is none, `changed` is called in time. */
  isDue(swarm: SwarmAtWork, own: OwnWork): boolean {
    const now = this.#deps.clock.now();
    this.#waits = this.#mayWait(swarm.received, now) && swarm.waitsForOthers;
    const idle = { received: own.received, since: now };
    if (swarm.active > 0 || swarm.due || swarm.pausedMs > 0 || swarm.takesTurns || this.#waits) {
      this.#helps = false;
      this.#idle = idle;
      return false;
    }
    if (this.#helps) return true;
    if (own.active > 0 || own.received > this.#idle.received) {
      this.#idle = idle;
      return false;
    }
    const left = this.#idle.since + (own.unranged ? TIMES.stalled : STUCK_MS) - now;
    this.#cancel?.();
    if (left > 0) {
      this.#cancel = this.#deps.clock.after(left, this.#deps.changed);
      return false;
    }
    this.#deps.logger.debug({ digest: this.#digest }, "nobody brings anything: this node helps itself");
    return (this.#helps = true);
  }

  close(): void {
    this.#cancel?.();
  }

  /** Others may be at work, but of what they bring nothing has come here for too long: they are not waited for again. */
  #mayWait(received: number, now: number): boolean {
    if (received !== this.#last.received) this.#last = { received, at: now };
    return now - this.#last.at < LONGEST_WAIT_MS;
  }
}
