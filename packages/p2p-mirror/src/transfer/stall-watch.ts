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
  /** Called once. */
  readonly onStall: () => void;
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
  arrived(): void {
    this.#silentSince = undefined;
  }

  close(): void {
    this.#cancel?.();
  }

  get #heldMs(): number {
    return this.#options.heldMs?.() ?? 0;
  }

  #check(): void {
    const { stallMs, alternatives, onStall } = this.#options;
    const left =
      this.#silentSince === undefined
        ? stallMs
        : this.#silentSince + (this.#heldMs - this.#heldBefore) + stallMs - this.#clock.now();
    if (left <= 0 && alternatives()) onStall();
    else this.#cancel = this.#clock.after(Math.max(left, AGAIN_MS), () => this.#check());
  }
}
