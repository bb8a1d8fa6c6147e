import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import type { Multiaddr } from "@multiformats/multiaddr";
import { linkSignal, type Logger } from "@p2p-mirror/shared";
import { tcpMultiaddr, type HostPort } from "./addresses.ts";

export interface BootstrapperOptions {
  /** `host:port`; a DNS name stands for all its addresses, asked again each time. */
  readonly bootstrap: readonly HostPort[];
  /** First wait while nobody is connected; doubles up to `maxRetryMs`. Default 50 ms. */
  readonly minRetryMs?: number;
  /** Default 10 s. */
  readonly maxRetryMs?: number;
  /** Once connected: how often new addresses are looked for, and a cluster that came apart is joined again. Default 2 min. */
  readonly againMs?: number;
}

/** A list of nodes that somebody else keeps, such as the cluster's API server. */
export interface Directory {
  /** For people. */
  readonly name: string;
  /** Rejects when it cannot be asked. */
  find(signal: AbortSignal): Promise<readonly HostPort[]>;
}

export interface BootstrapperDeps {
  /** Asked rarely once this node has found others: it is one for all of them. */
  readonly directory?: Directory | undefined;
  /** Nodes of the last run and of this one, with their peer IDs. */
  remembered(): readonly Multiaddr[];
  /** True when the address is this node's own, or connected already. */
  isKnown(address: Multiaddr): boolean;
  isConnected(): boolean;
  dial(address: Multiaddr, signal: AbortSignal): Promise<void>;
  /** IPv4 and IPv6 addresses of a name. Default: the system's resolver, so /etc/hosts counts. */
  readonly lookup?: (name: string) => Promise<readonly string[]>;
  readonly logger: Logger;
}

/** Why an address did not lead to the cluster. */
export type DialFailure =
  | "unknown-name"
  | "timeout"
  | "refused" /* no connection, for whatever reason */
  | "other-secret" /* a mirror that does not know this cluster's secret */
  | "no-mirror" /* something else answers there */
  | "no-list"; /* a directory that does not say who is there */

export interface BootstrapFailure {
  /** `host:port` of a name, a directory, else a multiaddr. */
  readonly address: string;
  readonly reason: DialFailure;
}

interface Failed extends BootstrapFailure {
  /** Undefined: there was nothing to dial. */
  readonly dialled?: Multiaddr;
}

/** The name of the handshake has the id of the secret in it: who does not know the name does not have the secret. */
function failureOf(error: unknown, deadline: AbortSignal): DialFailure {
  if (deadline.aborted) return "timeout";
  if (!(error instanceof Error) || error.name !== "EncryptionFailedError") return "refused";
  return error.message.includes("could not negotiate") ? "other-secret" : "no-mirror";
}

const DIAL_TIMEOUT_MS = 2_000;
const PARALLEL_DIALS = 8;
/** Of a DNS name with a thousand addresses a random few are enough: kad-dht finds the others. */
const MAX_DIALS = 24;
const MAX_DIALS_WHEN_CONNECTED = 3;
/** Between two questions to the directory: while nobody is connected, and once somebody is. */
const DIRECTORY_MS = { alone: 1_000, connected: 600_000 } as const;

function shuffle<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, order: Math.random() }))
    .toSorted((a, b) => a.order - b.order)
    .map(({ item }) => item);
}

async function systemLookup(name: string): Promise<string[]> {
  return (await lookup(name, { all: true })).map(({ address }) => address);
}

