import { statfs } from "node:fs/promises";
import { formatReference } from "@p2p-mirror/shared";
import type { MirrorConfig } from "./config/mirror-config.ts";
import { limitsStatus, type DaemonLimits } from "./daemon-limits.ts";
import type { KadRouter } from "./routing/kad-router.ts";
import type { Peer } from "./routing/router.ts";
import type {
  DoctorReport,
  FlightStatus,
  FlightSwarmStatus,
  HostsDirectoryStatus,
  MirrorStatus,
  PeerStatus,
} from "./status.ts";
import type { Cache } from "./store/cache/create-cache.ts";
import type { Catalog } from "./store/catalog.ts";
import type { MirrorSwarm } from "./swarm/mirror-swarm.ts";
import type { Flight } from "./transfer/flight.ts";
import type { SwarmProgress } from "./transfer/flight-progress.ts";
import type { Flights } from "./transfer/flights.ts";

/** More is for a database, not for a terminal. */
const MAX_IMAGES = 1_000;

export interface StatusParts {
  readonly config: MirrorConfig;
  readonly version: string;
  readonly startedAt: Date;
  readonly ready: () => boolean;
  readonly cache: Cache;
  readonly catalog: Catalog;
  readonly containerd: { readonly connected: boolean } | undefined;
  readonly router: Pick<KadRouter, "self" | "peers" | "about">;
  readonly bootstrapFailures: () => MirrorStatus["bootstrap"];
  readonly peerClient: { isBroken(peer: Peer): boolean; faultsOf(peer: Peer): number };
  readonly arrivals: { readonly requests: number; readonly canaries: readonly string[] };
  /** Whom containerd asks, read from its files now; undefined: they are not looked after. */
  readonly hosts: () => Promise<readonly HostsDirectoryStatus[] | undefined>;
  /** What the doctor found the last time; undefined: it has not looked. */
  readonly doctor: () => DoctorReport | undefined;
  readonly sources: { mayAsk(peer: Peer): boolean };
  readonly flights: Flights;
  readonly limits: DaemonLimits;
  readonly swarm: Pick<MirrorSwarm, "coordinated" | "banned">;
  readonly upstream: { status(): MirrorStatus["upstreams"] };
}

/** What the admin endpoint's `/status` answers, and with it the commands `ls` and `status`. */
export async function daemonStatus(parts: StatusParts): Promise<MirrorStatus> {
  const { config, router, containerd } = parts;
  const doctor = parts.doctor();
  const hosts = await parts.hosts();
  const usage = parts.cache.usage();
  // Somebody may have taken the directory away; the status shall still tell the rest.
  const disk = await statfs(config.dataDir).catch(() => ({ bavail: 0, bsize: 0 }));
  return {
    node: {
      id: router.self.id,
      version: parts.version,
      startedAt: parts.startedAt.toISOString(),
      ready: parts.ready(),
      advertised: address(router.self),
      access: config.access,
      zone: config.zone,
      requests: parts.arrivals.requests,
      canaries: parts.arrivals.canaries,
      ...(containerd && { containerd: containerd.connected ? "connected" : "unreachable" }),
    },
    peers: router.peers().map((peer) => peerStatus(peer, parts)),
    flights: parts.flights.list().map((flight) => flightStatus(flight, parts.swarm)),
    swarm: { banned: parts.swarm.banned },
    limits: limitsStatus(parts.limits),
    cache: {
      blobs: usage.blobs,
      bytes: usage.bytes,
      maxBytes: usage.limit,
      freeBytes: disk.bavail * disk.bsize,
    },
    images: parts.catalog.images(MAX_IMAGES).map((image) => ({
      reference: formatReference({ ...image, digest: undefined }),
      digest: image.descriptor.digest,
      mediaType: image.descriptor.mediaType,
      size: parts.catalog.heldSize(image.descriptor.digest),
      resolvedAt: new Date(image.resolvedAt).toISOString(),
    })),
    upstreams: parts.upstream.status(),
    bootstrap: parts.bootstrapFailures() ?? [],
    ...(hosts && { hosts }),
    ...(doctor && { doctor }),
  };
}

function peerStatus(peer: Peer, parts: StatusParts): PeerStatus {
  const { version, zone, latencyMs } = parts.router.about(peer);
  return {
    id: peer.id,
    address: address(peer),
    state: stateOf(peer, parts),
    zone,
    faults: parts.peerClient.faultsOf(peer),
    ...(version !== undefined && { version }),
    ...(latencyMs !== undefined && { latencyMs }),
  };
}

function stateOf(peer: Peer, { sources, peerClient }: StatusParts): PeerStatus["state"] {
  if (!sources.mayAsk(peer)) return "refuted";
  return peerClient.isBroken(peer) ? "broken" : "up";
}

function flightStatus(flight: Flight, swarm: StatusParts["swarm"]): FlightStatus {
  const { digest, size, readers, progress } = flight;
  const { received, fromUpstream, fromPeers, sources } = progress;
  return {
    digest,
    size,
    received,
    readers,
    fromUpstream,
    fromPeers,
    sources,
    ...(progress.swarm && { swarm: swarmStatus(progress.swarm, swarm.coordinated(digest).length) }),
  };
}

function swarmStatus(progress: SwarmProgress, members: number): FlightSwarmStatus {
  const { coordinator, alone, fetchers, neighbours, leases } = progress;
  return {
    alone,
    fetchers,
    leases,
    neighbours: neighbours.map(({ peer, zone, load }) => ({ id: peer.id, zone, load })),
    ...(coordinator && { coordinator: { ...coordinator, ...(coordinator.self && { members }) } }),
  };
}

const address = ({ host, port }: { readonly host: string; readonly port: number }): string =>
  `${host.includes(":") ? `[${host}]` : host}:${port}`;
