import type { KeyHash } from "./key.ts";

export interface ProviderStoreOptions {
  /** How long a record counts after it was said, in milliseconds. */
  readonly validityMs: number;
  /** A base layer is held by every node; the newest are as good as all. Default 32. */
  readonly maxProvidersPerKey?: number;
  /** What one peer may have here. Default 65,536: a node of a cluster of two tells all it holds to the other. */
  readonly maxRecordsPerPeer?: number;
  /** Default 262,144 (about 40 MB when full). */
  readonly maxRecords?: number;
}

/**
 * Who has what, as others said: provider records by key, and by peer. Times come from a clock that is given, so that
 * expiry can be tested. Both maps of a key or a peer are kept oldest first: saying a record again moves it to the end.
 */
export class ProviderStore {
  readonly #byKey = new Map<KeyHash, Map<string, number>>();
  readonly #byPeer = new Map<string, Map<KeyHash, number>>();
  readonly #validityMs: number;
  readonly #maxProvidersPerKey: number;
  readonly #maxRecordsPerPeer: number;
  readonly #maxRecords: number;
  readonly #now: () => number;
  #size = 0;

  constructor(options: ProviderStoreOptions, now: () => number) {
    this.#validityMs = options.validityMs;
    this.#maxProvidersPerKey = options.maxProvidersPerKey ?? 32;
    this.#maxRecordsPerPeer = options.maxRecordsPerPeer ?? 65_536;
    this.#maxRecords = options.maxRecords ?? 262_144;
    this.#now = now;
  }

  /** Records held, expired ones that nobody asked for since included. */
  get size(): number {
    return this.#size;
  }

  add(key: KeyHash, peer: string): void {
    this.remove(key, peer);
    let peers = this.#byKey.get(key);
    if (peers === undefined) this.#byKey.set(key, (peers = new Map()));
    let keys = this.#byPeer.get(peer);
    if (keys === undefined) this.#byPeer.set(peer, (keys = new Map()));
    const at = this.#now();
    peers.set(peer, at);
    keys.set(key, at);
    this.#size += 1;
    if (peers.size > this.#maxProvidersPerKey)
      this.#removeOldest(peers.keys(), (oldest) => this.remove(key, oldest));
    if (keys.size > this.#maxRecordsPerPeer)
      this.#removeOldest(keys.keys(), (oldest) => this.remove(oldest, peer));
    if (this.#size > this.#maxRecords) this.#makeRoom();
  }

  remove(key: KeyHash, peer: string): boolean {
    const peers = this.#byKey.get(key);
    if (peers === undefined || !peers.delete(peer)) return false;
    if (peers.size === 0) this.#byKey.delete(key);
    const keys = this.#byPeer.get(peer);
    keys?.delete(key);
    if (keys?.size === 0) this.#byPeer.delete(peer);
    this.#size -= 1;
    return true;
  }

  /** Everything a peer said: it left, or it is dead. Returns how many records that were. */
  removePeer(peer: string): number {
    const keys = [...(this.#byPeer.get(peer)?.keys() ?? [])];
    for (const key of keys) this.remove(key, peer);
    return keys.length;
  }

  /** Peers that have the key, who said so last first. */
  providersOf(key: KeyHash): string[] {
    const oldest = this.#now() - this.#validityMs;
    const found: string[] = [];
    for (const [peer, at] of [...(this.#byKey.get(key) ?? [])].toReversed()) {
      if (at > oldest) found.push(peer);
      else this.remove(key, peer);
    }
    return found;
  }

  /** Takes out what has expired, for keys nobody asks for. */
  sweep(): void {
    const oldest = this.#now() - this.#validityMs;
    for (const [peer, keys] of this.#byPeer) {
      for (const [key, at] of keys) {
        if (at > oldest) break;
        this.remove(key, peer);
      }
    }
  }

  #removeOldest<T>(oldestFirst: Iterator<T>, remove: (oldest: T) => void): void {
    const { value, done } = oldestFirst.next();
    if (done !== true) remove(value);
  }

  /** The peer with the most records pays, so that one that floods the table pushes out its own. */
  #makeRoom(): void {
    let largest: [string, Map<KeyHash, number>] | undefined;
    for (const entry of this.#byPeer) {
      if (largest === undefined || entry[1].size > largest[1].size) largest = entry;
    }
    if (largest === undefined) return;
    const [peer, keys] = largest;
    this.#removeOldest(keys.keys(), (oldest) => this.remove(oldest, peer));
  }
}
