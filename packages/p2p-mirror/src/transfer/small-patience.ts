import type { Clock } from "@p2p-mirror/shared";

/** As long as a lease lasts, and at most this much more, so that not all members ask upstream in the same moment. */
const WAIT_MS = 2_000;
const JITTER_MS = 500;
/**
 * After a wait in vain others are waited for less, for so long: a pull is many small objects, one after the other, and the
 * next one would most likely cost the same.
 */
const SHORT_WAIT_MS = 200;
const VAIN_MS = 10_000;

/** How long this node leaves it to others to bring a small object, by what that has been good for lately. */
export class SmallPatience {
  readonly #clock: Clock;
  readonly #random: () => number;
  #shortUntil = -Infinity;

  /** `random`: from 0 to 1. */
  constructor(clock: Clock, random: () => number) {
    this.#clock = clock;
    this.#random = random;
  }

  /** Milliseconds. */
  get waitMs(): number {
    const wait = this.#clock.now() < this.#shortUntil ? SHORT_WAIT_MS : WAIT_MS;
    return wait + (this.#random() * JITTER_MS * wait) / WAIT_MS;
  }

  /** Nobody brought it in time. */
  inVain(): void {
    this.#shortUntil = this.#clock.now() + VAIN_MS;
  }

  /** Another member gave it. */
  paid(): void {
    this.#shortUntil = -Infinity;
  }
}
