import { InvalidInputError, isTag, parseRepository, type Digest, type Repository } from "@p2p-mirror/shared";
import type { Catalog } from "../store/catalog.ts";
import type { ContentStore } from "../store/content-store.ts";
import type { BlobContent, ContentOptions, LocalContent } from "./content.ts";
import type { Claim, RecordSigner } from "./records.ts";
import { storedBlob } from "./stored-blob.ts";

export interface NodeContentDeps {
  /** In the order they are asked. */
  readonly stores: readonly ContentStore[];
  readonly catalog: Catalog;
  readonly records: RecordSigner;
}

/** What this node gives to its peers: the blobs its stores hold completely, and what upstream told it, signed. */
export class NodeContent implements LocalContent {
  readonly #deps: NodeContentDeps;

  constructor(deps: NodeContentDeps) {
    this.#deps = deps;
  }

  blob(digest: Digest, options: ContentOptions): Promise<BlobContent | undefined> {
    return storedBlob(this.#deps.stores, digest, options);
  }

  record(key: string): string | undefined {
    const claim = ownClaim(this.#deps.catalog, key);
    return claim === undefined ? undefined : this.#deps.records.sign(claim);
  }
}

/** What this node itself was told by upstream: never what another node said. */
export function ownClaim(catalog: Catalog, key: string): Claim | undefined {
  const separator = key.indexOf(":");
  const [kind, name] = [key.slice(0, separator), key.slice(separator + 1)];
  if (kind === "repository") {
    const repository = readRepository(name);
    const time = repository && catalog.publicSince(repository);
    return repository && time !== undefined ? { kind, ...repository, time } : undefined;
  }
  const colon = name.lastIndexOf(":");
  const [repository, tag] = [readRepository(name.slice(0, Math.max(0, colon))), name.slice(colon + 1)];
  if (kind !== "tag" || repository === undefined || !isTag(tag)) return undefined;
  const entry = catalog.tag(repository, tag);
  return entry && { kind, ...repository, tag, descriptor: entry.descriptor, time: entry.resolvedAt };
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
