import { setTimeout as delay } from "node:timers/promises";
import { linkSignal, raceSignal, SourceError, type LinkedSignal, type Logger } from "@p2p-mirror/shared";
import { ContainerdClient, type ContainerdEvent } from "@p2p-mirror/shared/grpc";
import type { ContainerdMetrics } from "./metrics.ts";

export interface ConnectionOptions {
  readonly socket: string;
  readonly namespace: string;
  /** Milliseconds of a unary call. */
  readonly timeoutMs: number;
  /** Milliseconds before the first and the slowest retry; doubled in between, less up to half at random. */
  readonly backoffMs: { readonly first: number; readonly most: number };
}

export interface ConnectionDeps {
  readonly logger: Logger;
  readonly metrics: ContainerdMetrics;
  /** The connection stands and events are coming in. When this rejects, the connection counts as failed. */
  onConnected(client: ContainerdClient, signal: AbortSignal): Promise<void>;
  /** Must not throw. */
  onEvent(event: ContainerdEvent): void;
}

/** A connection that held this long starts with the first backoff again when it is lost. */
const STABLE_MS = 5_000;

/** Keeps one connection to a containerd that may be away at any time, and its event stream. */
export class ContainerdConnection {
  readonly #options: ConnectionOptions;
  readonly #deps: ConnectionDeps;
  readonly #closing = new AbortController();
  #client: ContainerdClient | undefined;
  #link: LinkedSignal | undefined;
  #running: Promise<void> | undefined;
  #complained = false;

  constructor(options: ConnectionOptions, deps: ConnectionDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Undefined while containerd is away. */
  get client(): ContainerdClient | undefined {
    return this.#client;
  }

  /**
   * Resolves when the first attempt has succeeded or failed, or after the timeout of one call (a containerd that hangs
   * must not keep the daemon from starting); goes on in the background until `close`.
   */
  async start(signal: AbortSignal): Promise<void> {
    const tried = new Promise<void>((resolve) => {
      this.#running = this.#run(resolve);
    });
    using patience = linkSignal([signal], this.#options.timeoutMs);
    await raceSignal(tried, patience.signal).catch(() => undefined);
  }

  /** A call went wrong in a way that says something about the connection: make a new one. */
  suspect(client: ContainerdClient, error: unknown): void {
    const lost =
      error instanceof SourceError && (error.code === "UNREACHABLE" || error.code === "NO_FIRST_BYTE");
    if (lost && client === this.#client) this.#link?.abort(error);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  async #run(onFirstAttempt: () => void): Promise<void> {
    const { first, most } = this.#options.backoffMs;
    const { signal } = this.#closing;
    let backoff = first;
    while (!signal.aborted) {
      const started = Date.now();
      try {
        await this.#connectOnce(onFirstAttempt);
      } catch (error) {
        if (!signal.aborted) this.#complain(error);
      }
      onFirstAttempt();
      if (Date.now() - started > STABLE_MS) backoff = first;
      await delay(backoff * (1 - Math.random() / 2), undefined, { signal }).catch(() => undefined);
      backoff = Math.min(most, backoff * 2);
    }
  }

  /** Returns never but by an error: the connection is lost, or could not be made. */
  async #connectOnce(onConnected: () => void): Promise<never> {
    const { metrics, logger } = this.#deps;
    const { socket, namespace, timeoutMs } = this.#options;
    const client = new ContainerdClient({ socket, namespace, timeoutMs });
    const link = linkSignal([this.#closing.signal]);
    let events: Promise<never> | undefined;
    try {
      const version = await client.version({ signal: link.signal });
      this.#client = client;
      this.#link = link;
      metrics.connects.inc();
      metrics.up.set(1);
      events = this.#followEvents(client, link.signal);
      await Promise.race([this.#deps.onConnected(client, link.signal), events]);
      logger.info({ socket, version }, "containerd connected");
      this.#complained = false;
      onConnected();
      return await events;
    } finally {
      this.#client = undefined;
      this.#link = undefined;
      metrics.up.set(0);
      link.abort();
      link.release();
      await events?.catch(() => undefined);
      client.close();
    }
  }

  async #followEvents(client: ContainerdClient, signal: AbortSignal): Promise<never> {
    for await (const event of client.events.subscribe({ signal })) this.#deps.onEvent(event);
    throw new SourceError("CUT", "containerd", { message: "the event stream ended" });
  }

  /** One line when it goes away, not one for each attempt. */
  #complain(error: unknown): void {
    const fields = { socket: this.#options.socket, err: error };
    if (this.#complained) this.#deps.logger.debug(fields, "containerd is still not reachable");
    else this.#deps.logger.warn(fields, "containerd is not reachable; going on without it, trying again");
    this.#complained = true;
  }
}
