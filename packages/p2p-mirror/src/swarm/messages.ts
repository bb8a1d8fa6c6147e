import type { Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import { MAX_NEIGHBOURS } from "./mesh-graph.ts";
import type { HandBackReason, Lease, SignedHash } from "./swarm.ts";
import type { Contact } from "./wire.ts";

/** A member as its coordinator tells others of it. */
export interface NeighbourNews {
  readonly peer: Peer;
  /** Where its libp2p listens. */
  readonly contact: Contact;
  readonly zone: string;
  readonly load: number;
  /** It is no member (any more) and has the whole blob: a source, but nobody to talk to. */
  readonly left: boolean;
  readonly have: Uint8Array;
}

/** What a lease has brought so far. */
export interface LeaseProgress {
  readonly id: number;
  readonly bytes: number;
}

/** First on a channel to a coordinator. */
export interface Join {
  readonly kind: "join";
  readonly digest: Digest;
  readonly size: number;
  /** The member's data plane; its ID is the channel's. */
  readonly host: string;
  readonly port: number;
  readonly contactPort: number;
  readonly zone: string;
  readonly load: number;
  readonly have: Uint8Array;
  readonly leases: readonly Lease[];
  /** It was a member elsewhere: others will come, with leases of their own. */
  readonly again: boolean;
  /** Upstream does not let it in. */
  readonly unauthorized: boolean;
  /** Redirects so far; at two it is taken in. */
  readonly hops: number;
  /** Nodes that did not answer it: no use in redirecting it there. */
  readonly avoid: readonly string[];
}

/** The coordinator's answer to a join or report, or news. What is not said has not changed, except leases: these are all. */
export interface Told {
  readonly kind: "told";
  readonly leases: readonly Lease[];
  readonly neighbours: readonly NeighbourNews[];
  /** Neighbours no more. */
  readonly gone: readonly string[];
  readonly fetchers: number;
  readonly pausedMs: number;
  /** Bytes that leases have brought so far, as this coordinator has heard. */
  readonly brought: number;
  /** The member's number among those of its zone, and their count. */
  readonly zoneRank: number;
  readonly zoneSize: number;
}

/** A member's report: renews its leases and itself. */
export interface Progress {
  readonly kind: "progress";
  /** Pieces since the last report. */
  readonly pieces: readonly number[];
  readonly leases: readonly LeaseProgress[];
  readonly load: number;
  /** Neighbours and holders whose data plane cannot be reached. */
  readonly unreachable: readonly string[];
  /** Neighbours whose channel ended without a word. */
  readonly lost: readonly string[];
  /** Nodes with the whole blob that are no members. */
  readonly holders: readonly Peer[];
}

export interface HandBack {
  readonly kind: "hand-back";
  readonly lease: number;
  readonly why: HandBackReason;
}

/** Go there: it is closer to the digest. */
export interface Redirect {
  readonly kind: "redirect";
  readonly to: Contact;
}

/** From one coordinator to a closer one, first on a channel: will you take my members? The same comes back: yes. */
export interface Merge {
  readonly kind: "merge";
  readonly digest: Digest;
  readonly size: number;
}

/** First on a channel between neighbours, from both sides. */
export interface Hello {
  readonly kind: "hello";
  readonly digest: Digest;
  readonly size: number;
  readonly host: string;
  readonly port: number;
  readonly zone: string;
  readonly load: number;
  readonly have: Uint8Array;
}

/** Pieces that can be had here now, with the signed hashes that are known. */
export interface Have {
  readonly kind: "have";
  readonly pieces: readonly number[];
  readonly hashes: readonly SignedHash[];
  readonly load: number;
}

export interface Leave {
  readonly kind: "leave";
  /** It has the whole blob and can be asked for it. */
  readonly complete: boolean;
}

export type SwarmMessage = Join | Told | Progress | HandBack | Redirect | Merge | Hello | Have | Leave;

/** Longer ones are refused, on both sides. */
export const MAX_MESSAGE_BYTES = 64 * 1024;
/** Leases in a message; a member has two at most, a coordinator as many as there are fetchers. */
export const MAX_LEASES = 256;
export const MAX_AVOIDED = 16;
export const MAX_UNREACHABLE = 16;
export const MAX_HOLDERS = 8;
/** A hash, its signature and the IDs take about 170 bytes. */
export const MAX_HASHES = 256;
export const MAX_NEWS = MAX_NEIGHBOURS + 4;
export const MAX_ZONE_BYTES = 63;

export class SwarmProtocolError extends Error {
  override readonly name = "SwarmProtocolError";
}
