import { createHash } from "node:crypto";
import { CID } from "multiformats/cid";
import { create as createMultihash } from "multiformats/hashes/digest";
import type { RoutingKey } from "./router.ts";

/** multiformats codes (multicodec table): what an IPFS-style key is made of. */
const SHA2_256 = 0x12;
const RAW = 0x55;

export const HASH_BYTES = 32;

/**
 * A routing key as the DHT and the tables know it: the sha256 of its text, 32 bytes as a latin1 string (a map key of 32
 * bytes; hex would take twice that, and a node holds a hundred thousand of them).
 */
export type KeyHash = string & { readonly __keyHash: true };

const sha256 = (...parts: Uint8Array[]): Buffer => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
};

function isKeyHash(text: string): text is KeyHash {
  return text.length === HASH_BYTES;
}

/** @throws RangeError unless the bytes are a sha256. */
export function keyHashOfBytes(bytes: Uint8Array): KeyHash {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
  if (!isKeyHash(text)) throw new RangeError(`a key hash of ${bytes.byteLength} bytes`);
  return text;
}

export const bytesOf = (hash: KeyHash): Buffer => Buffer.from(hash, "latin1");

export const keyHashOf = (key: RoutingKey): KeyHash => keyHashOfBytes(sha256(Buffer.from(key, "utf8")));

export const cidOf = (hash: KeyHash): CID => CID.createV1(RAW, createMultihash(SHA2_256, bytesOf(hash)));

const MULTIHASH_PREFIX = Buffer.from([SHA2_256, HASH_BYTES]);

/**
 * The first 32 bits of where a key or a peer lies in Kademlia's space: libp2p hashes its multihash once more (kad-dht
 * spec, "Distance"). 32 bits tell a million nodes apart well enough to choose where a record goes.
 */
export const positionOfKey = (hash: KeyHash): number =>
  sha256(MULTIHASH_PREFIX, bytesOf(hash)).readUInt32BE(0);

export const positionOfPeer = (multihash: Uint8Array): number => sha256(multihash).readUInt32BE(0);
