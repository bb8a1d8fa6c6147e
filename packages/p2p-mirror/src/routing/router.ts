import type { Digest } from "@p2p-mirror/shared";

/** A node of the cluster: its libp2p peer ID (the identity its TLS certificate must show) and its peer data plane. */
export interface Peer {
  readonly id: string;
  readonly host: string;
  readonly port: number;
}

/** A node of the cluster, and where its libp2p listens. */
export interface NodeAddress {
  readonly id: string;
  readonly host: string;
  readonly port: number;
}

/**
 * What can be looked up: a digest (who holds the blob), or a tag or repository (who has a signed record of it).
 * The router hashes the text into a Kademlia key, so any text of at most 1 KiB will do.
 */
export type RoutingKey = Digest | `tag:${string}` | `repository:${string}`;

export interface RoutingOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Port: who has what. Implementations: Kademlia over libp2p, and a memory double; both pass `test/conformance/router.ts`. */
export interface Router {
  /** This node. Known after start. */
  readonly self: Peer;

  /**
   * Tells the cluster that this node has these. Resolves when the records were sent; again before they expire is the
   * router's own business, until `withdraw`. Unreachable peers are not an error.
   */
  advertise(keys: readonly RoutingKey[], options?: RoutingOptions): Promise<void>;

  /** Takes records back at the peers that were told. */
  withdraw(keys: readonly RoutingKey[], options?: RoutingOptions): Promise<void>;

  /**
   * Nodes that have it, without this one, as they become known: first those this node's own table or cache knows, then
   * what the lookup finds. Ends when the lookup has (nobody: at once, without an error), or when the caller stops.
   * At most 32.
   */
  find(key: RoutingKey, options?: RoutingOptions): AsyncIterable<Peer>;

  /** The peer said it does not have it (404), or is not who it should be: forget this record at once. */
  forget(key: RoutingKey, peer: Peer): void;

  /**
   * The nodes closest to a key by Kademlia's measure, this one among them, closest first; from the own table, at once.
   * Nodes with the same table give the same answer.
   */
  closest(key: RoutingKey, count: number): NodeAddress[];

  /** Nodes this one is in contact with now. */
  peers(): Peer[];
}
