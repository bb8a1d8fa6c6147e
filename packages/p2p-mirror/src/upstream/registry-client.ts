import {
  isDigest,
  SourceError,
  type BlockPool,
  type Logger,
  type RateLimit,
  type Repository,
} from "@p2p-mirror/shared";
import { Authorizer } from "./authorizer.ts";
import { fetchBlob, fetchBlobSize } from "./blobs.ts";
import { CredentialStore } from "./credentials.ts";
import { Endpoints, type Chain } from "./endpoints.ts";
import type { Gate, GateOptions } from "./gate.ts";
import { inOrder, nobodyGives } from "./in-order.ts";
import { fetchManifest, resolveManifest } from "./manifests.ts";
import type { UpstreamMetrics } from "./metrics.ts";
import type { ProxySettings } from "./proxy.ts";
import { listReferrers } from "./referrers.ts";
import { ObjectClient, type RetryOptions } from "./object-client.ts";
import type { Endpoint, RegistryConfig, RegistryHosts } from "./registry-config.ts";
import { listTags } from "./tags.ts";
import { Transport } from "./transport.ts";
import type { Upstream } from "./upstream.ts";
import { Visibility } from "./visibility.ts";

export interface CreateUpstreamOptions {
  /** By the name image references have: `docker.io`, `host:5000`. Others are asked at `https://<name>`. */
  readonly registries: ReadonlyMap<string, RegistryConfig>;
  /** Where registries are asked that `registries` says nothing of. */
  readonly hosts?: RegistryHosts | undefined;
  readonly dockerConfigFile?: string | undefined;
  /** HTTP_PROXY and its kin. */
  readonly proxy?: ProxySettings | undefined;
  /** What credential helpers run with; default: this process's environment. */
  readonly helperEnv?: Readonly<Record<string, string | undefined>> | undefined;
  /** Milliseconds. */
  readonly timeouts?: {
    /** Until a connection stands, TLS included. Default 5,000. */
    readonly connectMs?: number;
    /** From then to the headers of the answer. Default 10,000. */
    readonly firstByteMs?: number;
    /** Without a body byte. Default 30,000. */
    readonly idleMs?: number;
    /** For a credential helper. Default 10,000. */
    readonly helperMs?: number;
  };
  readonly retry?: Partial<RetryOptions>;
  readonly breaker?: Partial<Omit<GateOptions, "onChange">>;
  /** Milliseconds a verdict of `isPublic` counts. Default 5 minutes for yes, 2 for no. */
  readonly verdicts?: { readonly yesMs?: number; readonly noMs?: number };
}

export interface UpstreamDeps {
  readonly logger: Logger;
  readonly metrics: UpstreamMetrics;
  /** Memory for what comes in. */
  readonly blocks: BlockPool;
  /** Of all bytes from registries together. */
  readonly limit?: RateLimit | undefined;
}

/** How a registry, or one of its hosts, is doing as this node sees it. */
export interface RegistryStatus {
  readonly registry: string;
  /** Which of its hosts, when others than the registry's own are listed. */
  readonly host?: string;
  readonly state: "ok" | "unreachable" | "rate-limited";
  /** Requests left of its rate limit, where it says so. */
  readonly remaining?: number;
  /** When it is asked again (ISO 8601), while it is not. */
  readonly retryAt?: string;
  /** What the last request ended in, if that was no answer. */
  readonly error?: string;
  /** How far its clock is ahead of this node's. */
  readonly skewSeconds?: number;
}

/** The port, and what the rest of the mirror may ask of it. */
export interface UpstreamService extends Upstream {
  /**
   * False from when all hosts of a registry were found unreachable until one answers again (whatever it answers). True
   * for one that nobody asked yet.
   */
  reachable(registry: string): boolean;
  /** The registries that were asked lately. */
  status(): RegistryStatus[];
  /** Ends everything under way. */
  close(): Promise<void>;
}

