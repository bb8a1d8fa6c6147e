import { Readable } from "node:stream";
import type { BlobContent, SourceKind } from "./content.ts";

/** A blob of which all bytes are here, verified. */
export const blobInMemory = (bytes: Buffer, source: SourceKind): BlobContent => ({
  size: bytes.length,
  source,
  open: ({ start, end }) =>
    Promise.resolve(Readable.from([bytes.subarray(start, end)], { objectMode: false })),
});
