import type { Peer } from "../routing/router.ts";
import { PieceMap } from "../transfer/pieces.ts";
import type { Join } from "./messages.ts";
import type { Contact } from "./wire.ts";

/** What a coordinator knows of a node that fetches a blob, or has it. */
export interface RoomMember {
  readonly id: string;
  readonly peer: Peer;
  readonly contact: Contact;
  readonly zone: string;
  readonly have: PieceMap;
  load: number;
  heardAt: number;
  /** It has the whole blob and went, or never was a member. */
  left: boolean;
  /** Only others say that it has the blob. */
  readonly hearsay: boolean;
  /** Members that could not reach its data plane; when there are several, what it has does not count. */
  readonly doubters: Set<string>;
  dark: boolean;
  /** Members of its zone when it was last told its number among them. */
  rankedAmong: number;
  /** Of whom it was told. */
  readonly told: Set<string>;
}

const fresh = (pieces: number, now: number) => ({
  have: new PieceMap(pieces),
  heardAt: now,
  doubters: new Set<string>(),
  dark: false,
  rankedAmong: 0,
  told: new Set<string>(),
});

/** One that joins; what it has is still to be entered. */
export const joining = (id: string, join: Join, pieces: number, now: number): RoomMember => ({
  ...fresh(pieces, now),
  id,
  peer: { id, host: join.host, port: join.port },
  contact: { id, host: join.host, port: join.contactPort },
  zone: join.zone,
  load: join.load,
  left: false,
  hearsay: false,
});

/** A node that is no member has the whole blob, as a lookup says. Nobody talks to it, so its libp2p address is not needed. */
export function holderOutside(peer: Peer, pieces: number, now: number): RoomMember {
  const member = { ...fresh(pieces, now), id: peer.id, peer, contact: peer, zone: "", load: 0 };
  for (let piece = 0; piece < pieces; piece += 1) member.have.set(piece);
  return { ...member, left: true, hearsay: true };
}
