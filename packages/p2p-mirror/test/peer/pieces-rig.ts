import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import type { ByteRange, Digest } from "@p2p-mirror/shared";
import type { Test } from "tap";
import type { ContentStore } from "../../src/store/content-store.ts";
import { PieceHashes } from "../../src/swarm/piece-hashes.ts";
import { createPieceSigner } from "../../src/swarm/piece-signer.ts";
import type { SignedHash, Swarm } from "../../src/swarm/swarm.ts";
import type { PieceContent, PieceHere } from "../../src/transfer/content.ts";
import { NodeContent, type NodeContentDeps } from "../../src/transfer/local-content.ts";
import { PieceGeometry } from "../../src/transfer/pieces.ts";
import { newIdentity } from "../../src/trust/identity.ts";
import { runCache, store, type RunningCache } from "../store/cache-fixture.ts";
import type { Blob } from "./rig.ts";

export const sha256 = (bytes: Uint8Array): Buffer => createHash("sha256").update(bytes).digest();

/** What a node knows of the hashes of pieces, with keys of its own. */
export interface HashingNode {
  readonly id: string;
  readonly hashes: (about: Parameters<Swarm["hashes"]>[0]) => PieceHashes;
  /** Sizes that were asked for. */
  readonly sizes: readonly number[];
}

export async function hashingNode(): Promise<HashingNode> {
  const signer = createPieceSigner(await newIdentity());
  const known = new Map<string, PieceHashes>();
  const sizes: number[] = [];
  return {
    id: signer.id,
    sizes,
    hashes: ({ digest, size, geometry }) => {
      sizes.push(size);
      const key = `${digest} ${size}`;
      const hashes =
        known.get(key) ??
        new PieceHashes(
          { digest, size, count: geometry.count },
          { signer, isBanned: () => false, ban: () => undefined, refused: () => undefined },
        );
      known.set(key, hashes);
      return hashes;
    },
  };
}

export const aboutBlob = ({ digest, bytes }: Blob) => ({
  digest,
  size: bytes.byteLength,
  geometry: new PieceGeometry(bytes.byteLength),
});

/** What to ask for, and the bytes that must come. */
export function pieceOf(blob: Blob, piece: number) {
  const { size, geometry } = aboutBlob(blob);
  const { start, end } = geometry.range(piece, piece);
  return { wanted: { size, piece, length: end - start }, bytes: blob.bytes.subarray(start, end) };
}

/** A piece in memory, by nobody's word in particular. */
export function pieceContent(
  bytes: Buffer,
  hash: SignedHash,
  open: () => Readable = () => Readable.from([bytes], { objectMode: false }),
): PieceContent {
  return { length: bytes.byteLength, hash, open: async () => open() };
}

/** As a flight has it. `hash` undefined: whoever wants it has to read it first; then it may be signed as piece `signs`. */
export function pieceHere(
  bytes: Buffer,
  known: SignedHash | undefined,
  signs?: number,
): PieceHere & { readonly reads: number } {
  let [hash, reads] = [known, 0];
  return {
    length: bytes.byteLength,
    get reads() {
      return reads;
    },
    get hash() {
      return hash;
    },
    sign(sha256) {
      if (signs !== undefined) hash = { ...someHash(signs), sha256 };
    },
    async open() {
      reads += 1;
      return Readable.from([bytes], { objectMode: false });
    },
  };
}

/** A hash that is well-formed, by somebody who is nobody. */
export const someHash = (piece: number): SignedHash => ({
  piece,
  sha256: Buffer.alloc(32, 0xfb),
  signer: "12D3KooWsomebody0000000000000000000000",
  signature: Buffer.alloc(64, 0xff),
});

/** A real cache that holds these blobs, and the node in front of it. */
export interface StoringNode extends HashingNode {
  readonly cache: RunningCache;
  readonly local: NodeContent;
  /** What was read from the cache. */
  readonly reads: ByteRange[];
}

export async function storingNode(
  t: Test,
  blobs: readonly Blob[],
  options: {
    readonly flying?: NodeContentDeps["flying"];
    /** Before each read from the cache. */
    readonly beforeRead?: (range: ByteRange, signal: AbortSignal | undefined) => Promise<void>;
  } = {},
): Promise<StoringNode> {
  const cache = await runCache(t);
  for (const { bytes, digest } of blobs) await store(cache, bytes, undefined, digest);
  const reads: ByteRange[] = [];
  const watched: ContentStore = {
    name: "cache",
    stat: (digest, opts) => cache.store.stat(digest, opts),
    read: async (digest: Digest, range, opts) => {
      reads.push(range);
      await options.beforeRead?.(range, opts?.signal);
      return cache.store.read(digest, range, opts);
    },
    list: (opts) => cache.store.list(opts),
    watch: (listener) => cache.store.watch(listener),
  };
  const node = await hashingNode();
  const local = new NodeContent({
    stores: [watched],
    catalog: cache.catalog,
    records: { sign: () => "", verify: () => undefined },
    hashes: node.hashes,
    ...(options.flying === undefined ? {} : { flying: options.flying }),
  });
  return { ...node, cache, local, reads };
}
