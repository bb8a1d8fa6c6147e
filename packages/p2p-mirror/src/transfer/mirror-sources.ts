import { LRUCache } from "lru-cache";
import { NotFoundError, type ByteRange, type Digest, type Repository } from "@p2p-mirror/shared";
import type { Peer, Router } from "../routing/router.ts";
import type { Catalog } from "../store/catalog.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { PeerClient } from "./peer-client.ts";
import type { BlobSource, FetchedBody, FetchOptions, SourceFinder } from "./source.ts";

/** A peer that delivered wrong bytes is not asked for anything for so long. */
const REFUTED_MS = 10 * 60_000;
/** Manifests whose holders are remembered; they are asked for its layers first (one lookup per image, not per layer). */
const REMEMBERED_MANIFESTS = 2_000;
const HOLDERS_PER_MANIFEST = 8;

export interface MirrorSourcesDeps {
  readonly router: Router;
  readonly peerClient: Pick<PeerClient, "blob">;
  readonly upstream: Pick<Upstream, "blob" | "reachable">;
  readonly catalog: Pick<Catalog, "parentsOf">;
  /** A peer was caught delivering wrong bytes. */
  readonly refuted: (peer: Peer) => void;
}

/** Finds who can deliver an object: peers by the router and by what is known of its image, and upstream. */
export class MirrorSources implements SourceFinder {
  readonly #deps: MirrorSourcesDeps;
  readonly #holders = new LRUCache<Digest, Peer[]>({ max: REMEMBERED_MANIFESTS });
  readonly #refuted = new LRUCache<string, true>({ max: 1_000, ttl: REFUTED_MS });

  constructor(deps: MirrorSourcesDeps) {
    this.#deps = deps;
  }

  /** Peers that most likely hold an object, without those that were refuted, each once. */
  async *holders(digest: Digest, signal: AbortSignal): AsyncGenerator<Peer, void, undefined> {
    const seen = new Set<string>();
    for await (const { peer } of this.#look(digest, signal)) {
      if (!seen.has(peer.id)) yield peer;
      seen.add(peer.id);
    }
  }

  /** False for this node itself, and for who was refuted lately. */
  mayAsk(peer: Peer): boolean {
    return peer.id !== this.#deps.router.self.id && !this.#refuted.has(peer.id);
  }

  async *peers(digest: Digest, signal: AbortSignal): AsyncGenerator<BlobSource, void, undefined> {
    for await (const { peer, guessed } of this.#look(digest, signal))
      yield { ...this.peer(peer, digest), guessed };
  }

  /** A peer that was found with this manifest gave it: ask it for the layers, too. */
  remember(manifest: Digest, peer: Peer): void {
    const others = (this.#holders.get(manifest) ?? []).filter(({ id }) => id !== peer.id);
    this.#holders.set(manifest, [peer, ...others].slice(0, HOLDERS_PER_MANIFEST));
  }

  /** A peer does not hold it after all. */
  missing(digest: Digest, peer: Peer): void {
    this.#deps.router.forget(digest, peer);
  }

  refute(peer: Peer): void {
    this.#refuted.set(peer.id, true);
    this.#deps.refuted(peer);
  }

  upstream(repository: Repository, digest: Digest): BlobSource {
    const { upstream } = this.#deps;
    return {
      kind: "upstream",
      get available() {
        return upstream.reachable(repository.registry);
      },
      id: `${repository.registry}/${repository.repository}`,
      fetch: (range, { signal, size }) =>
        // Without a Range where everything is wanted: not every registry knows ranges.
        upstream.blob(repository, digest, isWhole(range, size) ? undefined : range, { signal }),
      refuted: () => undefined,
    };
  }

  peer(peer: Peer, digest: Digest): BlobSource {
    return {
      kind: "peer",
      peer,
      available: true,
      id: peer.id,
      fetch: (range, options) => this.#fetch(peer, digest, range, options),
      refuted: () => this.refute(peer),
    };
  }

  /** One that is guessed may be found, too: twice then. */
  async *#look(
    digest: Digest,
    signal: AbortSignal,
  ): AsyncGenerator<{ readonly peer: Peer; readonly guessed: boolean }, void, undefined> {
    for (const parent of this.#deps.catalog.parentsOf(digest)) {
      for (const peer of this.#holders.get(parent) ?? [])
        if (this.mayAsk(peer)) yield { peer, guessed: true };
    }
    for await (const peer of this.#deps.router.find(digest, { signal }))
      if (this.mayAsk(peer)) yield { peer, guessed: false };
  }

  async #fetch(peer: Peer, digest: Digest, range: ByteRange, options: FetchOptions): Promise<FetchedBody> {
    try {
      const { size, body } = await this.#deps.peerClient.blob(peer, digest, range, options);
      return { start: range.start, size, body };
    } catch (error) {
      if (error instanceof NotFoundError) this.missing(digest, peer);
      throw error;
    }
  }
}

const isWhole = (range: ByteRange, size: number): boolean => range.start === 0 && range.end === size;
