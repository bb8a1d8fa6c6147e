import { fastify, type FastifyInstance } from "fastify";
import type { Registry } from "prom-client";
import type { Service } from "@p2p-mirror/shared";
import { addressOf, listenAt, urlOf, type ListenAddress } from "./listen.ts";
import { WITHOUT_SCHEMAS } from "./without-schemas.ts";

/** A scraper or two. */
const MAX_CONNECTIONS = 32;

/** `/metrics` alone, for a Prometheus that is not on this node: the admin endpoint's names of images stay on loopback. */
export class MetricsEndpoint implements Service {
  readonly name = "metrics endpoint";
  readonly #listen: ListenAddress;
  readonly #app: FastifyInstance;

  constructor(listen: ListenAddress, { registry }: { readonly registry: Registry }) {
    this.#listen = listen;
    this.#app = fastify({
      ...WITHOUT_SCHEMAS,
      logger: false,
      forceCloseConnections: true,
      keepAliveTimeout: 5_000,
      requestTimeout: 10_000,
      bodyLimit: 1024,
    });
    this.#app.server.maxConnections = MAX_CONNECTIONS;
    this.#app.get("/metrics", async (_request, reply) =>
      reply.type(registry.contentType).send(await registry.metrics()),
    );
  }

  /** `http://host:port`. @throws before `start` */
  get url(): string {
    return urlOf(addressOf(this.#app.server));
  }

  /** @throws ConfigError when nothing can listen at the address. */
  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await listenAt(this.#app, "metrics-listen", this.#listen);
  }

  async close(): Promise<void> {
    await this.#app.close();
  }
}
