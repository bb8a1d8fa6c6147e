import { identify, type Identify } from "@libp2p/identify";
import type { Libp2p, PeerId } from "@libp2p/interface";
import { kadDHT, passthroughMapper, type KadDHT, type KadDHTComponents } from "@libp2p/kad-dht";
import { ping, type Ping } from "@libp2p/ping";
import { tcp } from "@libp2p/tcp";
import { yamux } from "@libp2p/yamux";
import type { Multiaddr } from "@multiformats/multiaddr";
import { ConfigError } from "@p2p-mirror/shared";
import type { Datastore } from "interface-datastore";
import { createLibp2p } from "libp2p";
import type { ClusterSecrets } from "../trust/cluster-secret.ts";
import type { Identity } from "../trust/identity.ts";
import { clusterNoise } from "../trust/noise.ts";
import { dataPlaneMultiaddr, tcpMultiaddr, type HostPort } from "./addresses.ts";

export const KAD_PROTOCOL = "/p2p-mirror/kad/1.0.0";

/** Kademlia's alpha: requests of a lookup under way at once. kad-dht's 10 paths of 10 would ask all 20 closest at once. */
const ALPHA = 3;
const YEAR_MS = 365 * 24 * 3600 * 1000;

export type MeshNode = Libp2p<{ dht: KadDHT; identify: Identify; ping: Ping }>;

export interface MeshNodeOptions {
  readonly listen: HostPort;
  /** Told to other nodes, with the port that is listened on. */
  readonly advertiseHost: string;
  readonly peerPort: number;
  /** What other nodes are told of this one; see `agentOf`. Default: libp2p's own name and version. */
  readonly agent?: string;
}

/** kad-dht keeps its routing table to itself in its types, and dead nodes in it for good; we must take them out. */
interface RemovableTable {
  remove(peer: PeerId): Promise<void>;
}

function routingTableOf(dht: object): RemovableTable {
  if ("routingTable" in dht) {
    const table = dht.routingTable;
    if (typeof table === "object" && table !== null && "remove" in table) {
      const { remove } = table;
      if (typeof remove === "function") {
        return {
          remove: async (peer) => {
            await Reflect.apply(remove, table, [peer]);
          },
        };
      }
    }
  }
  throw new TypeError("this version of @libp2p/kad-dht has no routing table with remove()");
}

export async function removeFromTable(node: MeshNode, peer: PeerId): Promise<void> {
  await routingTableOf(node.services.dht).remove(peer);
}

/** @throws ConfigError when nothing can listen at the address. */
export async function startMeshNode(node: MeshNode, listen: HostPort): Promise<void> {
  try {
    await node.start();
  } catch (error) {
    if (!(error instanceof Error) || error.name !== "UnsupportedListenAddressesError") throw error;
    throw new ConfigError(
      "p2p-listen",
      `${listen.host}:${listen.port}`,
      "another program listens there, or the address is not one of this machine; choose another",
      { cause: error },
    );
  }
}

/** kad-dht with its own place for provider records; peer store and the rest of libp2p keep theirs. */
const dhtWith = (datastore: Datastore) => (components: KadDHTComponents) =>
  kadDHT({
    protocol: KAD_PROTOCOL,
    clientMode: false,
    peerInfoMapper: passthroughMapper,
    allowQueryWithZeroPeers: true,
    alpha: ALPHA,
    disjointPaths: 1,
    initialQuerySelfInterval: 1_000,
    networkDialTimeout: { minTimeout: 1_000, maxTimeout: 2_000 },
    pingNewContactTimeout: { minTimeout: 2_000, maxTimeout: 4_000 },
    pingOldContactTimeout: { minTimeout: 1_000, maxTimeout: 2_000 },
  })({
    peerId: components.peerId,
    privateKey: components.privateKey,
    registrar: components.registrar,
    addressManager: components.addressManager,
    peerStore: components.peerStore,
    connectionManager: components.connectionManager,
    events: components.events,
    logger: components.logger,
    ping: components.ping,
    datastore,
  });

/** The one address others are told, whatever interfaces there are, and the data plane beside it. */
function announced(options: MeshNodeOptions, listening: readonly Multiaddr[]): Multiaddr[] {
  const tcpPort = listening
    .flatMap((address) => address.getComponents())
    .find((component) => component.name === "tcp")?.value;
  if (tcpPort === undefined) return [];
  return [
    tcpMultiaddr({ host: options.advertiseHost, port: Number(tcpPort) }),
    dataPlaneMultiaddr({ host: options.advertiseHost, port: options.peerPort }),
  ];
}

export interface MeshNodeDeps {
  readonly identity: Identity;
  readonly secrets: ClusterSecrets;
  readonly providers: Datastore;
}

/** libp2p as this mirror uses it: TCP, Noise with the cluster secret, yamux, identify, ping, kad-dht. Not started. */
export async function createMeshNode(options: MeshNodeOptions, deps: MeshNodeDeps): Promise<MeshNode> {
  return createLibp2p<{ dht: KadDHT; identify: Identify; ping: Ping }>({
    start: false,
    ...(options.agent !== undefined && { nodeInfo: { userAgent: options.agent } }),
    privateKey: deps.identity.privateKey,
    addresses: {
      listen: [tcpMultiaddr(options.listen).toString()],
      announceFilter: (listening) => announced(options, listening),
    },
    transports: [tcp()],
    connectionEncrypters: clusterNoise(deps.secrets),
    // The connection monitor pings already.
    streamMuxers: [yamux({ enableKeepAlive: false })],
    connectionMonitor: { pingInterval: 30_000 },
    connectionManager: {
      maxConnections: 400,
      dialTimeout: 2_000,
      addressDialTimeout: 1_000,
      // Nodes behind one address (a NAT, a test) are no attack, and a cluster that starts together connects together.
      inboundConnectionThreshold: 1_000,
      maxIncomingPendingConnections: 200,
      inboundUpgradeTimeout: 5_000,
      reconnectRetries: 1,
    },
    // An address that is not renewed would be dropped after an hour, and renewing does not count (peer-store 12).
    peerStore: { maxAddressAge: YEAR_MS, maxPeerAge: YEAR_MS },
    services: { identify: identify(), ping: ping(), dht: dhtWith(deps.providers) },
  });
}
