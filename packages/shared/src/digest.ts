import { createHash, type Hash } from "node:crypto";
import { InvalidInputError } from "./errors.ts";

/**
 * A content digest in the canonical form of the OCI image spec (descriptor.md, "Digests"): `sha256:<64 lower-case hex>`
 * or `sha512:<128 lower-case hex>`. Only `parseDigest`, `isDigest` and `digestOf` make one.
 */
export type Digest = string & { readonly __digest: true };

export type DigestAlgorithm = "sha256" | "sha512";

const DIGEST = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

export function isDigest(text: string): text is Digest {
  return DIGEST.test(text);
}

/** @throws InvalidInputError (`DIGEST_INVALID`) when the text is no canonical sha256 or sha512 digest. */
export function parseDigest(text: string): Digest {
  if (!isDigest(text)) throw new InvalidInputError("DIGEST_INVALID", "digest", text.slice(0, 150));
  return text;
}

export function algorithmOf(digest: Digest): DigestAlgorithm {
  return digest.startsWith("sha512:") ? "sha512" : "sha256";
}

/** The hex part, which is also the file name in an OCI image layout: `blobs/<algorithm>/<hex>`. */
export function hexOf(digest: Digest): string {
  return digest.slice(digest.indexOf(":") + 1);
}

/** Digest of bytes that are in memory already. */
export function digestOf(bytes: Uint8Array, algorithm: DigestAlgorithm = "sha256"): Digest {
  return parseDigest(`${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`);
}

/** Hashes a blob as it passes; `digest()` may be called once, at the end. */
export class Hasher {
  readonly #algorithm: DigestAlgorithm;
  readonly #hash: Hash;
  /** Bytes hashed so far. */
  size = 0;

  constructor(algorithm: DigestAlgorithm = "sha256") {
    this.#algorithm = algorithm;
    this.#hash = createHash(algorithm);
  }

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    this.size += bytes.byteLength;
  }

  digest(): Digest {
    return parseDigest(`${this.#algorithm}:${this.#hash.digest("hex")}`);
  }
}
