import { MAX_MANIFEST_BYTES, type Descriptor, type Digest, type Repository } from "@p2p-mirror/shared";
import type { SourceKind } from "./content.ts";

/** Up to this size a blob is fetched like a manifest: by one request, in memory. Most configs and many layers are. */
export const SMALL_BYTES = 1024 * 1024;

/** How each kind is declined, and how many bytes are read of one. */
export const SMALL_KINDS = {
  manifest: { unknown: "MANIFEST_UNKNOWN", limit: MAX_MANIFEST_BYTES },
  blob: { unknown: "BLOB_UNKNOWN", limit: SMALL_BYTES },
} as const;

export interface SmallObject {
  readonly bytes: Buffer;
  readonly source: SourceKind;
  /** What upstream's Content-Type said; from elsewhere the document itself must tell. */
  readonly mediaType?: string;
}

export interface SmallRequest {
  readonly kind: keyof typeof SMALL_KINDS;
  readonly digest: Digest;
  readonly origin: Repository;
  /** Asks upstream for it; the bytes need not be verified yet. */
  readonly upstream: (signal: AbortSignal) => Promise<Omit<SmallObject, "source">>;
  /** What to store it as; throws when the bytes are not what was asked for. */
  readonly describe: (object: SmallObject) => Descriptor;
}
