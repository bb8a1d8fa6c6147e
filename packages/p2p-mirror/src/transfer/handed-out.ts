import { LRUCache } from "lru-cache";
import type { Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";

const BLOBS = 4_096;
const PEERS_PER_BLOB = 8;
/** It may have been evicted there since; a wrong hint costs one request. */
const VALID_MS = 10 * 60_000;

/** Remembers who got a blob from this node: when all upload slots are taken, these are the ones to ask instead. */
export class HandedOut {
  readonly #peers = new LRUCache<Digest, readonly string[]>({ max: BLOBS, ttl: VALID_MS });
  readonly #contacts: () => readonly Peer[];

  /** `contacts`: nodes this one is in contact with, for their addresses. */
  constructor(contacts: () => readonly Peer[]) {
    this.#contacts = contacts;
  }

  add(digest: Digest, peerId: string): void {
    const others = (this.#peers.get(digest) ?? []).filter((id) => id !== peerId);
    this.#peers.set(digest, [peerId, ...others].slice(0, PEERS_PER_BLOB));
  }

  /** Newest first. */
  holders(digest: Digest): Peer[] {
    const ids = this.#peers.get(digest) ?? [];
    if (ids.length === 0) return [];
    const byId = new Map(this.#contacts().map((peer) => [peer.id, peer]));
    return ids.map((id) => byId.get(id)).filter((peer) => peer !== undefined);
  }
}
