import { verify as verifySignature } from "node:crypto";
import { peerIdFromString } from "@libp2p/peer-id";
import {
  isDigest,
  isTag,
  parseRepository,
  systemClock,
  type Clock,
  type Descriptor,
  type Repository,
} from "@p2p-mirror/shared";
import type { Claim, RecordSigner } from "../transfer/records.ts";
import { keyObjectOf, publicKeyOfRaw, signEd25519 } from "./ed25519.ts";
import type { Identity } from "./identity.ts";

/** A claim that claims to be newer than this node's clock by more is refused: it would win over all honest ones. */
export const MAX_SKEW_MS = 2 * 60_000;

/** Names of registry, repository and tag at their longest, a descriptor and the signature stay under half of it. */
const MAX_RECORD_CHARS = 4_096;
/** RFC 6838, 4.2; it becomes a Content-Type header of ours. */
const MEDIA_TYPE = /^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$/;

/** Signatures of the identity key for other purposes (TLS, Noise) can never be taken for one of a record. */
const signedBytes = (claim: string): Buffer => Buffer.from(`p2p-mirror record, version 1\n${claim}`, "utf8");

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function readRepository(registry: unknown, repository: unknown): Repository | undefined {
  if (typeof registry !== "string" || typeof repository !== "string") return undefined;
  try {
    return parseRepository(registry, repository);
  } catch {
    return undefined;
  }
}

function readDescriptor(value: unknown): Descriptor | undefined {
  if (!isRecord(value)) return undefined;
  const { digest, size, mediaType } = value;
  if (typeof digest !== "string" || !isDigest(digest)) return undefined;
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) return undefined;
  if (typeof mediaType !== "string" || !MEDIA_TYPE.test(mediaType)) return undefined;
  return { digest, size, mediaType };
}

function readClaim(text: string): Claim | undefined {
  const json = parse(text);
  if (!isRecord(json)) return undefined;
  const { kind, tag, time } = json;
  const repository = readRepository(json["registry"], json["repository"]);
  if (repository === undefined || typeof time !== "number" || !Number.isSafeInteger(time) || time < 0) {
    return undefined;
  }
  if (kind === "repository") return { kind, ...repository, time };
  const descriptor = readDescriptor(json["descriptor"]);
  if (kind !== "tag" || typeof tag !== "string" || !isTag(tag) || descriptor === undefined) return undefined;
  return { kind, ...repository, tag, descriptor, time };
}

/** The Ed25519 key a peer ID stands for (libp2p peer-id spec: short public keys are in the ID itself). */
function rawKeyOf(peer: string): Uint8Array | undefined {
  try {
    const { publicKey } = peerIdFromString(peer);
    return publicKey?.type === "Ed25519" ? publicKey.raw : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Claims as text: `{"claim": "<JSON>", "peer": "<peer ID>", "signature": "<base64url>"}`. The claim is a string in the
 * JSON, so that what is verified is, byte for byte, what was signed.
 */
export function createRecordSigner(
  identity: Identity,
  clock: Pick<Clock, "date"> = systemClock,
): RecordSigner {
  const key = keyObjectOf(identity.privateKey);
  return {
    sign: (claim) => {
      const text = JSON.stringify(claim);
      const signature = signEd25519(key, signedBytes(text)).toString("base64url");
      return JSON.stringify({ claim: text, peer: identity.id, signature });
    },
    verify: (text) => {
      if (text.length > MAX_RECORD_CHARS) return undefined;
      const envelope = parse(text);
      if (!isRecord(envelope)) return undefined;
      const { claim: signed, peer, signature } = envelope;
      if (typeof signed !== "string" || typeof peer !== "string" || typeof signature !== "string") {
        return undefined;
      }
      const claim = readClaim(signed);
      if (claim === undefined || claim.time > clock.date() + MAX_SKEW_MS) return undefined;
      const raw = rawKeyOf(peer);
      if (raw === undefined) return undefined;
      const genuine = verifySignature(
        null,
        signedBytes(signed),
        publicKeyOfRaw(raw),
        Buffer.from(signature, "base64url"),
      );
      return genuine ? claim : undefined;
    },
  };
}
