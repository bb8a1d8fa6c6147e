import type { Readable } from "node:stream";
import type { ByteRange, Digest } from "@p2p-mirror/shared";

/** A complete blob (layer, config or manifest: a store does not tell them apart). `size` in bytes. */
export interface StoredBlob {
  readonly digest: Digest;
  readonly size: number;
}

/**
 * What changed in a store. `reset` says that events may have been missed (containerd restarted, say): list again.
 */
export type ContentEvent =
  | { readonly kind: "added"; readonly blob: StoredBlob }
  | { readonly kind: "removed"; readonly digest: Digest }
  | { readonly kind: "reset" };

export interface StoreOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Port: a place of this node that holds complete blobs by digest. Implementations: the mirror's own cache and
 * containerd's content store; both pass `test/conformance/content-store.ts`.
 */
export interface ContentStore {
  readonly name: "cache" | "containerd";

  /** Undefined when the blob is not held completely, or the store cannot be reached now. */
  stat(digest: Digest, options?: StoreOptions): Promise<StoredBlob | undefined>;

  /**
   * Bytes `[start, end)` of a blob, or undefined when it is not held (any more). Nothing wrong leaves: a blob that was
   * not hashed since this process started is hashed now — before the first byte for a part, or where the blob is small
   * enough (64 MiB from files); inline, with the tail held back, for the whole of a large one. One that does not match is removed (where the store is ours) or passed over from then on
   * (where it is not), counted, and the stream ends in IntegrityError; when that is known before there is a stream (a
   * part, a small blob, a wrong size), the blob is not held: undefined.
   * The caller must consume or destroy the stream.
   */
  read(digest: Digest, range: ByteRange, options?: StoreOptions): Promise<Readable | undefined>;

  /** All blobs held now, in no order. */
  list(options?: StoreOptions): AsyncIterable<StoredBlob>;

  /** Calls back on each change from now on; returns the function that ends it. The listener must not throw. */
  watch(listener: (event: ContentEvent) => void): () => void;
}
