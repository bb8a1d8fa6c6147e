import { Readable } from "node:stream";
import type { Descriptor, Repository } from "@p2p-mirror/shared";
import type { Upstream } from "../upstream/upstream.ts";
import type { BlobContent, ContentOptions } from "./content.ts";
import type { SmallObjects } from "./small-objects.ts";
import { readWhole } from "./whole.ts";

/** A blob that is small enough for one request and memory; nothing of it is given out before it is verified. */
export async function smallBlob(
  blob: Descriptor,
  origin: Repository,
  { small, upstream }: { readonly small: SmallObjects; readonly upstream: Upstream },
  options: ContentOptions,
): Promise<BlobContent> {
  const { digest, size } = blob;
  const { bytes, source } = await small.get(
    {
      digest,
      origin,
      size,
      notFound: "BLOB_UNKNOWN",
      upstream: async (signal) => {
        const { body, size: said } = await upstream.blob(origin, digest, undefined, { signal });
        return {
          bytes: await readWhole(body, digest, said ?? size, `${origin.registry}/${origin.repository}`),
        };
      },
      describe: () => blob,
    },
    options.signal,
  );
  return {
    size: bytes.length,
    source,
    open: ({ start, end }) =>
      Promise.resolve(Readable.from([bytes.subarray(start, end)], { objectMode: false })),
  };
}
