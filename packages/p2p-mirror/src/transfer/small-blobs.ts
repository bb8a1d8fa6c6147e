import type { Descriptor, Repository } from "@p2p-mirror/shared";
import type { Upstream } from "../upstream/upstream.ts";
import { blobInMemory } from "./blob-in-memory.ts";
import type { BlobContent, ContentOptions } from "./content.ts";
import type { SmallObjects } from "./small-objects.ts";
import { SMALL_BYTES } from "./small-request.ts";
import { readWhole } from "./whole.ts";

/**
 * A blob that is small enough for one request and memory, as a manifest says; nothing of it is given out before it is
 * verified. @throws TooLargeError when upstream, or without its word a peer, says that it is not small.
 */
export async function smallBlob(
  { digest, mediaType }: Pick<Descriptor, "digest" | "mediaType">,
  origin: Repository,
  { small, upstream }: { readonly small: SmallObjects; readonly upstream: Upstream },
  options: ContentOptions,
): Promise<BlobContent> {
  const { bytes, source } = await small.get(
    {
      kind: "blob",
      digest,
      origin,
      upstream: async (signal) => {
        const { body, size } = await upstream.blob(origin, digest, undefined, { signal });
        const name = `${origin.registry}/${origin.repository}`;
        return { bytes: await readWhole(body, digest, { size, limit: SMALL_BYTES, source: name }) };
      },
      describe: (object) => ({ digest, size: object.bytes.length, mediaType }),
    },
    options.signal,
  );
  return blobInMemory(bytes, source);
}
