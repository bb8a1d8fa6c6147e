import { createPrivateKey, createPublicKey, sign, type KeyObject } from "node:crypto";
import type { Ed25519PrivateKey } from "@libp2p/interface";

const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url");

/** Ed25519 seeds and keys are 32 bytes (RFC 8032, 5.1.5). */
export const ED25519_BYTES = 32;

/** A private key for node:crypto and node:tls from an Ed25519 seed. */
export function privateKeyOfSeed(seed: Uint8Array): KeyObject {
  // PKCS#8 for Ed25519 (RFC 8410, 7) is a fixed prefix and the seed; a JWK would need the public key beforehand.
  const prefix = Buffer.from("302e020100300506032b657004220420", "hex");
  return createPrivateKey({ key: Buffer.concat([prefix, seed]), format: "der", type: "pkcs8" });
}

/** libp2p keeps an Ed25519 private key as seed and public key, one after the other. */
export const keyObjectOf = (key: Ed25519PrivateKey): KeyObject =>
  privateKeyOfSeed(key.raw.subarray(0, ED25519_BYTES));

/** The 32 bytes of a public key, or undefined when it is of another kind. */
export function rawPublicKey(key: KeyObject): Uint8Array | undefined {
  if (key.asymmetricKeyType !== "ed25519") return undefined;
  const { x } = key.export({ format: "jwk" });
  return typeof x === "string" ? Buffer.from(x, "base64url") : undefined;
}

export const publicKeyOfRaw = (raw: Uint8Array): KeyObject =>
  createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: base64url(raw) }, format: "jwk" });

export const signEd25519 = (key: KeyObject, bytes: Uint8Array): Buffer => sign(null, bytes, key);
