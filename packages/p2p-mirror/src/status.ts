/** What `/status` of the admin endpoint answers, as JSON. Sizes in bytes, times as ISO 8601 in UTC. */
export interface MirrorStatus {
  readonly node: NodeStatus;
  /** Nodes this one is in contact with. */
  readonly peers: readonly PeerStatus[];
  /** What is being fetched now. */
  readonly flights: readonly FlightStatus[];
  readonly swarm: SwarmStatus;
  readonly limits: LimitsStatus;
  readonly cache: CacheStatus;
  /** Tags this node resolved or saw in containerd, newest first. */
  readonly images: readonly ImageStatus[];
  /** Registries that were asked since the start. */
  readonly upstreams: readonly UpstreamStatus[];
  /** Addresses of `bootstrap` that lead nowhere now. */
  readonly bootstrap?: readonly BootstrapStatus[];
  /** Whom containerd asks, for each directory of `hosts_dir`. Undefined: no `hosts_dir` is set. */
  readonly hosts?: readonly HostsDirectoryStatus[];
  /** What is wrong around this node, as it found the last time it looked. Undefined: it has not looked yet. */
  readonly doctor?: DoctorReport;
}

/** What was found out about how a node is set up. */
export interface DoctorReport {
  readonly checkedAt: string;
  readonly findings: readonly Finding[];
  /** Checks that could not be made, and why. */
  readonly skipped: readonly { readonly check: string; readonly why: string }[];
}

/** Something that is wrong. */
export interface Finding {
  /** Of a fixed set, such as `config-path`. */
  readonly check: string;
  /** `broken`: pulls go past the mirror or fail. `warning`: it works, and could be better. */
  readonly severity: "broken" | "warning";
  readonly what: string;
  /** Why it matters. */
  readonly why: string;
  /** The exact change. */
  readonly fix: string;
}

export interface NodeStatus {
  /** libp2p peer ID. */
  readonly id: string;
  readonly version: string;
  readonly startedAt: string;
  readonly ready: boolean;
  /** `host:port` of the peer data plane, as other nodes are told. */
  readonly advertised: string;
  readonly access: "public" | "open";
  /** Where it is; "": not known. */
  readonly zone?: string;
  /** Undefined: none was configured. */
  readonly containerd?: "connected" | "unreachable";
  /** Requests for images since the start, by whatever client of this node; canaries not counted. */
  readonly requests?: number;
  /** Tags of the canaries that arrived lately. */
  readonly canaries?: readonly string[];
}

export interface PeerStatus {
  readonly id: string;
  /** `host:port` of its peer data plane. */
  readonly address: string;
  /** `broken`: its breaker is open, it is left alone for a while. `refuted`: it gave wrong bytes, and is for ten minutes. */
  readonly state: "up" | "broken" | "refuted";
  /** As it says itself; undefined while it has not. */
  readonly version?: string;
  /** "": it does not know. */
  readonly zone?: string;
  /** Of a round trip, by the last ping; undefined before the first, 30 s after the connection was made. */
  readonly latencyMs?: number;
  /** Answers in a row that did not come, or stopped on the way, though it could be connected to; small ones may have come between. */
  readonly faults?: number;
}

export interface BootstrapStatus {
  readonly address: string;
  /** `other-secret`: a mirror that does not know this cluster's secret; `no-mirror`: something else answers there;
   * `no-list`: the Kubernetes API does not say who is there. */
  readonly reason: "unknown-name" | "timeout" | "refused" | "other-secret" | "no-mirror" | "no-list";
}

export interface HostsDirectoryStatus {
  /** Name of the directory, such as `_default` or `docker.io`. */
  readonly directory: string;
  /** The mirror is asked first. */
  readonly inForce: boolean;
  /** By a block that the mirror looks after. */
  readonly managed: boolean;
  /** URLs in the order in which containerd asks them. */
  readonly asks: readonly string[];
  /** Why containerd passes over the file, or cannot read it. */
  readonly problem?: string;
  /** Why the mirror cannot ask these hosts in containerd's place, and so asks nobody unless its settings say whom. */
  readonly notUnderstood?: string;
}

export interface FlightStatus {
  readonly digest: string;
  readonly size: number;
  /** Bytes that are here; each counts once. */
  readonly received: number;
  readonly readers: number;
  /** Bytes that upstream and peers delivered; what was fetched twice counts twice. */
  readonly fromUpstream: number;
  readonly fromPeers: number;
  /** Who has requests under way. */
  readonly sources: readonly SourceStatus[];
  /** Undefined: others that fetch the same blob are not looked at (it is complete, or cannot be stored). */
  readonly swarm?: FlightSwarmStatus;
}

export interface SourceStatus {
  readonly kind: "peer" | "upstream";
  /** Peer ID, or `registry/repository`. */
  readonly id: string;
}

export interface FlightSwarmStatus {
  /** Undefined while none is known. */
  readonly coordinator?: {
    readonly id: string;
    /** It is this node. */
    readonly self: boolean;
    /** How many fetch the blob now. Only the coordinator itself knows. */
    readonly members?: number;
  };
  /** No coordinator can be had: this node fetches what is missing by itself. */
  readonly alone: boolean;
  /** Members that upstream lets in, as far as the coordinator knows. */
  readonly fetchers: number;
  /** Members this one exchanges pieces with. `zone` "": not known; `load`: share of its upload slots that are busy. */
  readonly neighbours: readonly { readonly id: string; readonly zone: string; readonly load: number }[];
  /** Offsets in the blob (`end` is one past the last) that this node, and nobody else, fetches from upstream now. */
  readonly leases: readonly { readonly start: number; readonly end: number }[];
}

export interface SwarmStatus {
  /** Peers that signed hashes of pieces which the digest of a blob has refuted, since the start. */
  readonly banned: readonly string[];
}

/** Bounds of what crosses the network, as far as there are any: from registries, from peers, to peers. */
export type LimitsStatus = Readonly<Partial<Record<"upstream" | "in" | "out", LimitStatus>>>;

export interface LimitStatus {
  readonly bytesPerSecond: number;
  /** Bodies that wait for their turn now. */
  readonly held: number;
}

export interface CacheStatus {
  readonly blobs: number;
  readonly bytes: number;
  readonly maxBytes: number;
  /** Of the file system the cache is on; 0 also when that cannot be said. */
  readonly freeBytes: number;
}

export interface ImageStatus {
  /** `registry/repository:tag`. */
  readonly reference: string;
  readonly digest: string;
  readonly mediaType: string;
  /** Of the content of this image that is held here, as far as it is known. */
  readonly size?: number;
  readonly resolvedAt: string;
}

export interface UpstreamStatus {
  readonly registry: string;
  /** Which of its hosts, when hosts.toml lists others than the registry's own. */
  readonly host?: string;
  readonly state: "ok" | "unreachable" | "rate-limited";
  /** Requests left of the registry's rate limit, where it says so. */
  readonly remaining?: number;
  /** When it is asked again, while it is not ok. */
  readonly retryAt?: string;
  /** What the last request that got no answer ended in, such as `ENOTFOUND`. */
  readonly error?: string;
  /** How far its clock is ahead of this node's, by its last answer. */
  readonly skewSeconds?: number;
}
