import { MAX_PIECES } from "./bitmap.ts";
import { Fields } from "./fields.ts";
import {
  MAX_AVOIDED,
  MAX_HASHES,
  MAX_HOLDERS,
  MAX_LEASES,
  MAX_MESSAGE_BYTES,
  MAX_NEWS,
  MAX_UNREACHABLE,
  MAX_ZONE_BYTES,
  SwarmProtocolError,
  type NeighbourNews,
  type SwarmMessage,
} from "./messages.ts";
import { createEnvelope } from "./schema.ts";
import type { HandBackReason, Lease } from "./swarm.ts";
import type { Contact } from "./wire.ts";

const MAX_BITMAP_BYTES = MAX_PIECES / 8;
const SHA256_BYTES = 32;
const SIGNATURE_BYTES = 64;
const MAX_ID = 2 ** 48;
const DAY_MS = 24 * 3_600_000;
const REASONS = ["unauthorized", "failed", "rate-limited", "unranged"] as const;

export interface SwarmCodec {
  /** @throws SwarmProtocolError when it would be too long: a mistake in this program. */
  encode(message: SwarmMessage): Uint8Array;
  /** @throws SwarmProtocolError unless the bytes are one message within all bounds. */
  decode(bytes: Uint8Array): SwarmMessage;
}

export function createSwarmCodec(): SwarmCodec {
  const envelope = createEnvelope();
  return {
    encode: (message) => {
      const bytes = envelope.encode(envelope.fromObject(toWire(message))).finish();
      if (bytes.byteLength > MAX_MESSAGE_BYTES) throw new SwarmProtocolError("a message that is too long");
      return bytes;
    },
    decode: (bytes) => {
      if (bytes.byteLength > MAX_MESSAGE_BYTES) throw new SwarmProtocolError("a message that is too long");
      let decoded: unknown;
      try {
        decoded = envelope.toObject(envelope.decode(bytes), {
          longs: Number,
          defaults: true,
          arrays: true,
          oneofs: true,
        });
      } catch (cause) {
        throw new SwarmProtocolError("bytes that are no message", { cause });
      }
      return fromWire(decoded);
    },
  };
}

function toWire(message: SwarmMessage): Record<string, unknown> {
  const { kind, ...fields } = message;
  if (message.kind !== "hand-back") return { [kind]: fields };
  const { lease, why } = message;
  const retryAfterMs = why.kind === "rate-limited" ? why.retryAfterMs : undefined;
  return { handBack: { lease, why: why.kind, ...(retryAfterMs !== undefined && { retryAfterMs }) } };
}

function fromWire(decoded: unknown): SwarmMessage {
  const name = new Fields(decoded).text("message", 20);
  const fields = new Fields(decoded).part(name);
  switch (name) {
    case "join":
      return {
        kind: "join",
        ...place(fields),
        contactPort: fields.port("contactPort"),
        leases: leases(fields),
        again: fields.flag("again"),
        unauthorized: fields.flag("unauthorized"),
        hops: fields.uint("hops", 16),
        avoid: fields.peerIds("avoid", MAX_AVOIDED),
      };
    case "told":
      return {
        kind: "told",
        leases: leases(fields),
        neighbours: fields.parts("neighbours", MAX_NEWS).map(news),
        gone: fields.peerIds("gone", MAX_LEASES),
        fetchers: fields.uint("fetchers", 2 ** 31),
        pausedMs: fields.uint("pausedMs", DAY_MS),
        brought: fields.uint("brought", Number.MAX_SAFE_INTEGER),
        zoneRank: fields.uint("zoneRank", 2 ** 31),
        zoneSize: fields.uint("zoneSize", 2 ** 31),
      };
    case "progress":
      return {
        kind: "progress",
        pieces: pieces(fields),
        leases: fields.parts("leases", MAX_LEASES).map((lease) => ({
          id: lease.uint("id", MAX_ID),
          bytes: lease.uint("bytes", Number.MAX_SAFE_INTEGER),
        })),
        load: fields.share("load"),
        unreachable: fields.peerIds("unreachable", MAX_UNREACHABLE),
        lost: fields.peerIds("lost", MAX_UNREACHABLE),
        holders: fields.parts("holders", MAX_HOLDERS).map(contact),
      };
    case "handBack":
      return { kind: "hand-back", lease: fields.uint("lease", MAX_ID), why: reason(fields) };
    case "redirect":
      return { kind: "redirect", to: contact(fields.part("to")) };
    case "merge":
      return {
        kind: "merge",
        digest: fields.digest("digest"),
        size: fields.uint("size", Number.MAX_SAFE_INTEGER),
      };
    case "hello":
      return { kind: "hello", ...place(fields) };
    case "have":
      return {
        kind: "have",
        pieces: pieces(fields),
        hashes: fields.parts("hashes", MAX_HASHES).map((hash) => ({
          piece: hash.uint("piece", MAX_PIECES - 1),
          sha256: hash.bytes("sha256", SHA256_BYTES),
          signer: hash.peerId("signer"),
          signature: hash.bytes("signature", SIGNATURE_BYTES),
        })),
        load: fields.share("load"),
      };
    case "leave":
      return { kind: "leave", complete: fields.flag("complete") };
    default:
      throw new SwarmProtocolError("a message of an unknown kind");
  }
}

const place = (fields: Fields) => ({
  digest: fields.digest("digest"),
  size: fields.uint("size", Number.MAX_SAFE_INTEGER),
  host: fields.host("host"),
  port: fields.port("port"),
  zone: fields.text("zone", MAX_ZONE_BYTES),
  load: fields.share("load"),
  have: fields.bytes("have", 0, MAX_BITMAP_BYTES),
});

const pieces = (fields: Fields): number[] => fields.uints("pieces", MAX_PIECES, MAX_PIECES - 1);

const leases = (fields: Fields): Lease[] =>
  fields.parts("leases", MAX_LEASES).map((lease) => ({
    id: lease.uint("id", MAX_ID),
    first: lease.uint("first", MAX_PIECES - 1),
    end: lease.uint("end", MAX_PIECES),
  }));

const contact = (fields: Fields): Contact => ({
  id: fields.peerId("id"),
  host: fields.host("host"),
  port: fields.port("port"),
});

const news = (fields: Fields): NeighbourNews => ({
  peer: contact(fields.part("peer")),
  contact: contact(fields.part("contact")),
  zone: fields.text("zone", MAX_ZONE_BYTES),
  load: fields.share("load"),
  left: fields.flag("left"),
  have: fields.bytes("have", 0, MAX_BITMAP_BYTES),
});

function reason(fields: Fields): HandBackReason {
  const text = fields.text("why", 20);
  const kind = REASONS.find((one) => one === text);
  if (kind === undefined) throw new SwarmProtocolError("a lease handed back for no known reason");
  return kind === "rate-limited"
    ? { kind, retryAfterMs: fields.optionalUint("retryAfterMs", DAY_MS) }
    : { kind };
}
