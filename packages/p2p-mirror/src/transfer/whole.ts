import type { Readable } from "node:stream";
import {
  digestOf,
  algorithmOf,
  chunksOf,
  IntegrityError,
  MAX_MANIFEST_BYTES,
  SourceError,
  type Digest,
} from "@p2p-mirror/shared";

/**
 * Reads a small object (a manifest) into memory and checks size and digest. Reads at most 4 MiB, whatever the source
 * sends. @throws IntegrityError, SourceError `CUT`
 */
export async function readWhole(
  body: Readable,
  digest: Digest,
  size: number | undefined,
  source: string,
): Promise<Buffer> {
  const limit = Math.min(size ?? MAX_MANIFEST_BYTES, MAX_MANIFEST_BYTES);
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of chunksOf(body)) {
    length += chunk.length;
    if (length > limit) {
      body.destroy();
      throw new IntegrityError("SIZE_MISMATCH", `${limit} bytes`, "more", source);
    }
    chunks.push(chunk);
  }
  if (size !== undefined && length < size) {
    throw new SourceError("CUT", source, { message: `the body ended at ${length} of ${size}` });
  }
  const bytes = Buffer.concat(chunks, length);
  const found = digestOf(bytes, algorithmOf(digest));
  if (found !== digest) throw new IntegrityError("DIGEST_MISMATCH", digest, found, source);
  return bytes;
}
