import type { PeerInfo } from "@libp2p/interface";
import type { QueryEvent } from "@libp2p/kad-dht";
import { linkSignal } from "@p2p-mirror/shared";
import { LRUCache } from "lru-cache";
import type { CID } from "multiformats/cid";
import { dataPlaneOf } from "./addresses.ts";
import { askClosest } from "./ask-closest.ts";
import { cidOf, positionOfKey, type KeyHash } from "./key.ts";
import type { Member, Members } from "./members.ts";
import type { RoutingMetrics } from "./metrics.ts";
import type { ProviderStore } from "./provider-store.ts";
import type { Peer } from "./router.ts";

export interface LookupDeps {
  readonly self: string;
  readonly store: ProviderStore;
  readonly members: Members;
  /** How many members keep each record. */
  readonly replication: number;
  /** True when this node believes it knows all members: then those closest to a key are those that have its records. */
  knowsAll(): boolean;
  /** Asks one member for what it has. */
  ask(member: Member, key: KeyHash, signal: AbortSignal): Promise<readonly Peer[]>;
  /** A member did not answer. */
  check(member: Member): void;
  /** kad-dht's lookup. */
  findProviders(cid: CID, signal: AbortSignal): AsyncIterable<QueryEvent>;
  readonly metrics: RoutingMetrics;
}

/** Enough for any number of sources; more would only be found, not used. */
const MAX_PROVIDERS = 32;
/** A lookup that meets dead nodes ends here; who waits for it has upstream. */
const LOOKUP_TIMEOUT_MS = 3_000;
/** One pull asks for a digest several times (HEAD, GET, each range of chunked mode). Withdrawals must show soon after. */
const REMEMBER_MS = 2_000;
const FORGET_MS = 2_000;
const MAX_REMEMBERED = 1_024;

/**
 * Finds who has a key: in what this node was told itself, then at the members closest to the key (one round trip, where
 * kad-dht asks twenty nodes: 15 ms and 33 ms of CPU a lookup among 30), then, when that finds nothing and this node may not
 * know all members, or most of the closest are silent, by kad-dht's own walk.
 */
export class Lookup {
  readonly #deps: LookupDeps;
  readonly #remembered = new LRUCache<KeyHash, readonly Peer[]>({ max: MAX_REMEMBERED, ttl: REMEMBER_MS });
  readonly #forgotten = new LRUCache<string, true>({ max: MAX_REMEMBERED, ttl: FORGET_MS });

  constructor(deps: LookupDeps) {
    this.#deps = deps;
  }

  /** The peer does not have it, whatever others still say in the next seconds. */
  forget(key: KeyHash, id: string): void {
    this.#deps.store.remove(key, id);
    const kept = this.#remembered.get(key)?.filter((peer) => peer.id !== id);
    if (kept !== undefined) this.#remembered.set(key, kept);
    this.#forgotten.set(`${key}${id}`, true);
  }

  async *find(
    key: KeyHash,
    signals: readonly (AbortSignal | undefined)[],
  ): AsyncGenerator<Peer, void, undefined> {
    const started = performance.now();
    const found = new Map<string, Peer>();
    const isNew = (peer: Peer): boolean =>
      peer.id !== this.#deps.self && !found.has(peer.id) && !this.#forgotten.has(`${key}${peer.id}`);
    const observe = (result: "local" | "dht" | "none"): void => {
      this.#deps.metrics.firstProvider.observe({ result }, (performance.now() - started) / 1000);
      this.#deps.metrics.lookups.inc({ result });
    };

    for (const peer of this.#known(key)) {
      if (!isNew(peer)) continue;
      if (found.size === 0) observe("local");
      found.set(peer.id, peer);
      yield peer;
    }
    const deadline = linkSignal(signals, LOOKUP_TIMEOUT_MS);
    try {
      for await (const peer of this.#search(key, deadline.signal)) {
        if (!isNew(peer)) continue;
        if (found.size === 0) observe("dht");
        found.set(peer.id, peer);
        this.#remembered.set(key, [...found.values()]);
        yield peer;
        if (found.size >= MAX_PROVIDERS) return;
      }
      if (found.size === 0) observe("none");
    } finally {
      deadline.release();
    }
  }

  *#known(key: KeyHash): Generator<Peer> {
    for (const id of this.#deps.store.providersOf(key)) {
      const peer = this.#deps.members.peer(id);
      if (peer !== undefined) yield peer;
    }
    yield* this.#remembered.get(key) ?? [];
  }

  async *#search(key: KeyHash, signal: AbortSignal): AsyncGenerator<Peer> {
    const { members, replication } = this.#deps;
    const closest = members.closest(positionOfKey(key), replication);
    let found = false;
    const answered = yield* askClosest(
      closest,
      {
        ask: async (member, askSignal) => {
          const peers = await this.#deps.ask(member, key, askSignal);
          found ||= peers.length > 0;
          return peers;
        },
        failed: (member) => this.#deps.check(member),
      },
      signal,
    );
    // Each of the closest has all records of a key. A few that are late must not make everybody walk: in a crowd on busy
    // nodes every lookup did, for three seconds, which made them busier.
    if (found || (2 * answered > closest.length && this.#deps.knowsAll())) return;
    yield* this.#walk(key, signal);
  }

  async *#walk(key: KeyHash, signal: AbortSignal): AsyncGenerator<Peer> {
    try {
      for await (const event of this.#deps.findProviders(cidOf(key), signal)) {
        if (event.name !== "PROVIDER") continue;
        for (const provider of event.providers) {
          const peer = this.#peerOf(provider);
          if (peer !== undefined) yield peer;
        }
      }
    } catch (error) {
      // Out of time, or the router closes: what was found was found. A caller that aborted knows it.
      if (!signal.aborted) throw error;
    }
  }

  /** What a node says of itself comes before what others say of it. */
  #peerOf(provider: PeerInfo): Peer | undefined {
    const id = provider.id.toString();
    const known = this.#deps.members.peer(id);
    if (known !== undefined) return known;
    const address = dataPlaneOf(provider.multiaddrs);
    return address === undefined ? undefined : { id, ...address };
  }
}
