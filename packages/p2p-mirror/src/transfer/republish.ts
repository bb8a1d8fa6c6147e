import type { Clock } from "@p2p-mirror/shared";
import type { RoutingKey } from "../routing/router.ts";
import type { Catalog } from "../store/catalog.ts";
import { isFresh } from "./mirror-access.ts";
import { MAX_RECORDS, type PublishedRecords } from "./published-records.ts";
import { repositoryKey, tagKey } from "./records.ts";

/**
 * Says again which tags and repositories this node has records of: after a restart its records are withdrawn, and the
 * others need them when upstream is gone. Newest first; an edge node with years of tags must not spend its start on them.
 */
export async function republishRecords(
  {
    catalog,
    published,
    clock,
  }: { catalog: Catalog; published: PublishedRecords; clock: Pick<Clock, "date"> },
  signal: AbortSignal,
): Promise<void> {
  const keys = new Set<RoutingKey>();
  for (const image of catalog.images(MAX_RECORDS)) {
    keys.add(tagKey(image, image.tag));
    if (isFresh(catalog.publicSince(image), clock.date())) keys.add(repositoryKey(image));
  }
  await published.publishAll([...keys], signal);
}
