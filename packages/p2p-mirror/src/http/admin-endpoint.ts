import { fastify, type FastifyInstance } from "fastify";
import type { Registry } from "prom-client";
import { systemClock, type Clock, type Logger, type Service } from "@p2p-mirror/shared";
import { addressOf, listenAt, urlOf, type ListenAddress } from "./listen.ts";
import { StatusFeed } from "./status-feed.ts";
import { addStatusPage } from "./status-page.ts";
import { WITHOUT_SCHEMAS } from "./without-schemas.ts";

export interface AdminEndpointOptions {
  /** Default 127.0.0.1:24223: metrics and status are for this node only, unless somebody decides otherwise. */
  readonly listen?: ListenAddress;
}

export interface Readiness {
  readonly ready: boolean;
  /** Why not, in words. */
  readonly reasons: readonly string[];
}

export interface AdminEndpointDeps {
  readonly registry: Registry;
  readonly ready: () => boolean | Readiness;
  /** What `/status` shows, as JSON. */
  readonly status: () => Promise<unknown>;
  /** Folder of the status page; undefined: none is served. */
  readonly page?: URL | undefined;
  readonly logger: Logger;
  /** Default: that of the system. */
  readonly clock?: Clock;
}

/** `/livez`, `/readyz`, `/metrics`, `/status` and the page that shows it. Probes are not logged. */
export class AdminEndpoint implements Service {
  readonly name = "admin endpoint";
  readonly #listen: ListenAddress;
  readonly #app: FastifyInstance;
  readonly #feed: StatusFeed;

  constructor(options: AdminEndpointOptions, deps: AdminEndpointDeps) {
    this.#listen = options.listen ?? { host: "127.0.0.1", port: 24223 };
    this.#feed = new StatusFeed({ clock: systemClock, ...deps });
    this.#app = createApp(deps, this.#feed);
  }

  /** @throws before `start` */
  get address(): ListenAddress {
    return addressOf(this.#app.server);
  }

  /** `http://host:port` */
  get url(): string {
    return urlOf(this.address);
  }

  /** @throws ConfigError when nothing can listen at the address. */
  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await listenAt(this.#app, "admin-listen", this.#listen);
  }

  async close(): Promise<void> {
    await this.#feed.close();
    await this.#app.close();
  }
}

export const createAdminEndpoint = (options: AdminEndpointOptions, deps: AdminEndpointDeps): AdminEndpoint =>
  new AdminEndpoint(options, deps);

/** Probes, a scraper or two, and a person: whoever holds more open takes descriptors that pulls need. */
const MAX_CONNECTIONS = 128;

function createApp(deps: AdminEndpointDeps, feed: StatusFeed): FastifyInstance {
  const app = fastify({
    ...WITHOUT_SCHEMAS,
    logger: false,
    // Nothing here takes long: at the end open connections (a scraper's keep-alive) are simply closed.
    forceCloseConnections: true,
    keepAliveTimeout: 5_000,
    requestTimeout: 10_000,
    bodyLimit: 1024,
  });
  app.server.maxConnections = MAX_CONNECTIONS;
  app.get("/livez", async (_request, reply) => reply.type("text/plain").send("ok\n"));
  app.get("/readyz", async (_request, reply) => {
    const answer = deps.ready();
    const readiness = typeof answer === "boolean" ? { ready: answer, reasons: [] } : answer;
    return reply.code(readiness.ready ? 200 : 503).send(readiness);
  });
  app.get("/metrics", async (_request, reply) =>
    reply.type(deps.registry.contentType).send(await deps.registry.metrics()),
  );
  app.get("/status", async (_request, reply) =>
    reply.type("application/json").send(JSON.stringify(await deps.status(), undefined, 2)),
  );
  if (deps.page !== undefined) addStatusPage(app, { folder: deps.page, feed });
  app.setNotFoundHandler((_request, reply) => reply.code(404).send({ error: "not found" }));
  app.setErrorHandler((error, request, reply) => {
    const status =
      error instanceof Error && "statusCode" in error && typeof error.statusCode === "number"
        ? error.statusCode
        : 500;
    if (status < 500) return reply.code(status).send({ error: "bad request" });
    deps.logger.error({ path: request.url.slice(0, 100), err: error }, "admin request failed");
    return reply.code(500).send({ error: "internal error" });
  });
  return app;
}
