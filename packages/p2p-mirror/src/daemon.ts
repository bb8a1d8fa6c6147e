import { join } from "node:path";
import {
  BlockPool,
  linkSignal,
  Lifecycle,
  systemClock,
  type LinkedSignal,
  type Logger,
  type Service,
} from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import { withoutMirror } from "./config/hosts-settings.ts";
import type { MirrorConfig } from "./config/mirror-config.ts";
import { daemonLimits, partBytes } from "./daemon-limits.ts";
import { CACHE_DIR } from "./daemon-data.ts";
import { administratorsHosts, shownHosts } from "./daemon-hosts.ts";
import { daemonKubernetes } from "./daemon-kubernetes.ts";
import { daemonSwarm } from "./daemon-swarm.ts";
import { daemonStatus, type StatusParts } from "./daemon-status.ts";
import { createAdminEndpoint } from "./http/admin-endpoint.ts";
import { hostsStatus } from "./hosts/hosts.ts";
import { HostsKeeper } from "./hosts/hosts-keeper.ts";
import { DoctorRounds } from "./doctor/rounds.ts";
import { doctorSettings } from "./doctor/settings.ts";
import { MetricsEndpoint } from "./http/metrics-endpoint.ts";
import { createHttpMetrics } from "./http/metrics.ts";
import { collectProcessMetrics } from "./http/process-metrics.ts";
import { createRegistryEndpoint } from "./http/registry-endpoint.ts";
import { createPeerClient } from "./peer/client.ts";
import { createPeerMetrics } from "./peer/metrics.ts";
import { createPeerServer } from "./peer/server.ts";
import { createAdvertiser } from "./routing/advertiser.ts";
import { createRouter } from "./routing/kad-router.ts";
import { createRoutingMetrics } from "./routing/metrics.ts";
import { createCache } from "./store/cache/create-cache.ts";
import { createContainerdMetrics } from "./store/containerd/metrics.ts";
import { createContainerdStore } from "./store/containerd/containerd-store.ts";
import { prepareDataDir } from "./store/data-dir.ts";
import { createStoreMetrics } from "./store/metrics.ts";
import type { FlightSwarm } from "./transfer/flight-member.ts";
import { Flights } from "./transfer/flights.ts";
import { HandedOut } from "./transfer/handed-out.ts";
import { HolderQueue } from "./transfer/holder-queue.ts";
import { NodeContent, type NodeContentDeps } from "./transfer/local-content.ts";
import { Manifests } from "./transfer/manifests.ts";
import { createTransferMetrics } from "./transfer/metrics.ts";
import { allowAll, PublicAccess, without } from "./transfer/mirror-access.ts";
import { MirrorContent } from "./transfer/mirror-content.ts";
import { MirrorSources } from "./transfer/mirror-sources.ts";
import { PublishedRecords } from "./transfer/published-records.ts";
import { republishRecords } from "./transfer/republish.ts";
import { SmallObjects } from "./transfer/small-objects.ts";
import { Tags } from "./transfer/tags.ts";
import { readClusterSecrets } from "./trust/cluster-secret.ts";
import { loadIdentity } from "./trust/identity.ts";
import { createPeerTls } from "./trust/peer-tls.ts";
import { createRecordSigner } from "./trust/record-signer.ts";
import { createUpstreamMetrics } from "./upstream/metrics.ts";
import { createUpstream } from "./upstream/registry-client.ts";

/** Readers and uploads get this long to finish when the daemon closes, then they are cut (with FIN). */
const DRAIN_MS = 7_000;

export interface DaemonDeps {
  readonly logger: Logger;
  readonly version?: string;
  /** Folder of the status page; none is served without. */
  readonly page?: URL;
  /** Flights take no part in the swarm: what it costs can be measured. Default false. */
  readonly alone?: boolean;
}

export interface Daemon {
  /** Resolves when everything listens. */
  start(signal: AbortSignal): Promise<void>;
  /** Withdraws its records, drains, leaves nothing open; also after a failed start. */
  close(): Promise<void>;
  /** Known after start. */
  readonly registryUrl: string;
  readonly adminUrl: string;
  readonly peerId: string;
  /** Where libp2p listens, for the `bootstrap` of others. */
  readonly p2pAddress: { readonly host: string; readonly port: number };
}

interface Running {
  readonly registryUrl: string;
  readonly adminUrl: string;
  readonly peerId: string;
  readonly p2pAddress: { readonly host: string; readonly port: number };
}

/** The composition root: the only place that knows which adapter stands behind which port. */
export function createDaemon(config: MirrorConfig, deps: DaemonDeps): Daemon {
  return new MirrorDaemon(config, deps);
}

