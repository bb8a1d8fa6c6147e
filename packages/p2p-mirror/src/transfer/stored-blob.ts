import { NotFoundError, type Digest } from "@p2p-mirror/shared";
import type { ContentStore } from "../store/content-store.ts";
import type { BlobContent, ContentOptions } from "./content.ts";

/** A blob from the first of this node's stores that holds it; from the next one when it has vanished before the read. */
export async function storedBlob(
  stores: readonly ContentStore[],
  digest: Digest,
  options: ContentOptions,
): Promise<BlobContent | undefined> {
  for (const [index, store] of stores.entries()) {
    const blob = await store.stat(digest, options);
    if (blob === undefined) continue;
    return {
      size: blob.size,
      source: store.name,
      open: async (range, { signal }) => {
        for (const one of stores.slice(index)) {
          const body = await one.read(digest, range, { signal });
          if (body !== undefined) return body;
        }
        throw new NotFoundError("BLOB_UNKNOWN", digest);
      },
    };
  }
  return undefined;
}
