import { randomBytes } from "node:crypto";
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { Service } from "@p2p-mirror/shared";
import type { Answer } from "./answer.ts";
import { Connections, type Connection } from "./connections.ts";
import { MAX_TARGET_LENGTH } from "./distribution-path.ts";
import { Draining, Exchange } from "./exchange.ts";
import { addressOf, listenAt, urlOf, type ListenAddress } from "./listen.ts";
import { OciError } from "./oci-errors.ts";
import { refuseWhatIsNoPull, RegistryHandler, type RegistryHandlerDeps } from "./registry-handler.ts";
import {
  answerClientError,
  createRegistryServer,
  RECEIVE_LIMITS,
  type ReceiveLimits,
} from "./registry-server.ts";
import { WITHOUT_SCHEMAS } from "./without-schemas.ts";

export interface RegistryEndpointOptions {
  readonly listen: ListenAddress;
  /** Milliseconds for which `close` lets readers go on before it cuts them. Default 10 s. */
  readonly drainMs?: number;
  /**
   * Milliseconds to the beginning of an answer, then it is a decline. Default 4 min: a backstop, under the 5 minutes without a
   * byte after which containerd gives a pull up. What is fetched has watches of its own.
   */
  readonly firstByteMs?: number;
  /**
   * Milliseconds after which a blob that has a source is answered with its headers, though its first byte is still to come.
   * Default 20 s: containerd 2.4 turns to upstream after 30 s.
   */
  readonly headersMs?: number;
  /** Milliseconds for which the source of a body may give nothing. Default 4 min, as for its beginning. */
  readonly stallMs?: number;
  /** Milliseconds for which resumes of a cut digest are declined. Default 30 s. */
  readonly cutMemoryMs?: number;
  /** Default: 10 s for the headers, 20 s for a whole request. */
  readonly receive?: ReceiveLimits;
}

export type RegistryEndpointDeps = RegistryHandlerDeps;

const SILENCE_MS = 240_000;
/** Pipelined requests of one connection that may wait; no client of the field pipelines at all. */
const MAX_PIPELINED = 32;
/** After the readers were cut, for the last bytes and FINs to leave. */
const CLOSE_GRACE_MS = 1_000;

declare module "fastify" {
  interface FastifyRequest {
    exchange: Exchange | undefined;
  }
}

/** The OCI registry that containerd and other clients of this node talk to (DESIGN: the registry endpoint). */
export class RegistryEndpoint implements Service {
  readonly name = "registry endpoint";
  readonly #options: Required<RegistryEndpointOptions>;
  readonly #deps: RegistryEndpointDeps;
  readonly #handler: RegistryHandler;
  readonly #connections = new Connections();
  readonly #exchanges = new Set<Exchange>();
  readonly #app: FastifyInstance;
  /** Makes request ids of several runs differ in one log. */
  readonly #instance = randomBytes(3).toString("hex");
  #requests = 0;
  #draining = false;

