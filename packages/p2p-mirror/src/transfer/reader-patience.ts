import type { Clock } from "@p2p-mirror/shared";

/**
 * The first piece that is not on its way is asked for first when it has been that for so long, or for as long as so many pieces
 * take: rare pieces are for those who come later, and containerd gives a pull up that brings nothing for 5 minutes. It is asked of a
 * holder though another is to bring it, so it should be rare: with 10 s alone, and 24 Mbit/s, a holder sent 69 of 256 pieces twice.
 */
const PATIENCE_MS = 10_000;
const PATIENCE_PIECES = 12;
const LONGEST_MS = 30_000;

/** The piece that a reader has waited for long enough. */
export class ReaderPatience {
  readonly #clock: Clock;
  /** The first piece, from where the newest reader began, that is not on its way; and since when it is that. */
  #next: { readonly piece: number | undefined; readonly since: number } = { piece: undefined, since: 0 };

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `open`: pieces that are not on their way, in the order of readers; `usualMs`: what one takes, 0 when that is not known. */
  urgent([piece]: Iterable<number>, usualMs: number): number | undefined {
    const now = this.#clock.now();
    if (this.#next.piece !== piece) this.#next = { piece, since: now };
    const patience = Math.min(LONGEST_MS, Math.max(PATIENCE_MS, PATIENCE_PIECES * usualMs));
    return now - this.#next.since >= patience ? piece : undefined;
  }
}
