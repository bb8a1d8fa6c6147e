import { isIP } from "node:net";
import { isDigest, type Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { SignedHash } from "../swarm/swarm.ts";
import { PieceGeometry } from "../transfer/pieces.ts";

/**
 * The peer data plane: HTTP/1.1 over mutual TLS 1.3, client and server both nodes of the cluster.
 *
 *     GET|HEAD /p2p/v1/blobs/<digest>     Range: bytes=<first>-<last>, optional
 *       200 the whole, 206 the range; Content-Length always, Content-Range with 206, never an encoding
 *       404 not held completely · 416 beyond the end
 *       503 {"tryInstead":[{"id","host","port"}]} no upload slot or connection is free, or a blob is
 *           being hashed before a part of it may leave: ask one of these, or again later
 *     GET /p2p/v1/pieces/<digest>/<size>/<piece>     one piece, also of a blob that is not complete yet
 *       size: bytes of the whole blob, piece: its number from 0, both decimal without leading zeros. The
 *       size alone says how the blob is cut (transfer/pieces.ts), alike on every node. Range is ignored
 *       200 Content-Length: the piece's, p2p-hash: <sha256>.<signer>.<signature>; both of them base64url,
 *           the signer a peer ID: who says that the piece hashes so (swarm/piece-hashes.ts)
 *       404 not here (yet), or the blob has another size here · 400 no such piece in that size
 *       503 as for blobs
 *     GET /p2p/v1/records?key=<key>       the signed records of a tag or repository key
 *       200 JSON of at most 64 KiB · 404 none
 *
 * Every answer carries `p2p-load: <busy>/<all>`, the upload slots. A body that cannot be finished ends with FIN short of
 * its Content-Length. Other methods are 405, malformed requests 400.
 *
 * Another version of it would be other paths (`/p2p/v2/`), served beside these. A path that is not known is 501: 404 says
 * what a node holds, and a newer one that asks can tell that it has to ask in the old words. Headers that are not known
 * are passed over, on both sides.
 */
export const BLOB_PREFIX = "/p2p/v1/blobs/";
export const PIECE_PREFIX = "/p2p/v1/pieces/";
export const RECORDS_PATH = "/p2p/v1/records";
export const LOAD_HEADER = "p2p-load";
export const HASH_HEADER = "p2p-hash";

export const MAX_RECORD_BYTES = 64 * 1024;
/** A routing key has at most 1 KiB (routing/router.ts). */
export const MAX_KEY_BYTES = 1024;
/** Room for a key of which every byte is escaped, and for our own headers; both sides refuse more. */
export const MAX_HEADER_BYTES = 8 * 1024;
export const MAX_TRY_INSTEAD = 8;
export const MAX_BUSY_BYTES = 4 * 1024;

export const blobPath = (digest: Digest): string => BLOB_PREFIX + digest;
export const piecePath = (digest: Digest, size: number, piece: number): string =>
  `${PIECE_PREFIX}${digest}/${size}/${piece}`;
export const recordPath = (key: string): string => `${RECORDS_PATH}?key=${encodeURIComponent(key)}`;

export interface PieceAddress {
  readonly digest: Digest;
  /** Of the whole blob, in bytes. */
  readonly size: number;
  readonly piece: number;
}

export type PeerRequest =
  | { readonly kind: "blob"; readonly digest: Digest }
  | ({ readonly kind: "piece" } & PieceAddress)
  | { readonly kind: "record"; readonly key: string }
  | { readonly kind: "malformed" }
  | { readonly kind: "unknown" };

/** Reads a request target (path and query, as it stands in the request line). */
export function parsePeerPath(target: string): PeerRequest {
  if (target.startsWith(BLOB_PREFIX)) {
    const digest = target.slice(BLOB_PREFIX.length);
    return isDigest(digest) ? { kind: "blob", digest } : { kind: "malformed" };
  }
  if (target.startsWith(PIECE_PREFIX)) {
    const address = parsePiece(target.slice(PIECE_PREFIX.length));
    return address === undefined ? { kind: "malformed" } : { kind: "piece", ...address };
  }
  if (!target.startsWith(`${RECORDS_PATH}?`)) return { kind: "unknown" };
  const query = new URLSearchParams(target.slice(RECORDS_PATH.length + 1));
  const key = query.get("key") ?? "";
  if (query.size !== 1 || key === "" || Buffer.byteLength(key) > MAX_KEY_BYTES) return { kind: "malformed" };
  return { kind: "record", key };
}

/** A size of at most 15 digits, as everywhere; of 8 MiB pieces that makes 9. */
const PIECE = /^([^/]{1,150})\/(0|[1-9]\d{0,14})\/(0|[1-9]\d{0,8})$/;

function parsePiece(text: string): PieceAddress | undefined {
  const [, digest = "", ...numbers] = PIECE.exec(text) ?? [];
  const [size = 0, piece = 0] = numbers.map(Number);
  if (!isDigest(digest) || piece >= new PieceGeometry(size).count) return undefined;
  return { digest, size, piece };
}

/** sha256: 32 bytes, Ed25519: 64, both without padding. */
const SIGNED_HASH = /^([\w-]{43})\.([A-Za-z0-9]{16,128})\.([\w-]{86})$/;

const toBase64Url = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64url");

export const formatHash = ({ sha256, signer, signature }: SignedHash): string =>
  `${toBase64Url(sha256)}.${signer}.${toBase64Url(signature)}`;

/** The hash that came with a piece, or undefined when the header is missing or is none. Nothing is verified. */
export function parseHash(header: unknown, piece: number): SignedHash | undefined {
  if (typeof header !== "string") return undefined;
  const [, sha256 = "", signer = "", signature = ""] = SIGNED_HASH.exec(header) ?? [];
  if (signer === "") return undefined;
  return {
    piece,
    sha256: Buffer.from(sha256, "base64url"),
    signer,
    signature: Buffer.from(signature, "base64url"),
  };
}

export const formatLoad = (busy: number, all: number): string => `${busy}/${all}`;

/** The share of busy slots, or undefined when the header is missing or makes no sense. */
export function parseLoad(header: string | undefined): number | undefined {
  const match = header === undefined ? null : /^(\d{1,6})\/(\d{1,6})$/.exec(header);
  if (match === null) return undefined;
  const [busy, all] = [Number(match[1]), Number(match[2])];
  return all === 0 ? undefined : Math.min(1, busy / all);
}

export const formatBusy = (peers: readonly Peer[]): string =>
  JSON.stringify({
    tryInstead: peers.slice(0, MAX_TRY_INSTEAD).map(({ id, host, port }) => ({ id, host, port })),
  });

/** Base58 or base32 text of a peer ID; whether it is one shows in the handshake. */
const PEER_ID = /^[A-Za-z0-9]{16,128}$/;
const HOST_NAME =
  /^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$/;

function readPeer(value: unknown): Peer | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { id, host, port } = value as Partial<Record<keyof Peer, unknown>>;
  if (typeof id !== "string" || !PEER_ID.test(id)) return undefined;
  if (typeof host !== "string" || (isIP(host) === 0 && !HOST_NAME.test(host))) return undefined;
  if (typeof port !== "number" || !Number.isInteger(port) || port < 1 || port > 65_535) return undefined;
  return { id, host, port };
}

/** The peers of a busy answer, the valid ones among the first eight; nothing when the text is something else. */
export function parseBusy(text: string): Peer[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return [];
  }
  if (typeof json !== "object" || json === null || !("tryInstead" in json)) return [];
  if (!Array.isArray(json.tryInstead)) return [];
  return json.tryInstead
    .slice(0, MAX_TRY_INSTEAD)
    .map(readPeer)
    .filter((peer) => peer !== undefined);
}
