import type { NodeAddress } from "../routing/router.ts";
import type { SwarmMessage } from "./messages.ts";

/*
 * What both sides of a stream speak, they agree on when it is opened (libp2p, multistream-select). A field may be added to
 * a message as it is: who does not know it passes it over. Anything else (a message, a reason, a wider bound) is another
 * version: handled and offered beside this one, the newer first, for as long as there are nodes that speak this one only.
 */

/** Member and coordinator; one stream for each digest. */
export const SWARM_PROTOCOL = "/p2p-mirror/swarm/1.0.0";
/** Neighbour and neighbour, as well. */
export const PIECES_PROTOCOL = "/p2p-mirror/pieces/1.0.0";
export type SwarmProtocol = typeof SWARM_PROTOCOL | typeof PIECES_PROTOCOL;

/** A node, and where its libp2p listens. */
export type Contact = NodeAddress;

/** Messages in both directions, in order, each whole or not at all. */
export interface Channel {
  /** The node at the other end, authenticated. */
  readonly peer: string;
  /**
   * Never blocks and never throws. Lost when the channel is closed. A peer that does not take what it is sent is cut off.
   */
  send(message: SwarmMessage): void;
  /** Ends when either side closes, the peer sends what is no message, or the connection is lost. For one reader. */
  readonly messages: AsyncIterable<SwarmMessage>;
  /** What was sent before still arrives, if it can. */
  close(): void;
}

/** Port: streams of messages between nodes. Implementations: libp2p, and a memory double; both pass one conformance suite. */
export interface Wire {
  /** @throws when the node cannot be reached, or does not speak the protocol. */
  open(to: Contact, protocol: SwarmProtocol, signal: AbortSignal): Promise<Channel>;
  /** One handler a protocol; channels that others open come to it. The returned function takes it back. */
  handle(protocol: SwarmProtocol, onChannel: (channel: Channel) => void): Promise<() => Promise<void>>;
}
