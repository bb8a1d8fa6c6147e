import { isIP } from "node:net";
import { peerIdFromMultihash } from "@libp2p/peer-id";
import type { PeerId } from "@libp2p/interface";
import { decode as decodeMultihash } from "multiformats/hashes/digest";
import { peerIdFromString } from "@libp2p/peer-id";
import type { HostPort } from "./addresses.ts";

export interface PeerEntry extends HostPort {
  readonly peerId: PeerId;
}

/** Peers in an answer: for each its ID (a multihash), its IP address as text, each after a length byte, and the port. */
export function encodePeers(
  peers: Iterable<{ readonly id: string; readonly host: string; readonly port: number }>,
): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const { id, host, port } of peers) {
    const multihash = peerIdFromString(id).toMultihash().bytes;
    const name = Buffer.from(host, "latin1");
    parts.push(
      Buffer.from([multihash.byteLength]),
      multihash,
      Buffer.from([name.byteLength]),
      name,
      Buffer.from([port >> 8, port & 0xff]),
    );
  }
  return Buffer.concat(parts);
}

/** At most `limit` peers. @throws RangeError when the bytes are no such list. */
export function decodePeers(bytes: Uint8Array, limit: number): PeerEntry[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const peers: PeerEntry[] = [];
  let at = 0;
  const take = (length: number): Buffer => {
    const part = buffer.subarray(at, at + length);
    if (part.byteLength !== length) throw new RangeError("a list of peers that ends early");
    at += length;
    return part;
  };
  while (at < buffer.byteLength && peers.length < limit) {
    const multihash = take(take(1).readUInt8());
    const host = take(take(1).readUInt8()).toString("latin1");
    const port = take(2).readUInt16BE();
    if (isIP(host) === 0 || port === 0) throw new RangeError("a peer without an address");
    try {
      peers.push({ peerId: peerIdFromMultihash(decodeMultihash(multihash)), host, port });
    } catch (cause) {
      throw new RangeError("a peer without an ID", { cause });
    }
  }
  return peers;
}
