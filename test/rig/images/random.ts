import { createCipheriv, createHash } from "node:crypto";

/**
 * `size` bytes that do not compress, the same for the same seed and name: the key stream of AES-CTR (over 1 GB/s, so
 * that tests may make large layers at will).
 */
export function randomBytesOf(seed: string, name: string, size: number): Buffer {
  const key = createHash("sha256").update(`${seed}\0${name}`).digest();
  return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(size));
}
