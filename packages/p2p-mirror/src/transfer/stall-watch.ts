import type { Clock } from "@p2p-mirror/shared";

/** While a source is silent for longer than it may be, others are looked for this often. */
const AGAIN_MS = 250;

export interface StallWatchOptions {
  /** Milliseconds for which the source may be silent while another one could take over. */
  readonly stallMs: number;
  /** Whether another one could. */
  readonly alternatives: () => boolean;
  /** For how long a limit of this node has held the source up until now; default never. */
  readonly heldMs?: () => number;
  /** What it must bring beyond that; default: any byte will do. */
  readonly floor?: Floor | undefined;
  /** Called once. */
  readonly onStall: (why: "silent" | "slow") => void;
}

/** Fewer than `bytes` in `ms` of waiting for the source is as good as silence, as long as that `applies`. */
export interface Floor {
  readonly bytes: number;
  readonly ms: number;
  readonly applies: () => boolean;
}

/**
 * Gives up a source that is silent as soon as another one can take over. Its request knows a limit of its own, but that
 * was chosen when the request began, perhaps as the only source: the others may have come up after that.
 */
export class StallWatch {
  readonly #options: StallWatchOptions;
  readonly #clock: Clock;
  #silentSince: number | undefined;
  #heldBefore = 0;
  /** Since the floor was met: what came, and how long it was waited for. */
  #bytes = 0;
  #waitedMs = 0;
  #cancel: (() => void) | undefined;

  constructor(options: StallWatchOptions, clock: Clock) {
    this.#options = options;
    this.#clock = clock;
    this.waiting();
    this.#check();
  }

  /** The source is to deliver now. */
  waiting(): void {
    this.#silentSince = this.#clock.now();
    this.#heldBefore = this.#heldMs;
  }

  /** It has delivered; what happens until `waiting` is not its fault. */
  arrived(bytes = 0): void {
    this.#waitedMs += this.#silentMs;
    this.#silentSince = undefined;
    this.#bytes += bytes;
    const { floor } = this.#options;
    if (floor === undefined || this.#bytes < floor.bytes) return;
    this.#bytes = 0;
    this.#waitedMs = 0;
  }

  close(): void {
    this.#cancel?.();
  }

  get #heldMs(): number {
    return this.#options.heldMs?.() ?? 0;
  }

  /** For how long it has been waited for now. */
  get #silentMs(): number {
    if (this.#silentSince === undefined) return 0;
    return Math.max(0, this.#clock.now() - this.#silentSince - (this.#heldMs - this.#heldBefore));
  }

  #check(): void {
    const { stallMs, alternatives, floor, onStall } = this.#options;
    const silentMs = this.#silentMs;
    const late = stallMs - silentMs;
    const slow = floor === undefined ? Infinity : floor.ms - this.#waitedMs - silentMs;
    if (late <= 0 && alternatives()) onStall("silent");
    else if (slow <= 0 && floor?.applies() === true && alternatives()) onStall("slow");
    else this.#cancel = this.#clock.after(Math.max(Math.min(late, slow), AGAIN_MS), () => this.#check());
  }
}
