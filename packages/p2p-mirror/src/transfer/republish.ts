import type { Router, RoutingKey } from "../routing/router.ts";
import type { Catalog } from "../store/catalog.ts";
import { repositoryKey, tagKey } from "./records.ts";

/** Enough for what a node runs; an edge node with years of tags must not spend its start on them. */
const MAX_TAGS = 2_000;

/**
 * Says again which tags and repositories this node has records of: after a restart its records are withdrawn, and the
 * others need them when upstream is gone. Newest first.
 */
export async function republishRecords(catalog: Catalog, router: Router, signal: AbortSignal): Promise<void> {
  const keys = new Set<RoutingKey>();
  for (const image of catalog.images().slice(0, MAX_TAGS)) {
    keys.add(tagKey(image, image.tag));
    if (catalog.publicSince(image) !== undefined) keys.add(repositoryKey(image));
  }
  if (keys.size > 0) await router.advertise([...keys], { signal });
}
