import { keyHashOf, positionOfKey } from "./key.ts";
import type { NodeAddress, Peer, Router, RoutingKey, RoutingOptions } from "./router.ts";

const MAX_PROVIDERS = 32;

/** Routers that share one table: the Router port without a network, for tests and simulations of what stands on it. */
export class MemoryMesh {
  readonly #providers = new Map<RoutingKey, Map<string, Peer>>();
  readonly #peers = new Map<string, Peer>();

  /** A node joins; `leave` is the end of it, records included. */
  join(self: Peer): Router & { leave(): void } {
    this.#peers.set(self.id, self);
    const forgotten = new Set<string>();
    return {
      self,
      advertise: (keys) => {
        for (const key of keys) {
          const providers = this.#providers.get(key) ?? new Map<string, Peer>();
          this.#providers.set(key, providers);
          // Saying it again makes it the newest.
          providers.delete(self.id);
          providers.set(self.id, self);
        }
        return Promise.resolve();
      },
      withdraw: (keys) => {
        for (const key of keys) this.#providers.get(key)?.delete(self.id);
        return Promise.resolve();
      },
      find: (key, options) => this.#find(key, self, forgotten, options),
      forget: (key, peer) => void forgotten.add(`${key} ${peer.id}`),
      closest: (key, count) => this.#closest(key, count),
      peers: () => [...this.#peers.values()].filter((peer) => peer.id !== self.id),
      leave: () => {
        this.#peers.delete(self.id);
        for (const providers of this.#providers.values()) providers.delete(self.id);
      },
    };
  }

  /** By a place in Kademlia's space made of the ID's text: these IDs are no peer IDs. */
  #closest(key: RoutingKey, count: number): NodeAddress[] {
    const place = positionOfKey(keyHashOf(key));
    const distance = ({ id }: Peer): number => (positionOfKey(keyHashOf(`tag:${id}`)) ^ place) >>> 0;
    return [...this.#peers.values()].toSorted((a, b) => distance(a) - distance(b)).slice(0, count);
  }

  async *#find(
    key: RoutingKey,
    self: Peer,
    forgotten: ReadonlySet<string>,
    options: RoutingOptions | undefined,
  ): AsyncGenerator<Peer, void, undefined> {
    let found = 0;
    for (const peer of [...(this.#providers.get(key)?.values() ?? [])].toReversed()) {
      if (options?.signal?.aborted === true || found >= MAX_PROVIDERS) return;
      if (peer.id === self.id || forgotten.has(`${key} ${peer.id}`)) continue;
      found += 1;
      // A network answers later, never within the same turn.
      await Promise.resolve();
      yield peer;
    }
  }
}
