import type { World } from "./world.ts";

const LOOK_MS = 250;
/** Longer than any lease may last without getting on: 10 s where upstream answers nobody, and what links at 1/20 take. */
const LONGEST_MS = 60_000;
/** Who has left holds nothing a moment later. */
const AFTER_LEAVING_MS = 500;

interface Seen {
  first: number;
  since: number;
  /** Since when its holder is no member. */
  orphanSince: number | undefined;
}

/** Looks at the leases that coordinators keep: none is held for ever, and none by who is no member. */
export class LeaseWatch {
  problem: string | undefined;
  readonly #world: World;
  readonly #seen = new Map<string, Seen>();

  constructor(world: World) {
    this.#world = world;
    this.#later();
  }

  #later(): void {
    this.#world.clock.after(LOOK_MS, () => {
      if (this.#world.closed) return;
      this.#look();
      this.#later();
    });
  }

  #look(): void {
    const { nodes, digest, clock } = this.#world;
    const now = clock.now();
    const current = new Set<string>();
    for (const { id: coordinator, swarm, stopped } of nodes) {
      // Nothing happens in a process that is stopped.
      if (swarm === undefined || stopped) continue;
      const members = new Set(swarm.coordinated(digest));
      for (const { id, first, holder } of swarm.leased(digest)) {
        const key = `${coordinator} ${id}`;
        current.add(key);
        const seen = this.#seen.get(key) ?? { first, since: now, orphanSince: undefined };
        this.#seen.set(key, seen);
        if (seen.first !== first) seen.since = now;
        seen.first = first;
        seen.orphanSince = members.has(holder) ? undefined : (seen.orphanSince ?? now);
        if (now - (seen.orphanSince ?? now) >= AFTER_LEAVING_MS)
          this.problem ??= `${coordinator} keeps a lease for ${holder}, which is no member`;
        if (now - seen.since > LONGEST_MS)
          this.problem ??= `${holder} has held a lease for ${now - seen.since} ms`;
      }
    }
    for (const key of this.#seen.keys()) if (!current.has(key)) this.#seen.delete(key);
  }
}
