import {
  IntegrityError,
  InvalidInputError,
  isTag,
  NotFoundError,
  parseRepository,
  type Digest,
  type Repository,
} from "@p2p-mirror/shared";
import type { Catalog } from "../store/catalog.ts";
import type { ContentStore } from "../store/content-store.ts";
import type { Swarm } from "../swarm/swarm.ts";
import type { BlobContent, ContentOptions, LocalContent, PieceContent, PieceHere } from "./content.ts";
import { blobInMemory } from "./blob-in-memory.ts";
import { PieceHasher } from "./piece-hasher.ts";
import { PieceGeometry } from "./pieces.ts";
import type { Claim, RecordSigner } from "./records.ts";
import { storedBlob } from "./stored-blob.ts";

/** A flight under way, as other nodes may have it. */
export interface FlyingPieces {
  /** Undefined: it is not here yet. Others get nothing that was not checked. */
  piece(index: number): PieceHere | undefined;
}

export interface NodeContentDeps {
  /** In the order they are asked. */
  readonly stores: readonly ContentStore[];
  readonly catalog: Catalog;
  readonly records: RecordSigner;
  /** The flight of a blob of this very size; default: none ever flies. */
  readonly flying?: (digest: Digest, size: number) => FlyingPieces | undefined;
  /** A small object that is verified, though perhaps not stored (yet); default: none. */
  readonly fresh?: (digest: Digest) => Buffer | undefined;
  /** Default: no hashes, so that no pieces of stored blobs are given. */
  readonly hashes?: Swarm["hashes"];
}

/**
 * What this node gives to its peers: the blobs its stores hold completely, pieces of these and of what it is fetching, and
 * what upstream told it or another, signed by who was told.
 */
export class NodeContent implements LocalContent {
  readonly #deps: NodeContentDeps;
  readonly #hasher = new PieceHasher();

  constructor(deps: NodeContentDeps) {
    this.#deps = deps;
  }

  async blob(digest: Digest, options: ContentOptions): Promise<BlobContent | undefined> {
    const fresh = this.#deps.fresh?.(digest);
    if (fresh !== undefined) return blobInMemory(fresh, "cache");
    return storedBlob(this.#deps.stores, digest, options);
  }

  async piece(
    digest: Digest,
    size: number,
    piece: number,
    options: ContentOptions,
  ): Promise<PieceContent | undefined> {
    const here =
      this.#deps.flying?.(digest, size)?.piece(piece) ?? (await this.#stored(digest, size, piece, options));
    if (here === undefined) return undefined;
    if (here.hash === undefined && !(await this.#hash(`${digest} ${size} ${piece}`, here, options)))
      return undefined;
    const { length, hash } = here;
    return hash && { length, hash, open: (opening) => here.open(opening) };
  }

  async #stored(
    digest: Digest,
    size: number,
    piece: number,
    options: ContentOptions,
  ): Promise<PieceHere | undefined> {
    const blob = await storedBlob(this.#deps.stores, digest, options);
    // Only now, so that a size that somebody made up takes no room among the hashes.
    if (blob === undefined || blob.size !== size) return undefined;
    const geometry = new PieceGeometry(size);
    const known = this.#deps.hashes?.({ digest, size, geometry });
    if (known === undefined || piece >= geometry.count) return undefined;
    const range = geometry.range(piece, piece);
    return {
      length: range.end - range.start,
      get hash() {
        return known.of(piece);
      },
      sign: (sha256) => known.sign(piece, sha256),
      open: (opening) => blob.open(range, opening),
    };
  }

  /** False: it is not there any more, or not right. */
  async #hash(key: string, piece: PieceHere, { signal }: ContentOptions): Promise<boolean> {
    try {
      await this.#hasher.hash(key, piece, signal);
      return true;
    } catch (error) {
      if (error instanceof NotFoundError || error instanceof IntegrityError) return false;
      throw error;
    }
  }

  record(key: string): string | undefined {
    const known = knownClaim(this.#deps.catalog, key);
    return known && (known.heard ?? this.#deps.records.sign(known.claim));
  }
}

/**
 * What this node can say under `key`: what upstream told it; or, as `heard`, the record of a node that was told, which
 * counted here while upstream was away.
 */
export function knownClaim(
  catalog: Catalog,
  key: string,
): { readonly claim: Claim; readonly heard: string | undefined } | undefined {
  const separator = key.indexOf(":");
  const [kind, name] = [key.slice(0, separator), key.slice(separator + 1)];
  if (kind === "repository") {
    const repository = readRepository(name);
    const time = repository && catalog.publicSince(repository);
    if (repository === undefined || time === undefined) return undefined;
    return { claim: { kind, ...repository, time }, heard: catalog.publicHeard(repository) };
  }
  const colon = name.lastIndexOf(":");
  const [repository, tag] = [readRepository(name.slice(0, Math.max(0, colon))), name.slice(colon + 1)];
  if (kind !== "tag" || repository === undefined || !isTag(tag)) return undefined;
  const entry = catalog.tag(repository, tag);
  if (entry === undefined) return undefined;
  const { descriptor, resolvedAt: time, heard } = entry;
  return { claim: { kind, ...repository, tag, descriptor, time }, heard };
}

function readRepository(name: string): Repository | undefined {
  const slash = name.indexOf("/");
  try {
    return parseRepository(name.slice(0, Math.max(0, slash)), name.slice(slash + 1));
  } catch (error) {
    if (error instanceof InvalidInputError) return undefined;
    throw error;
  }
}
