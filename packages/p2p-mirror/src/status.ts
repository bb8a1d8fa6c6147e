/** What `/status` of the admin endpoint answers, as JSON. Sizes in bytes, times as ISO 8601 in UTC. */
export interface MirrorStatus {
  readonly node: NodeStatus;
  /** Nodes this one is in contact with. */
  readonly peers: readonly PeerStatus[];
  /** What is being fetched now. */
  readonly flights: readonly FlightStatus[];
  readonly cache: CacheStatus;
  /** Tags this node resolved or saw in containerd, newest first. */
  readonly images: readonly ImageStatus[];
  /** Registries that were asked since the start. */
  readonly upstreams: readonly UpstreamStatus[];
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
  /** Undefined: none was configured. */
  readonly containerd?: "connected" | "unreachable";
}

export interface PeerStatus {
  readonly id: string;
  /** `host:port` of its peer data plane. */
  readonly address: string;
  /** `broken`: its breaker is open, it is left alone for a while. */
  readonly state: "up" | "broken";
}

export interface FlightStatus {
  readonly digest: string;
  readonly size: number;
  /** Bytes that are here. */
  readonly received: number;
  readonly readers: number;
  /** Kinds of source it is being read from now. */
  readonly sources: readonly string[];
}

export interface CacheStatus {
  readonly blobs: number;
  readonly bytes: number;
  readonly maxBytes: number;
  /** Of the file system the cache is on. */
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
  readonly state: "ok" | "unreachable" | "rate-limited";
  /** Requests left of the registry's rate limit, where it says so. */
  readonly remaining?: number;
  /** When it is asked again, while it is not ok. */
  readonly retryAt?: string;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

type Shape = Readonly<Record<string, "string" | "number" | "boolean" | "array">>;

const SHAPES: Readonly<Record<keyof MirrorStatus, Shape>> = {
  node: { id: "string", version: "string", startedAt: "string", ready: "boolean", advertised: "string" },
  peers: { id: "string", address: "string", state: "string" },
  flights: { digest: "string", size: "number", received: "number", readers: "number", sources: "array" },
  cache: { blobs: "number", bytes: "number", maxBytes: "number", freeBytes: "number" },
  images: { reference: "string", digest: "string", mediaType: "string", resolvedAt: "string" },
  upstreams: { registry: "string", state: "string" },
};

const hasShape = (value: unknown, shape: Shape): boolean =>
  isRecord(value) &&
  Object.entries(shape).every(([key, type]) =>
    type === "array" ? Array.isArray(value[key]) : typeof value[key] === type,
  );

/** True for an answer with everything the commands show: whatever listens on that port need not be a mirror. */
export function isMirrorStatus(value: unknown): value is MirrorStatus {
  if (!isRecord(value)) return false;
  return Object.entries(SHAPES).every(([key, shape]) => {
    const part = value[key];
    if (key === "node" || key === "cache") return hasShape(part, shape);
    return Array.isArray(part) && part.every((one) => hasShape(one, shape));
  });
}
