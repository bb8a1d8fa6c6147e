import { verify as verifySignature, type KeyObject } from "node:crypto";
import { peerIdFromString } from "@libp2p/peer-id";
import { keyObjectOf, publicKeyOfRaw, signEd25519 } from "../trust/ed25519.ts";
import type { Identity } from "../trust/identity.ts";

/** Port: signatures of members. The real one is Ed25519 by the identity key; the simulator needs none. */
export interface PieceSigner {
  /** This node's peer ID. */
  readonly id: string;
  sign(bytes: Uint8Array): Uint8Array;
  /** False for a signer that is no peer ID of an Ed25519 key, too. */
  verify(signer: string, bytes: Uint8Array, signature: Uint8Array): boolean;
}

/** Making a key object takes as long as a signature does; a swarm has a few signers. */
const MAX_KEYS = 256;

/** The Ed25519 key a peer ID stands for (libp2p peer-id spec: short public keys are in the ID itself). */
function keyOf(peer: string): KeyObject | undefined {
  try {
    const { publicKey } = peerIdFromString(peer);
    return publicKey?.type === "Ed25519" ? publicKeyOfRaw(publicKey.raw) : undefined;
  } catch {
    return undefined;
  }
}

export function createPieceSigner(identity: Identity): PieceSigner {
  const own = keyObjectOf(identity.privateKey);
  const keys = new Map<string, KeyObject>();
  const keyFor = (signer: string): KeyObject | undefined => {
    const key = keys.get(signer) ?? keyOf(signer);
    if (key === undefined) return undefined;
    keys.delete(signer);
    keys.set(signer, key);
    for (const oldest of keys.keys()) if (keys.size > MAX_KEYS) keys.delete(oldest);
    return key;
  };
  return {
    id: identity.id,
    sign: (bytes) => signEd25519(own, bytes),
    verify: (signer, bytes, signature) => {
      const key = keyFor(signer);
      return key !== undefined && verifySignature(null, bytes, key, signature);
    },
  };
}