class MirrorDaemon implements Daemon {
  readonly #config: MirrorConfig;
  readonly #deps: DaemonDeps;
  readonly #lifecycle = new Lifecycle();
  readonly #closing = new AbortController();
  #running: Running | undefined;
  #status: StatusParts | undefined;
  #doctor: DoctorRounds | undefined;

  constructor(config: MirrorConfig, deps: DaemonDeps) {
    this.#config = config;
    this.#deps = deps;
  }

  get registryUrl(): string {
    return this.#known.registryUrl;
  }

  get adminUrl(): string {
    return this.#known.adminUrl;
  }

  get peerId(): string {
    return this.#known.peerId;
  }

  get p2pAddress(): { readonly host: string; readonly port: number } {
    return this.#known.p2pAddress;
  }

  get #known(): Running {
    if (this.#running === undefined) throw new Error("the daemon is not started");
    return this.#running;
  }

  async start(signal: AbortSignal): Promise<void> {
    const link: LinkedSignal = linkSignal([signal, this.#closing.signal]);
    try {
      this.#running = await this.#build(link.signal);
    } finally {
      link.release();
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#lifecycle.close();
    this.#status = undefined;
  }

  async #build(signal: AbortSignal): Promise<Running> {
    const config = this.#config;
    const { logger } = this.#deps;
    const metrics = new Registry();
    const run = <T extends Service>(service: T): Promise<T> => this.#lifecycle.start(service, signal);

    await prepareDataDir(config.dataDir);
    const secrets = await readClusterSecrets(config.clusterSecretFiles);
    const identity = await loadIdentity(config.dataDir, logger);
    const tls = createPeerTls(identity, secrets);
    const records = createRecordSigner(identity);
    collectProcessMetrics(metrics);

    const admin = await run(
      createAdminEndpoint(
        { listen: config.adminListen },
        {
          registry: metrics,
          ready: () => this.#running !== undefined && !this.#closing.signal.aborted,
          status: async () => (this.#status === undefined ? {} : daemonStatus(this.#status)),
          page: this.#deps.page,
          logger,
        },
      ),
    );

    const { metricsListen } = config;
    if (metricsListen !== undefined) await run(new MetricsEndpoint(metricsListen, { registry: metrics }));
    const kubernetes = daemonKubernetes(config, { clock: systemClock, logger });
    const limits = daemonLimits(config, metrics);
    const blocks = new BlockPool({ partBytes: partBytes(limits) });
    const others = await administratorsHosts(config, { logger });
    const upstream = createUpstream(
      {
        registries: config.registries,
        hosts: others,
        dockerConfigFile: config.dockerConfig,
        proxy: { httpProxy: config.httpProxy, httpsProxy: config.httpsProxy, noProxy: config.proxyBypass },
      },
      { logger, metrics: createUpstreamMetrics(metrics), blocks, limit: limits.upstream },
    );
    await run(asService("upstream", () => upstream.close()));

    const containerd =
      config.containerdSocket === undefined
        ? undefined
        : await run(
            createContainerdStore(
              { socket: config.containerdSocket, namespace: config.containerdNamespace },
              {
                logger,
                metrics: createContainerdMetrics(metrics),
                // Restarted, perhaps with another configuration.
                onReturn: () => this.#doctor?.soon(),
              },
            ),
          );
    const cache = await run(
      createCache(
        {
          dir: join(config.dataDir, CACHE_DIR),
          size: config.cacheSize,
          minFree: config.cacheMinFree,
          registries: config.registries,
        },
        {
          logger,
          metrics: createStoreMetrics(metrics),
          heldElsewhere: async (digest) => (await containerd?.stat(digest)) !== undefined,
          reachable: (registry) => upstream.reachable(registry),
        },
      ),
    );
    const { store, catalog } = cache;
    const stores = containerd === undefined ? [store] : [store, containerd];

    const peerMetrics = createPeerMetrics(metrics);
    const handedOut = new HandedOut(() => this.#status?.router.peers() ?? []);
    // What is being fetched is added below; until then nobody knows of this node.
    const given: { -readonly [Key in keyof NodeContentDeps]: NodeContentDeps[Key] } = {
      stores,
      catalog,
      records,
    };
    const peerServer = await run(
      createPeerServer(
        { listen: config.peerListen, drainMs: DRAIN_MS },
        {
          tls,
          local: new NodeContent(given),
          others: (digest) => handedOut.holders(digest),
          handedOut: (digest, peerId) => handedOut.add(digest, peerId),
          limit: limits.out,
          logger,
          metrics: peerMetrics,
        },
      ),
    );
    const routingMetrics = createRoutingMetrics(metrics);
    const router = await run(
      await createRouter(
        {
          listen: config.p2pListen,
          advertiseAddress: config.advertiseAddress,
          peerPort: peerServer.address.port,
          bootstrap: config.bootstrap.map(
            ({ host, port }) => `${host.includes(":") ? `[${host}]` : host}:${port}`,
          ),
          dataDir: config.dataDir,
          about: { version: this.#deps.version ?? "0.0.0", zone: config.zone },
        },
        { identity, secrets, logger, metrics: routingMetrics, directory: kubernetes.directory },
      ),
    );
    const peerClient = await run(
      createPeerClient({}, { tls, logger, metrics: peerMetrics, blocks, limit: limits.in }),
    );
    const load = (): number => peerServer.load;
    const swarm = await run(daemonSwarm(config, { router, identity, load, logger, metrics }));
    given.hashes = (about) => swarm.hashes(about);

    const transferMetrics = createTransferMetrics(metrics);
    const sources = new MirrorSources({
      router,
      peerClient,
      upstream,
      catalog,
      refuted: (peer) => {
        transferMetrics.refuted.inc();
        logger.warn(
          { peer: peer.id, host: peer.host },
          "a peer delivered wrong bytes and is not asked for a while",
        );
      },
    });
    const published = new PublishedRecords({ router, clock: systemClock, logger });
    const parts = { upstream, router, peerClient, catalog, records, published, clock: systemClock, logger };
    const inSwarm: FlightSwarm = {
      swarm,
      zone: config.zone,
      ask: (peer, digest, request, options) => peerClient.piece(peer, digest, request, options),
      random: Math.random,
      holders: new HolderQueue(),
    };
    const flights = new Flights({
      cache: store,
      swarm: this.#deps.alone === true ? undefined : inSwarm,
      finder: sources,
      clock: systemClock,
      logger,
      metrics: transferMetrics,
    });
    given.flying = (digest, size) => flights.flying(digest, size);
    const small = new SmallObjects({
      ...parts,
      swarm,
      random: Math.random,
      cache: store,
      sources,
      metrics: transferMetrics,
    });
    given.fresh = (digest) => small.held(digest);
    const manifests = new Manifests({ ...parts, stores, small });
    const tags = new Tags({ ...parts, metrics: transferMetrics });
    await run(
      asService("transfer", async () => {
        await Promise.all([flights.close(), small.close(), tags.close()]);
      }),
    );
    const leftOut = withoutMirror(config.registries);
    const registry = createRegistryEndpoint(
      { listen: config.registryListen, drainMs: DRAIN_MS },
      {
        content: new MirrorContent({ ...parts, stores, flights, small, manifests, tags, sources }),
        access: without(leftOut, config.access === "open" ? allowAll : new PublicAccess(parts)),
        logger,
        metrics: createHttpMetrics(metrics),
      },
    );
    await run({
      name: registry.name,
      start: (starting) => registry.start(starting),
      // Both drain at the same time, so that the whole end stays within its bound.
      close: async () => void (await Promise.all([registry.close(), peerServer.close()])),
    });
    const hosts = config.hostsDir !== undefined && {
      hostsDir: config.hostsDir,
      mirror: registry.url,
      registries: [],
      without: leftOut,
      removeAtEnd: config.hostsRemoveOnExit,
    };
    if (hosts && others !== undefined) {
      await run(new HostsKeeper(hosts, { clock: systemClock, logger, registry: metrics, others }));
    }
    await run(createAdvertiser({ stores, router, logger, metrics: routingMetrics }));
    await republishRecords(parts, signal);
    const { condition } = kubernetes;
    if (condition !== undefined) await run(condition);
    this.#doctor = await run(
      new DoctorRounds(doctorSettings(config, registry.url), {
        status: async () => (this.#status === undefined ? undefined : daemonStatus(this.#status)),
        clock: systemClock,
        logger,
        registry: metrics,
        tell: condition && ((report) => void condition.tell(report)),
      }),
    );

    this.#status = {
      config,
      version: this.#deps.version ?? "",
      startedAt: new Date(),
      ready: () => !this.#closing.signal.aborted,
      cache,
      catalog,
      containerd,
      router,
      peerClient,
      sources,
      flights,
      swarm,
      limits,
      upstream,
      arrivals: registry.arrivals,
      bootstrapFailures: () => router.bootstrapFailures,
      hosts: async () => (hosts ? shownHosts(await hostsStatus(hosts)) : undefined),
      doctor: () => this.#doctor?.report,
    };
    return {
      registryUrl: registry.url,
      adminUrl: admin.url,
      peerId: identity.id,
      p2pAddress: router.libp2pAddress,
    };
  }
}

const asService = (name: string, close: () => Promise<void>): Service => ({
  name,
  start: () => Promise.resolve(),
  close,
});
