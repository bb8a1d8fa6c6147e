import type { Clock } from "@p2p-mirror/shared";

/**
 * The first piece that is not on its way is asked for first when it has been that for so long: rare pieces are for those who
 * come later, and containerd gives a pull up that brings nothing for 5 minutes. It is asked of a holder though another is to
 * bring it, so it should be rare: with 10 s, and 24 Mbit/s, a holder sent 69 of 256 pieces twice, with 30 s 14.
 */
const PATIENCE_MS = 30_000;

/** The piece that a reader has waited for long enough. */
export class ReaderPatience {
  readonly #clock: Clock;
  /** The first piece, from where the newest reader began, that is not on its way; and since when it is that. */
  #next: { readonly piece: number | undefined; readonly since: number } = { piece: undefined, since: 0 };

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `open`: pieces that are not on their way, in the order of readers. */
  urgent([piece]: Iterable<number>): number | undefined {
    const now = this.#clock.now();
    if (this.#next.piece !== piece) this.#next = { piece, since: now };
    return now - this.#next.since >= PATIENCE_MS ? piece : undefined;
  }
}
