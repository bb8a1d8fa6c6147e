import type { Logger } from "@p2p-mirror/shared";
import type { ClusterSecrets } from "../trust/cluster-secret.ts";
import type { Identity } from "../trust/identity.ts";
import type { HostPort } from "./addresses.ts";
import type { Directory } from "./bootstrapper.ts";
import type { RoutingMetrics } from "./metrics.ts";
import type { OwnFacts } from "./peer-facts.ts";

export interface RouterOptions {
  /** Where libp2p listens; port 0: any free one. */
  readonly listen: HostPort;
  /** What other nodes are told; default: found (see `findAdvertiseAddress`). */
  readonly advertiseAddress?: string | undefined;
  /** Port of this node's peer data plane, at the same address. */
  readonly peerPort: number;
  /** `host:port` of other nodes' libp2p listeners; names stand for all their addresses. */
  readonly bootstrap: readonly string[];
  /** `peers.json` is kept here. */
  readonly dataDir: string;
  /** Told to other nodes, for their status. Default: `0.0.0`, no zone. */
  readonly about?: OwnFacts;
  /** How long records count without being said again. Default 20 min. */
  readonly recordValidityMs?: number;
  /** How many nodes keep each record. Default 8. */
  readonly replication?: number;
}

export interface RouterDeps {
  readonly identity: Identity;
  readonly secrets: ClusterSecrets;
  readonly logger: Logger;
  readonly metrics: RoutingMetrics;
  /** Who else may know the nodes of the cluster. */
  readonly directory?: Directory | undefined;
  /** Milliseconds, monotonic; for tests of expiry. Default performance.now. */
  readonly now?: () => number;
}
