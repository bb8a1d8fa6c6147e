import { join } from "node:path";
import type { Connection, Peer as StoredPeer, PeerId } from "@libp2p/interface";
import type { Multiaddr } from "@multiformats/multiaddr";
import type { Service } from "@p2p-mirror/shared";
import {
  findAdvertiseAddress,
  libp2pAddressOf,
  parseHostPort,
  resolveListen,
  tcpMultiaddr,
  type HostPort,
} from "./addresses.ts";
import { Acquaintance } from "./acquaintance.ts";
import { Announcer } from "./announcer.ts";
import { Bootstrapper, type BootstrapFailure } from "./bootstrapper.ts";
import { closestNodes } from "./closest-nodes.ts";
import { keyHashOf, positionOfPeer, type KeyHash } from "./key.ts";
import { decodePeers } from "./peer-list.ts";
import { RecordsChannels } from "./records-channels.ts";
import {
  createRecordsHandler,
  MAX_STREAMS_PER_PEER,
  RECORDS_PROTOCOL,
  type Message,
} from "./records-protocol.ts";
import { MAX_FOUND, RecordsService } from "./records-service.ts";
import { createMeshNode, startMeshNode, type MeshNode } from "./libp2p-node.ts";
import { Liveness } from "./liveness.ts";
import { Lookup } from "./lookup.ts";
import { Members, type Member } from "./members.ts";
import { NodeStreams } from "./node-streams.ts";
import { ProviderDatastore } from "./provider-datastore.ts";
import { ProviderStore } from "./provider-store.ts";
import { agentOf, PeerFactsBook, type PeerFacts } from "./peer-facts.ts";
import { PEERS_FILE, RememberedPeers } from "./remembered-peers.ts";
import type { RouterDeps, RouterOptions } from "./router-options.ts";
import type { NodeAddress, Peer, Router, RoutingKey, RoutingOptions } from "./router.ts";

/**
 * The router of a node, with the address its libp2p listens on once started (tests bootstrap from it), and its streams
 * for other protocols between the same nodes.
 */
export interface KadRouter extends Router, Service {
  readonly libp2pAddress: HostPort;
  /** Addresses of `bootstrap` that lead nowhere now. */
  readonly bootstrapFailures: readonly BootstrapFailure[];
  readonly streams: NodeStreams;
  /** What a connected node says of itself, and how far it is. */
  about(peer: Peer): PeerFacts;
}

const DEFAULT_VALIDITY_MS = 20 * 60_000;
const DEFAULT_REPLICATION = 8;

/** Kademlia over libp2p, among the nodes that share a cluster secret. A node alone works, and goes on looking for others. */
export async function createRouter(options: RouterOptions, deps: RouterDeps): Promise<KadRouter> {
  const bootstrap = options.bootstrap.map((text) => parseHostPort(text, "bootstrap"));
  const listen = await resolveListen(options.listen);
  const host = await findAdvertiseAddress(listen.host, options.advertiseAddress, deps.logger);
  const validityMs = options.recordValidityMs ?? DEFAULT_VALIDITY_MS;
  const store = new ProviderStore({ validityMs }, deps.now ?? (() => performance.now()));
  const members = new Members();
  const own = new Set<KeyHash>();
  const datastore = new ProviderDatastore({
    store,
    own,
    self: deps.identity.id,
    isKnown: (id) => members.peer(id) !== undefined,
  });
  const node = await createMeshNode(
    {
      listen,
      advertiseHost: host,
      peerPort: options.peerPort,
      agent: agentOf(options.about ?? { version: "0.0.0", zone: "" }),
    },
    { identity: deps.identity, secrets: deps.secrets, providers: datastore },
  );
  return new LibP2pRouter(
    { ...options, listen, replication: options.replication ?? DEFAULT_REPLICATION, validityMs, host },
    bootstrap,
    {
      ...deps,
      store,
      own,
      members,
      node,
    },
  );
}

type ResolvedOptions = RouterOptions & {
  readonly replication: number;
  readonly validityMs: number;
  readonly host: string;
};
type ResolvedDeps = RouterDeps & {
  readonly store: ProviderStore;
  readonly own: Set<KeyHash>;
  readonly members: Members;
  readonly node: MeshNode;
};

class LibP2pRouter implements KadRouter {
  readonly name = "router";
  readonly self: Peer;
  readonly streams: NodeStreams;
  readonly #options: ResolvedOptions;
  readonly #deps: ResolvedDeps;
  readonly #node: MeshNode;
  readonly #members: Members;
  readonly #facts: PeerFactsBook;
  readonly #announcer: Announcer;
  readonly #bootstrapper: Bootstrapper;
  readonly #acquaintance: Acquaintance;
  readonly #lookup: Lookup;
  readonly #records: RecordsService;
  readonly #channels: RecordsChannels;
  readonly #closing = new AbortController();
  readonly #liveness: Liveness;
  readonly #remembered: RememberedPeers;
  #sweeping: NodeJS.Timeout | undefined;

