import { createCipheriv, createHash } from "node:crypto";

/** Bytes that look random and are the same for the same text: AES-CTR over zeros, gigabytes a second. */
export function seededBytes(text: string, size: number): Buffer {
  const key = createHash("sha256").update(text).digest();
  return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(size));
}

/** Whole numbers from 0 up to, not including, `below`: the same ones for the same text. */
export function seededNumbers(text: string): (below: number) => number {
  let nth = 0;
  return (below) => {
    const word = createHash("sha256").update(`${text} ${nth++}`).digest().readUInt32BE();
    return Math.floor((word / 2 ** 32) * below);
  };
}
