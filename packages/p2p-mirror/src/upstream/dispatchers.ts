import { createHash } from "node:crypto";
import type { OnReadOpts } from "node:net";
import { getCACertificates } from "node:tls";
import { BlockSocket, type BlockPool } from "@p2p-mirror/shared";
import { LRUCache } from "lru-cache";
import { Agent, buildConnector, Pool, ProxyAgent, type Dispatcher } from "undici";
import { ProxyRules, type ProxySettings } from "./proxy.ts";
import type { Endpoint, RegistryConfig } from "./registry-config.ts";

export interface DispatcherOptions {
  readonly connectMs: number;
  readonly firstByteMs: number;
  readonly idleMs: number;
  readonly proxy: ProxySettings;
}

/** Connections stay open between the layers of an image and the images of a rollout. */
const KEEP_ALIVE_MS = 30_000;
/** Presigned links and tokens come in headers; Node's own default of 16 KiB has been seen to be short. */
const MAX_HEADER_BYTES = 64 * 1024;

interface TlsOptions {
  readonly timeout: number;
  readonly allowH2: false;
  readonly ca?: string[];
  readonly cert?: string;
  readonly key?: string;
  readonly rejectUnauthorized?: false;
}

function tlsOptions(config: RegistryConfig, timeout: number): TlsOptions {
  return {
    timeout,
    allowH2: false,
    ...(config.ca === undefined || config.ca.length === 0
      ? {}
      : { ca: [...getCACertificates("default"), ...config.ca] }),
    ...config.clientCert,
    ...(config.skipVerify === true ? { rejectUnauthorized: false } : {}),
  };
}

const needsOwn = ({ ca, clientCert, skipVerify }: RegistryConfig): boolean =>
  (ca !== undefined && ca.length > 0) || clientCert !== undefined || skipVerify === true;

/** The same for the same settings, however often they were read; "" for those of the system. */
function tlsKey(config: RegistryConfig): string {
  if (!needsOwn(config)) return "";
  const { ca, clientCert, skipVerify } = config;
  return createHash("sha256")
    .update(JSON.stringify([ca, clientCert, skipVerify]))
    .digest("base64");
}

/** Settings that differ; more are certificates that were renewed, whose connections may end. */
const MAX_POOLS = 200;

/** undici's own way to connect, with sockets that read into blocks. No TLS session is kept: connections are. */
const inBlocks =
  (tls: TlsOptions, blocks: BlockPool): buildConnector.connector =>
  (options, callback) => {
    const socket = new BlockSocket(blocks);
    const reading: buildConnector.BuildOptions & { onread: OnReadOpts } = {
      ...tls,
      autoSelectFamily: true,
      onread: socket.onread,
    };
    buildConnector(reading)(options, (error, below) => {
      if (error === null) callback(null, socket.attach(below).asSocket());
      else callback(error, null);
    });
  };

/**
 * The connection pools: one set for all registries with the system's trust, one for each TLS settings of
 * their own, which then hold for its redirects and its token server too, as in containerd. HTTP/1.1: a pull is a few large bodies,
 * and each gets a TCP window of its own.
 */
export class Dispatchers {
  readonly #options: DispatcherOptions;
  readonly #blocks: BlockPool;
  readonly #rules: ProxyRules;
  readonly #keys = new WeakMap<RegistryConfig, string>();
  readonly #byKey = new LRUCache<string, Dispatcher>({
    max: MAX_POOLS,
    dispose: (dispatcher, _key, reason) => {
      // What is under way ends as it would.
      if (reason === "evict") dispatcher.close().catch(() => undefined);
    },
  });

  constructor(options: DispatcherOptions, { blocks }: { readonly blocks: BlockPool }) {
    this.#options = options;
    this.#blocks = blocks;
    this.#rules = new ProxyRules(options.proxy);
  }

  for(endpoint: Endpoint, url: URL): Dispatcher {
    const proxy = this.#rules.proxyFor(url);
    const key = `${this.#tlsKeyOf(endpoint.config)} ${proxy ?? ""}`;
    let dispatcher = this.#byKey.get(key);
    if (dispatcher === undefined) {
      dispatcher = this.#create(endpoint.config, proxy);
      this.#byKey.set(key, dispatcher);
    }
    return dispatcher;
  }

  #tlsKeyOf(config: RegistryConfig): string {
    let key = this.#keys.get(config);
    if (key === undefined) {
      key = tlsKey(config);
      this.#keys.set(config, key);
    }
    return key;
  }

  async close(): Promise<void> {
    const open = [...this.#byKey.values()];
    this.#byKey.clear();
    await Promise.all(open.map((dispatcher) => dispatcher.destroy()));
  }

  #create(config: RegistryConfig, proxy: string | undefined): Dispatcher {
    const { connectMs, firstByteMs, idleMs } = this.#options;
    const tls = tlsOptions(config, connectMs);
    const common = {
      allowH2: false,
      pipelining: 1,
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: firstByteMs,
      bodyTimeout: idleMs,
      maxHeaderSize: MAX_HEADER_BYTES,
    };
    if (proxy === undefined) return new Agent({ ...common, connect: inBlocks(tls, this.#blocks) });
    return new ProxyAgent({
      ...common,
      autoSelectFamily: true,
      uri: proxy,
      requestTls: tls,
      proxyTls: { timeout: connectMs, allowH2: false },
      // A proxy that accepts CONNECT and says nothing is as dead as a host that does not accept.
      clientFactory: (origin, options) => new Pool(origin, { ...options, headersTimeout: connectMs }),
    });
  }
}