  constructor(options: RegistryEndpointOptions, deps: RegistryEndpointDeps) {
    this.#options = {
      drainMs: 10_000,
      firstByteMs: SILENCE_MS,
      headersMs: 20_000,
      stallMs: SILENCE_MS,
      cutMemoryMs: 30_000,
      receive: RECEIVE_LIMITS,
      ...options,
    };
    this.#deps = deps;
    this.#handler = new RegistryHandler(this.#options, deps);
    this.#app = this.#createApp();
  }

  /** @throws before `start` */
  get address(): ListenAddress {
    return addressOf(this.#app.server);
  }

  /** Who came so far. */
  get arrivals(): { readonly requests: number; readonly canaries: readonly string[] } {
    return this.#handler.arrivals;
  }

  /** `http://host:port` */
  get url(): string {
    return urlOf(this.address);
  }

  /** @throws ConfigError when nothing can listen at the address. */
  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await listenAt(this.#app, "registry-listen", this.#options.listen);
  }

  /** Stops accepting, lets readers finish for the drain time, then ends them with FIN. */
  async close(): Promise<void> {
    this.#draining = true;
    const closed = this.#app.close();
    this.#connections.closeIdle();
    await this.#settled(this.#options.drainMs);
    for (const exchange of this.#exchanges) exchange.abort(new Draining("closing"));
    await this.#settled(CLOSE_GRACE_MS);
    this.#connections.destroyAll();
    await closed;
  }

  /** Until no request is left, or the time is over. */
  async #settled(timeoutMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    const all = Promise.all([...this.#exchanges].map((exchange) => exchange.over));
    await Promise.race([all, timeout]);
    clearTimeout(timer);
  }

  #createApp(): FastifyInstance {
    const app = fastify({
      ...WITHOUT_SCHEMAS,
      serverFactory: (handler) => {
        const server = createRegistryServer(handler, this.#options.receive);
        this.#connections.watch(server);
        return server;
      },
      logger: false,
      exposeHeadRoutes: false,
      // The idle are closed by `closeIdle`, the others drained; a 503 would only add a status.
      forceCloseConnections: false,
      return503OnClosing: false,
      routerOptions: { maxParamLength: MAX_TARGET_LENGTH * 4 },
      clientErrorHandler: (error, socket) => answerClientError(error, this.#connections.of(socket)),
      frameworkErrors: (error, request, reply) => {
        // The router's own refusals (percent-encoding that is none) come before any hook.
        void this.#begin(request, reply);
        void this.#fail(
          new OciError(400, "NAME_INVALID", "the URL is not valid", { cause: error }),
          request,
          reply,
        );
      },
    });
    app.decorateRequest("exchange", undefined);
    app.addHook("onRequest", async (request, reply) => {
      const turn = this.#begin(request, reply);
      if (turn !== undefined) await turn;
      if (this.#connections.of(request.raw.socket).isCut) return reply.hijack();
      exchangeOf(request).begin();
      refuseWhatIsNoPull(request.raw);
      return undefined;
    });
    const handler = (request: FastifyRequest, reply: FastifyReply) => this.#handle(request, reply);
    app.route({ method: ["GET", "HEAD"], url: "/*", handler });
    app.setNotFoundHandler(handler);
    app.setErrorHandler((error, request, reply) => this.#fail(error, request, reply));
    return app;
  }

  /** Takes a request in; gives what it has to wait for, if anything. */
  #begin(request: FastifyRequest, reply: FastifyReply): Promise<void> | undefined {
    const connection = this.#connections.of(request.raw.socket);
    const { logger, metrics } = this.#deps;
    const exchange = new Exchange({
      id: `${this.#instance}-${(++this.#requests).toString(36)}`,
      request: request.raw,
      response: reply.raw,
      firstByteMs: this.#options.firstByteMs,
      metrics,
      logger,
    });
    request.exchange = exchange;
    this.#exchanges.add(exchange);
    const turn = connection.enter(exchange);
    void this.#whenOver(exchange, connection);
    if (connection.pending > MAX_PIPELINED) connection.cut();
    return turn;
  }

  async #whenOver(exchange: Exchange, connection: Connection): Promise<void> {
    await exchange.over;
    this.#exchanges.delete(exchange);
    if (this.#draining && connection.pending === 0) connection.cut(0);
  }

  async #handle(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const exchange = exchangeOf(request);
    const answer = await this.#handler.answer(exchange, {
      takeOver: () => this.#takeOver(reply),
      cut: () => this.#connections.of(request.raw.socket).cut(),
    });
    return answer === undefined ? reply : this.#send(reply, answer);
  }

  #takeOver(reply: FastifyReply): void {
    reply.hijack();
    if (this.#draining) reply.raw.shouldKeepAlive = false;
  }

  #send(reply: FastifyReply, answer: Answer): FastifyReply {
    if (this.#draining) reply.raw.shouldKeepAlive = false;
    return reply
      .code(answer.status)
      .headers({ "docker-distribution-api-version": "registry/2.0", ...answer.headers })
      .send(answer.body ?? undefined);
  }

  /** Before the headers every failure becomes an answer, unless nobody is there to read it. */
  #fail(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
    const exchange = exchangeOf(request);
    if (!exchange.clientGone) return this.#send(reply, this.#handler.failure(exchange, error));
    reply.hijack();
    return reply;
  }
}

export const createRegistryEndpoint = (
  options: RegistryEndpointOptions,
  deps: RegistryEndpointDeps,
): RegistryEndpoint => new RegistryEndpoint(options, deps);

function exchangeOf(request: FastifyRequest): Exchange {
  if (request.exchange === undefined) throw new Error("a request without an exchange");
  return request.exchange;
}
