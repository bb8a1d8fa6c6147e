import type { Readable } from "node:stream";
import {
  digestOf,
  algorithmOf,
  chunksOf,
  CodedError,
  IntegrityError,
  MAX_MANIFEST_BYTES,
  SourceError,
  type Digest,
} from "@p2p-mirror/shared";

/** The object is larger than what is read into memory; by its source, who may be wrong. */
export class TooLargeError extends CodedError {
  override readonly name = "TooLargeError";
  readonly code = "TOO_LARGE";

  constructor(digest: Digest, limit: number, source: string) {
    super(`${source}: ${digest} is larger than ${limit} bytes`);
  }
}

export interface WholeOptions {
  /** What the source said, in bytes; another length is refused. */
  readonly size: number | undefined;
  /** Default 4 MiB, the largest manifest. */
  readonly limit?: number;
  /** For errors. */
  readonly source: string;
}

/**
 * Reads a small object into memory and checks size and digest. Reads at most `limit` bytes, whatever the source sends.
 * @throws TooLargeError, IntegrityError, SourceError `CUT`
 */
export async function readWhole(
  body: Readable,
  digest: Digest,
  { size, limit = MAX_MANIFEST_BYTES, source }: WholeOptions,
): Promise<Buffer> {
  if (size !== undefined && size > limit) {
    body.destroy();
    throw new TooLargeError(digest, limit, source);
  }
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of chunksOf(body)) {
    length += chunk.length;
    if (length > (size ?? limit)) {
      body.destroy();
      if (size === undefined) throw new TooLargeError(digest, limit, source);
      throw new IntegrityError("SIZE_MISMATCH", `${size} bytes`, "more", source);
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