/** Connects this node to some of the cluster, for as long as it runs. Being alone is no error: it goes on asking. */
export class Bootstrapper {
  readonly #options: Required<BootstrapperOptions>;
  readonly #deps: BootstrapperDeps;
  readonly #closing = new AbortController();
  /** Of the last round. */
  #failures: readonly Failed[] = [];
  #directoryAskedAt = -Infinity;
  /** What the directory said the last time; undefined: it did not. */
  #inDirectory: readonly Multiaddr[] | undefined;
  #wake: (() => void) | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(options: BootstrapperOptions, deps: BootstrapperDeps) {
    this.#options = { minRetryMs: 50, maxRetryMs: 10_000, againMs: 120_000, ...options };
    this.#deps = deps;
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Who was to lead to the cluster, did not the last time it was tried, and has not come by itself since. */
  get failures(): BootstrapFailure[] {
    return this.#failures
      .filter(({ dialled }) => dialled === undefined || !this.#deps.isKnown(dialled))
      .map(({ address, reason }) => ({ address, reason }));
  }

  /** Everybody is gone: do not wait for the next round. */
  lost(): void {
    this.#wake?.();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#wake?.();
    await this.#running;
  }

  async #run(): Promise<void> {
    let retryMs = this.#options.minRetryMs;
    while (!this.#closing.signal.aborted) {
      await this.#round();
      const connected = this.#deps.isConnected();
      const waitMs = connected ? this.#options.againMs : retryMs;
      retryMs = connected ? this.#options.minRetryMs : Math.min(retryMs * 2, this.#options.maxRetryMs);
      // Spread by a fifth, so that nodes that started together do not ask together for ever.
      await this.#sleep(waitMs * (0.8 + 0.4 * Math.random()));
    }
  }

  async #round(): Promise<void> {
    const failed: Failed[] = [];
    const resolved = await Promise.all(
      this.#options.bootstrap.map((address) =>
        this.#addressesOf(address).catch((error: unknown) => {
          this.#deps.logger.debug({ err: error, host: address.host }, "a bootstrap name does not resolve");
          failed.push({ address: `${address.host}:${address.port}`, reason: "unknown-name" });
          return [];
        }),
      ),
    );
    const found = [...resolved.flat(), ...(await this.#askDirectory(failed))];
    const listed = new Set(found.map((address) => address.toString()));
    const limit = this.#deps.isConnected() ? MAX_DIALS_WHEN_CONNECTED : MAX_DIALS;
    const candidates = [...shuffle(found), ...shuffle(this.#deps.remembered())]
      .filter((address) => !this.#deps.isKnown(address))
      .slice(0, limit);
    const worker = async (): Promise<void> => {
      for (let next = candidates.shift(); next !== undefined; next = candidates.shift()) {
        if (this.#closing.signal.aborted) continue;
        const reason = await this.#dial(next);
        const address = next.toString();
        if (reason !== undefined && listed.delete(address)) failed.push({ address, reason, dialled: next });
      }
    };
    await Promise.all(Array.from({ length: Math.min(PARALLEL_DIALS, candidates.length) }, worker));
    this.#failures = failed;
  }

  async #addressesOf({ host, port }: HostPort): Promise<Multiaddr[]> {
    const found = isIP(host) === 0 ? await (this.#deps.lookup ?? systemLookup)(host) : [host];
    return found.map((address) => tcpMultiaddr({ host: address, port }));
  }

  async #askDirectory(failed: Failed[]): Promise<readonly Multiaddr[]> {
    const { directory, logger } = this.#deps;
    if (directory === undefined) return [];
    const now = performance.now();
    const everyMs = this.#deps.isConnected() ? DIRECTORY_MS.connected : DIRECTORY_MS.alone;
    if (now - this.#directoryAskedAt >= everyMs) {
      this.#directoryAskedAt = now;
      try {
        this.#inDirectory = (await directory.find(this.#closing.signal)).map(tcpMultiaddr);
      } catch (error) {
        logger.debug({ err: error, directory: directory.name }, "the list of nodes cannot be had");
        this.#inDirectory = undefined;
      }
    }
    if (this.#inDirectory === undefined) failed.push({ address: directory.name, reason: "no-list" });
    return this.#inDirectory ?? [];
  }

  async #dial(address: Multiaddr): Promise<DialFailure | undefined> {
    const deadline = linkSignal([this.#closing.signal], DIAL_TIMEOUT_MS);
    try {
      await this.#deps.dial(address, deadline.signal);
      return undefined;
    } catch (error) {
      this.#deps.logger.debug(
        { err: error, address: address.toString() },
        "a bootstrap address does not answer",
      );
      return failureOf(error, deadline.signal);
    } finally {
      deadline.release();
    }
  }

  async #sleep(ms: number): Promise<void> {
    if (this.#closing.signal.aborted) return;
    await new Promise<void>((resolveSleep) => {
      const timer = setTimeout(resolveSleep, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolveSleep();
      };
    });
    this.#wake = undefined;
  }
}
