import type { Clock } from "@p2p-mirror/shared";
import type { Contact } from "./wire.ts";
import { TIMES } from "./times.ts";

/** Nodes that did not answer lately: a routing table knows it later. */
export class Avoided {
  readonly #until = new Map<string, number>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(id: string): void {
    const now = this.#clock.now();
    for (const [other, until] of this.#until) if (until <= now) this.#until.delete(other);
    this.#until.set(id, now + TIMES.avoid);
  }

  delete(id: string): void {
    this.#until.delete(id);
  }

  has(id: string): boolean {
    return (this.#until.get(id) ?? -Infinity) > this.#clock.now();
  }

  /** The latest ones first. */
  ids(most: number): string[] {
    return [...this.#until.keys()]
      .filter((id) => this.has(id))
      .toReversed()
      .slice(0, most);
  }

  get size(): number {
    return this.#until.size;
  }

  /** The first of `nodes` that is not avoided. */
  firstOf(nodes: readonly Contact[]): Contact | undefined {
    return nodes.find(({ id }) => !this.has(id));
  }
}