  constructor(options: ResolvedOptions, bootstrap: readonly HostPort[], deps: ResolvedDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#node = deps.node;
    this.streams = new NodeStreams(deps.node);
    this.#members = deps.members;
    this.#channels = new RecordsChannels(deps.node);
    this.#facts = new PeerFactsBook(deps.node);
    this.self = { id: deps.identity.id, host: options.host, port: options.peerPort };
    this.#liveness = new Liveness({
      node: deps.node,
      members: deps.members,
      store: deps.store,
      onGone: () => this.#announcer.membersChanged(),
      logger: deps.logger,
    });
    this.#remembered = new RememberedPeers(join(options.dataDir, PEERS_FILE), {
      current: () => this.#memberAddresses(),
      logger: deps.logger,
    });
    this.#announcer = new Announcer(
      { replication: options.replication, validityMs: options.validityMs },
      {
        members: deps.members,
        send: async (member, message, signal) => this.#send(member, message, signal),
        check: (member) => this.#liveness.check(member),
        logger: deps.logger,
        metrics: deps.metrics,
      },
    );
    this.#bootstrapper = new Bootstrapper(
      { bootstrap },
      {
        directory: deps.directory,
        remembered: () => this.#remembered.addresses,
        isKnown: (address) => this.#isKnown(address),
        isConnected: () => deps.node.getConnections().length > 0,
        dial: async (address, signal) => {
          await deps.node.dial(address, { signal });
        },
        logger: deps.logger,
      },
    );
    this.#acquaintance = new Acquaintance({
      self: this.self.id,
      members: deps.members,
      send: async (member, message, signal) => this.#send(member, message, signal),
      connect: async (peerId, address, signal) => {
        await deps.node.dial(tcpMultiaddr(address).encapsulate(`/p2p/${peerId.toString()}`), { signal });
      },
      check: (member) => this.#liveness.check(member),
      onHeard: () => {
        this.#announcer.membersChanged();
        this.#remembered.changed();
      },
      logger: deps.logger,
    });
    this.#lookup = new Lookup({
      self: this.self.id,
      store: deps.store,
      members: deps.members,
      replication: options.replication,
      knowsAll: () => this.#acquaintance.complete && !this.#members.turnedAway,
      ask: async (member, key, signal) => this.#findAt(member, key, signal),
      check: (member) => void this.#liveness.check(member),
      findProviders: (cid, signal) => deps.node.services.dht.findProviders(cid, { signal }),
      metrics: deps.metrics,
    });
    this.#records = new RecordsService({
      self: this.self,
      store: deps.store,
      own: deps.own,
      members: deps.members,
      identify: async (connection) => this.#identify(connection),
      metrics: deps.metrics,
    });
  }

  get bootstrapFailures(): BootstrapFailure[] {
    return this.#bootstrapper.failures;
  }

  get libp2pAddress(): HostPort {
    const address = libp2pAddressOf(this.#node.getMultiaddrs());
    if (address === undefined) throw new Error("the router is not started");
    return address;
  }

  async start(signal: AbortSignal): Promise<void> {
    const node = this.#node;
    await this.#remembered.load();
    node.addEventListener("peer:update", (event) => this.#onAddresses(event.detail.peer));
    await node.handle(
      RECORDS_PROTOCOL,
      createRecordsHandler({
        answer: async (message, connection) => this.#records.answer(message, connection),
        onRefused: (error, sender) => {
          this.#deps.metrics.rejectedMessages.inc();
          this.#deps.logger.debug({ err: error, peer: sender }, "what a node sent was no message");
        },
        onUnanswered: (error, sender) =>
          this.#deps.logger.trace({ err: error, peer: sender }, "an answer was not taken"),
      }),
      { maxInboundStreams: MAX_STREAMS_PER_PEER, maxOutboundStreams: 2 * MAX_STREAMS_PER_PEER },
    );
    await node.register(RECORDS_PROTOCOL, {
      onConnect: async (peer) => this.#onConnect(peer),
      onDisconnect: (peer) => this.#onDisconnect(peer),
    });
    signal.throwIfAborted();
    await startMeshNode(node, this.#options.listen);
    // libp2p does it by itself, but a second later; until then kad-dht would fail lookups of what we have ourselves.
    await node.peerStore.patch(node.peerId, { multiaddrs: node.getMultiaddrs() });
    this.#announcer.start();
    this.#acquaintance.start();
    this.#bootstrapper.start();
    this.#sweeping = setInterval(() => this.#sweep(), this.#options.validityMs / 4);
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeping);
    this.#closing.abort();
    // Before the others: they wait for its answers.
    await this.#liveness.close();
    await this.#bootstrapper.close();
    await this.#acquaintance.close();
    await this.#announcer.close();
    await this.#remembered.close();
    this.#channels.close();
    await this.#node.stop();
  }

  async advertise(keys: readonly RoutingKey[], options?: RoutingOptions): Promise<void> {
    const hashes = keys.map(keyHashOf);
    for (const hash of hashes) this.#deps.own.add(hash);
    await this.#announcer.announce(hashes, options?.signal);
    this.#deps.metrics.recordsAdvertised.set(this.#announcer.size);
  }

  async withdraw(keys: readonly RoutingKey[], options?: RoutingOptions): Promise<void> {
    const hashes = keys.map(keyHashOf);
    for (const hash of hashes) this.#deps.own.delete(hash);
    await this.#announcer.withdraw(hashes, options?.signal);
    this.#deps.metrics.recordsAdvertised.set(this.#announcer.size);
  }

  find(key: RoutingKey, options?: RoutingOptions): AsyncIterable<Peer> {
    return this.#lookup.find(keyHashOf(key), [options?.signal, this.#closing.signal]);
  }

  forget(key: RoutingKey, peer: Peer): void {
    this.#lookup.forget(keyHashOf(key), peer.id);
  }

  peers(): Peer[] {
    return [...this.#members]
      .filter((member) => member.connected)
      .map((member) => this.#members.peer(member.id))
      .filter((peer) => peer !== undefined);
  }

  about({ id }: Peer): PeerFacts {
    return this.#facts.of(id);
  }

  closest(key: RoutingKey, count: number): NodeAddress[] {
    const { id, host } = this.self;
    const address = libp2pAddressOf(this.#node.getMultiaddrs());
    // Not started, or closed.
    if (address === undefined) return [];
    const position = positionOfPeer(this.#node.peerId.toMultihash().bytes);
    return closestNodes(key, count, this.#members, { id, host, port: address.port, position });
  }

  #onAddresses(peer: StoredPeer): void {
    if (peer.id.equals(this.#node.peerId)) return;
    this.#members.learn(
      peer.id.toString(),
      peer.addresses.map(({ multiaddr }) => multiaddr),
    );
    this.#remembered.changed();
  }

  async #identify(connection: Connection): Promise<void> {
    const id = connection.remotePeer.toString();
    if (this.#members.peer(id) !== undefined) return;
    const { listenAddrs } = await this.#node.services.identify.identify(connection);
    this.#members.learn(id, listenAddrs);
  }

  async #onConnect(peer: PeerId): Promise<void> {
    const { id } = this.#members.connected(peer);
    this.#deps.metrics.peers.set(this.#connectedCount());
    this.#announcer.memberCame(id);
    this.#onAddresses(await this.#node.peerStore.get(peer));
    this.#acquaintance.memberCame();
  }

  #onDisconnect(peer: PeerId): void {
    const member = this.#members.disconnected(peer.toString());
    this.#deps.metrics.peers.set(this.#connectedCount());
    if (member === undefined || this.#closing.signal.aborted) return;
    if (this.#connectedCount() === 0) this.#bootstrapper.lost();
    void this.#liveness.check(member);
  }

  async #send(member: Member, message: Message, signal: AbortSignal): Promise<Uint8Array> {
    const address = this.#members.libp2pAddress(member.id);
    if (!member.connected && address !== undefined) {
      await this.#node.dial(tcpMultiaddr(address).encapsulate(`/p2p/${member.id}`), { signal });
    }
    return this.#channels.ask(member.peerId, message, signal);
  }

  async #findAt(member: Member, key: KeyHash, signal: AbortSignal): Promise<Peer[]> {
    const answer = await this.#send(member, { operation: "find", keys: [key] }, signal);
    return decodePeers(answer, MAX_FOUND).map(({ peerId, host, port }) => {
      const id = peerId.toString();
      return this.#members.peer(id) ?? { id, host, port };
    });
  }

  #connectedCount(): number {
    let count = 0;
    for (const member of this.#members) if (member.connected) count += 1;
    return count;
  }

  /** This node itself, or a node that is connected already (possibly from its side, so its address tells nothing). */
  #isKnown(address: Multiaddr): boolean {
    const components = address.getComponents();
    const id = components.find((component) => component.name === "p2p")?.value;
    if (id !== undefined) return id === this.self.id || this.#members.get(id)?.connected === true;
    const target = libp2pAddressOf([address]);
    if (target === undefined) return false;
    const same = (other: HostPort | undefined): boolean =>
      other?.host === target.host && other.port === target.port;
    if (same(this.libp2pAddress)) return true;
    return [...this.#members].some(
      (member) => member.connected && same(this.#members.libp2pAddress(member.id)),
    );
  }

  #sweep(): void {
    this.#deps.store.sweep();
    this.#deps.metrics.recordsHeld.set(this.#deps.store.size);
  }

  #memberAddresses(): Multiaddr[] {
    return [...this.#members].flatMap((member) => {
      const address = this.#members.libp2pAddress(member.id);
      return address === undefined ? [] : [tcpMultiaddr(address).encapsulate(`/p2p/${member.id}`)];
    });
  }
}
