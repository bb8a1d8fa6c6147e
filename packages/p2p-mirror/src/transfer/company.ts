import type { Clock } from "@p2p-mirror/shared";

/** Of nodes that start together, so far apart, one may be let in by upstream and others not. */
export const COMPANY_MS = 300;
/** Others may come one after the other for ever: a client whom nobody can help shall know it at last. */
export const LONGEST_COMPANY_MS = 3_000;

/**
 * Whether somebody who can do more than this node may still come: for a moment after it has found the others, and after
 * each one who is new to it.
 */
export class Company {
  readonly #clock: Clock;
  readonly #over: () => void;
  readonly #known = new Set<string>();
  #began: number | undefined;
  #cancel: (() => void) | undefined;
  #closed = false;

  /** `over` is called when nobody is expected any more. */
  constructor(clock: Clock, over: () => void) {
    this.#clock = clock;
    this.#over = over;
  }

  get expected(): boolean {
    return !this.#closed && (this.#began === undefined || this.#cancel !== undefined);
  }

  /** Who is here now, by ID; the first time when it is known who they are. */
  here(members: Iterable<string>): void {
    if (!this.expected) return;
    const before = this.#known.size;
    for (const id of members) this.#known.add(id);
    if (this.#began !== undefined && this.#known.size === before) return;
    this.#began ??= this.#clock.now();
    const left = Math.min(COMPANY_MS, this.#began + LONGEST_COMPANY_MS - this.#clock.now());
    this.#cancel?.();
    this.#cancel = this.#clock.after(left, () => {
      this.#cancel = undefined;
      this.#over();
    });
  }

  close(): void {
    this.#closed = true;
    this.#cancel?.();
  }
}