/** The registries behind the mirror, over HTTP. */
export function createUpstream(options: CreateUpstreamOptions, deps: UpstreamDeps): UpstreamService {
  const { timeouts = {}, breaker = {}, retry = {} } = options;
  const { logger, metrics } = deps;
  const transport = new Transport(
    {
      connectMs: timeouts.connectMs ?? 5000,
      firstByteMs: timeouts.firstByteMs ?? 10_000,
      idleMs: timeouts.idleMs ?? 30_000,
      proxy: options.proxy ?? {},
      breaker: { failures: 3, refusedMs: 1000, openMs: 3000, maxOpenMs: 15_000, ...breaker },
    },
    { ...deps, onReachable: (registry) => tellReachable(registry) },
  );
  const credentials = new CredentialStore(
    {
      dockerConfigFile: options.dockerConfigFile,
      helper: { timeoutMs: timeouts.helperMs ?? 10_000, env: options.helperEnv },
    },
    deps,
  );
  const authorizer = new Authorizer({ transport, credentials, metrics });
  const client = new ObjectClient(
    { retry: { retries: 2, delayMs: 150, withinMs: 5000, ...retry } },
    { transport, authorizer, credentials, metrics, logger },
  );
  const visibility = new Visibility(
    {
      yesMs: options.verdicts?.yesMs ?? 300_000,
      noMs: options.verdicts?.noMs ?? 120_000,
      hasLogins: options.dockerConfigFile !== undefined,
    },
    { client },
  );
  const endpoints = new Endpoints({ registries: options.registries, hosts: options.hosts });
  const reachable = (registry: string): boolean => {
    const pull = endpoints.known(registry)?.pull ?? [];
    return pull.length === 0 || pull.some((one) => transport.knownGate(one)?.reachable !== false);
  };
  const tellReachable = (registry: string): void =>
    metrics.reachable.set({ registry: metrics.label(registry) }, reachable(registry) ? 1 : 0);
  const ask = <T>(
    what: keyof Chain,
    repository: Repository,
    signal: AbortSignal | undefined,
    work: (endpoint: Endpoint) => Promise<T>,
  ): Promise<T> => inOrder(endpoints.of(repository.registry)[what], repository, signal, work);
  /** What upstream gives to nobody in particular is public: the verdict comes for nothing. */
  const learn = async <T extends { readonly anonymous: boolean }>(
    repository: Repository,
    asked: Promise<T>,
  ): Promise<T> => {
    try {
      const answer = await asked;
      if (answer.anonymous) visibility.learnPublic(repository);
      return answer;
    } catch (error) {
      if (error instanceof SourceError && error.code === "DENIED") visibility.forget(repository);
      throw error;
    }
  };
  return {
    async resolve(repository, tag, { signal } = {}) {
      const known = visibility.justResolved(repository, tag);
      if (known !== undefined) return known;
      const asked = ask("resolve", repository, signal, (endpoint) =>
        resolveManifest(client, endpoint, repository, tag, signal),
      );
      return (await learn(repository, asked)).descriptor;
    },
    async manifest(repository, reference, { signal } = {}) {
      const asked = ask(isDigest(reference) ? "pull" : "resolve", repository, signal, (endpoint) =>
        fetchManifest(client, endpoint, repository, reference, signal),
      );
      const { descriptor, bytes } = await learn(repository, asked);
      return { descriptor, bytes };
    },
    async blobSize(repository, digest, { signal } = {}) {
      return ask("pull", repository, signal, (endpoint) =>
        fetchBlobSize(client, deps, { endpoint, repository, digest, signal }),
      );
    },
    async blob(repository, digest, range, { signal } = {}) {
      const asked = ask("pull", repository, signal, (endpoint) =>
        fetchBlob(client, deps, { endpoint, repository, digest, signal }, range),
      );
      const { size, start, body } = await learn(repository, asked);
      return { size, start, body };
    },
    async tags(repository, query, { signal } = {}) {
      return ask("resolve", repository, signal, (endpoint) =>
        listTags(client, endpoint, repository, query, signal),
      );
    },
    async referrers(repository, digest, query, { signal } = {}) {
      return ask("pull", repository, signal, (endpoint) =>
        listReferrers(client, endpoint, repository, digest, query, signal),
      );
    },
    async isPublic(repository, { signal, probe } = {}) {
      const chain = endpoints.of(repository.registry);
      // No verdict, neither one of before nor one to remember: who could say so is only out of this node's reach.
      if (chain.all.length === 0) throw nobodyGives(repository);
      return visibility.isPublic(chain, repository, probe, signal);
    },
    reachable,
    status() {
      // A hosts.toml may well name one origin twice, as a host and as the server.
      const asked = new Map<Gate, Endpoint>();
      for (const endpoint of endpoints.lately()) {
        const gate = transport.knownGate(endpoint);
        if (gate !== undefined && !asked.has(gate)) asked.set(gate, endpoint);
      }
      return [...asked].map(([gate, endpoint]) => statusOf(endpoint, gate));
    },
    async close() {
      client.close();
      await transport.close();
    },
  };
}

function statusOf({ registry, origin, listed }: Endpoint, gate: Gate): RegistryStatus {
  const { state, waitMs } = gate.health;
  return {
    registry,
    ...(listed ? { host: origin } : {}),
    state,
    ...(gate.remaining === undefined ? {} : { remaining: gate.remaining }),
    ...(state === "ok" ? {} : { retryAt: new Date(Date.now() + waitMs).toISOString() }),
    ...(gate.failure === undefined ? {} : { error: gate.failure }),
    ...(gate.skewMs === undefined ? {} : { skewSeconds: Math.round(gate.skewMs / 1000) }),
  };
}
