import { isIP } from "node:net";
import { isDigest, type Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";

/**
 * The peer data plane: HTTP/1.1 over mutual TLS 1.3, client and server both nodes of the cluster.
 *
 *     GET|HEAD /p2p/v1/blobs/<digest>     Range: bytes=<first>-<last>, optional
 *       200 the whole, 206 the range; Content-Length always, Content-Range with 206, never an encoding
 *       404 not held completely · 416 beyond the end
 *       503 {"tryInstead":[{"id","host","port"}]} no upload slot or connection is free, or a blob is
 *           being hashed before a part of it may leave: ask one of these, or again later
 *     GET /p2p/v1/records?key=<key>       the signed records of a tag or repository key
 *       200 JSON of at most 64 KiB · 404 none
 *
 * Every answer carries `p2p-load: <busy>/<all>`, the upload slots. A body that cannot be finished ends with FIN short of
 * its Content-Length. Other methods are 405, other paths 404, malformed requests 400.
 */
export const BLOB_PREFIX = "/p2p/v1/blobs/";
export const RECORDS_PATH = "/p2p/v1/records";
export const LOAD_HEADER = "p2p-load";

export const MAX_RECORD_BYTES = 64 * 1024;
/** A routing key has at most 1 KiB (routing/router.ts). */
export const MAX_KEY_BYTES = 1024;
/** Room for a key of which every byte is escaped, and for our own headers; both sides refuse more. */
export const MAX_HEADER_BYTES = 8 * 1024;
export const MAX_TRY_INSTEAD = 8;
export const MAX_BUSY_BYTES = 4 * 1024;

export const blobPath = (digest: Digest): string => BLOB_PREFIX + digest;
export const recordPath = (key: string): string => `${RECORDS_PATH}?key=${encodeURIComponent(key)}`;

export type PeerRequest =
  | { readonly kind: "blob"; readonly digest: Digest }
  | { readonly kind: "record"; readonly key: string }
  | { readonly kind: "malformed" }
  | { readonly kind: "unknown" };

/** Reads a request target (path and query, as it stands in the request line). */
export function parsePeerPath(target: string): PeerRequest {
  if (target.startsWith(BLOB_PREFIX)) {
    const digest = target.slice(BLOB_PREFIX.length);
    return isDigest(digest) ? { kind: "blob", digest } : { kind: "malformed" };
  }
  if (!target.startsWith(`${RECORDS_PATH}?`)) return { kind: "unknown" };
  const query = new URLSearchParams(target.slice(RECORDS_PATH.length + 1));
  const key = query.get("key") ?? "";
  if (query.size !== 1 || key === "" || Buffer.byteLength(key) > MAX_KEY_BYTES) return { kind: "malformed" };
  return { kind: "record", key };
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
