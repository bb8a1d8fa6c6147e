/**
 * What TCP makes of a link that dozens of connections share: shares are far from equal, and a connection whose packets were
 * lost is silent until it sends them again, which takes longer each time. Sixteen real nodes behind 12 Mbit/s had 158
 * leases silent for more than 2 s; these figures give 162.
 */
export class CrowdedLink {
  /** What comes over it, comes in records of TLS; one in so many is followed by silence. */
  static readonly #recordsASilence = 33;
  static readonly #shortestMs = 300;
  static readonly #doublings = 4;
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  /** A connection's share of the link against others': log-normal, the median 1. */
  weight(): number {
    const normal = Math.sqrt(-2 * Math.log(1 - this.#random())) * Math.cos(2 * Math.PI * this.#random());
    return Math.exp(normal);
  }

  /** How long nothing comes after a record: mostly 0. */
  silenceMs(): number {
    if (this.#random() * CrowdedLink.#recordsASilence >= 1) return 0;
    return CrowdedLink.#shortestMs * 2 ** Math.floor(CrowdedLink.#doublings * this.#random());
  }
}
