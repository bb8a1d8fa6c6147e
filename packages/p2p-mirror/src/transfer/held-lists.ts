import { MEDIA_TYPES, SourceError, type Digest, type Repository } from "@p2p-mirror/shared";
import type { Catalog } from "../store/catalog.ts";
import type { UpstreamList } from "../upstream/upstream.ts";

/** While upstream cannot be asked, lists show what is known here; any other error is upstream's answer. */
function onlyWhileDown(error: unknown): void {
  if (!(error instanceof SourceError) || !error.temporary) throw error;
}

const asList = (contentType: string, value: unknown): UpstreamList => ({
  contentType,
  body: Buffer.from(JSON.stringify(value)),
  next: undefined,
  filtersApplied: undefined,
});

export function heldTags(
  catalog: Catalog,
  repository: Repository,
  query: { readonly n?: number; readonly last?: string },
  error: unknown,
): UpstreamList {
  onlyWhileDown(error);
  // In "lexical order" (OCI distribution spec 1.1, "Listing Tags"), by code point as registries do.
  const all = catalog.tagsOf(repository).toSorted((a, b) => (a < b ? -1 : 1));
  if (all.length === 0) throw error;
  const { last } = query;
  const tags = (last === undefined ? all : all.filter((tag) => tag > last)).slice(0, query.n);
  return asList("application/json", { name: repository.repository, tags });
}

export function heldReferrers(
  catalog: Catalog,
  repository: Repository,
  digest: Digest,
  query: { readonly artifactType?: string },
  error: unknown,
): UpstreamList {
  onlyWhileDown(error);
  const manifests = catalog
    .referrersOf(repository, digest)
    .filter((one) => query.artifactType === undefined || one.artifactType === query.artifactType);
  const list = asList(MEDIA_TYPES.ociIndex, { schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests });
  return query.artifactType === undefined ? list : { ...list, filtersApplied: "artifactType" };
}
