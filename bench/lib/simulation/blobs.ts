import { digestOf, type Digest } from "@p2p-mirror/shared";
import { seededBytes } from "../../../packages/p2p-mirror/test/transfer/scripted-source.ts";

export interface Blob {
  readonly bytes: Buffer;
  readonly digest: Digest;
}

/** Blobs of many simulations: all are the beginning of the same bytes, and each size is hashed once. */
export class Blobs {
  readonly #bySize = new Map<number, Blob>();
  #bytes: Buffer = Buffer.alloc(0);

  of(size: number): Blob {
    const known = this.#bySize.get(size);
    if (known !== undefined) return known;
    if (size > this.#bytes.length) this.#bytes = seededBytes(Math.ceil(size / 4) * 4, 20_260);
    const bytes = this.#bytes.subarray(0, size);
    const blob = { bytes, digest: digestOf(bytes) };
    this.#bySize.set(size, blob);
    return blob;
  }
}
