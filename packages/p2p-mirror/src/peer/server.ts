import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { TlsOptions } from "node:tls";
import {
  linkSignal,
  listenError,
  type Digest,
  type Logger,
  type RateLimit,
  type Service,
} from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { LocalContent } from "../transfer/content.ts";
import type { PeerMetrics, ServedOutcome } from "./metrics.ts";
import {
  formatLoad,
  LOAD_HEADER,
  MAX_HEADER_BYTES,
  MAX_RECORD_BYTES,
  parsePeerPath,
  PIECE_PREFIX,
  RECORDS_PATH,
} from "./protocol.ts";
import { serveBlob } from "./serve-blob.ts";
import { answer, answerBusy, type PeerCall } from "./serve-body.ts";
import { servePiece } from "./serve-piece.ts";
import { ServedSockets } from "./served-sockets.ts";
import { UploadSlots } from "./upload-slots.ts";

/** All times in milliseconds. */
export interface PeerServerOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** Bodies sent at once; default 16, fewer with a limit: one for each MiB/s of it. */
  readonly uploadSlots?: number;
  /** A reader that does not take 256 KiB in this time is cut; default 30,000. */
  readonly readerStallMs?: number;
  /** How long `close` lets bodies finish before it cuts them; default 10,000. */
  readonly drainMs?: number;
  /**
   * Connections at once, default 512: for one more an idle one is closed, or its requests are answered "busy". Twice as
   * many, those in their handshake included, and new ones are closed right after the accept.
   */
  readonly maxConnections?: number;
  /**
   * How long a body may wait for its store (which hashes a large blob before it gives out a part) until the answer is
   * "busy"; default 1,000. Shorter than a peer waits for the first byte: hashing is nobody's fault.
   */
  readonly openMs?: number;
}

/** What this side needs of the cluster's TLS (trust/peer-tls.ts has it all). */
export interface PeerServerTls {
  /** Options under which only nodes of the cluster get through the handshake. */
  serverOptions(): TlsOptions;
  /** The peer ID of the other side of a socket whose handshake is over. */
  peerIdOf(socket: Socket): string | undefined;
}

export interface PeerServerDeps {
  readonly tls: PeerServerTls;
  readonly local: LocalContent;
  /** Other nodes that hold it, for a busy answer; nothing when none are known without asking around. */
  readonly others: (digest: Digest) => readonly Peer[];
  /** A peer got the whole of a blob from here: it holds it now, too. */
  readonly handedOut?: (digest: Digest, peerId: string) => void;
  /** Of all bodies to peers together. */
  readonly limit?: RateLimit | undefined;
  readonly logger: Logger;
  readonly metrics: PeerMetrics;
}

export interface PeerServer extends Service {
  /** Known after `start`. */
  readonly address: AddressInfo;
  /** Share of the upload slots that are busy, 0 to 1. */
  readonly load: number;
}

/** The peer data plane as a server. */
export function createPeerServer(options: PeerServerOptions, deps: PeerServerDeps): PeerServer {
  return new HttpsPeerServer(
    {
      uploadSlots: slotsOf(deps.limit),
      readerStallMs: 30_000,
      drainMs: 10_000,
      maxConnections: 512,
      openMs: 1_000,
      ...options,
    },
    deps,
  );
}

/** A body that crawls is of less use than the advice to ask somebody else. */
const BYTES_A_SLOT = 1024 * 1024;
const MAX_SLOTS = 16;
const slotsOf = (limit: RateLimit | undefined): number =>
  limit === undefined
    ? MAX_SLOTS
    : Math.max(1, Math.min(MAX_SLOTS, Math.floor(limit.bytesPerSecond / BYTES_A_SLOT)));

class HttpsPeerServer implements PeerServer {
  readonly name = "peer-server";
  readonly #options: Required<PeerServerOptions>;
  readonly #deps: PeerServerDeps;
  readonly #slots: UploadSlots;
  readonly #sockets: ServedSockets;
  readonly #server: Server;
  readonly #peers = new WeakMap<object, string>();
  readonly #calls = new Set<Promise<void>>();
  #draining = false;
  #cut = false;

  constructor(options: Required<PeerServerOptions>, deps: PeerServerDeps) {
    this.#options = options;
    this.#deps = deps;
    const { metrics, tls } = deps;
    this.#slots = new UploadSlots(options.uploadSlots, (busy) =>
      metrics.uploadSlots.set({ state: "busy" }, busy),
    );
    metrics.uploadSlots.set({ state: "busy" }, 0);
    metrics.uploadSlots.set({ state: "all" }, options.uploadSlots);
    this.#server = createServer({
      ...tls.serverOptions(),
      ALPNProtocols: ["http/1.1"],
      noDelay: true,
      maxHeaderSize: MAX_HEADER_BYTES,
      handshakeTimeout: 5000,
      headersTimeout: 5000,
      requestTimeout: 10_000,
      // Longer than a client keeps an unused connection: the side that sends requests should be the one that closes.
      keepAliveTimeout: 65_000,
    });
    this.#sockets = new ServedSockets(options.maxConnections);
    this.#server.maxConnections = 2 * options.maxConnections;
    this.#server.on("secureConnection", (socket) => {
      const peer = tls.peerIdOf(socket);
      if (peer === undefined) return this.#reject(socket);
      this.#peers.set(socket, peer);
      this.#sockets.add(socket);
    });
    this.#server.on("tlsClientError", (_, socket) => this.#reject(socket));
    this.#server.on("clientError", (_, socket) => socket.destroy());
    this.#server.on("request", (request, response) => {
      const call = this.#handle(request, response).finally(() => this.#calls.delete(call));
      this.#calls.add(call);
    });
  }

  get load(): number {
    return this.#slots.busy / this.#slots.all;
  }

  get address(): AddressInfo {
    const address = this.#server.address();
    if (address === null || typeof address === "string")
      throw new Error("the peer data plane is not listening");
    return address;
  }

  /** @throws ConfigError when nothing can listen at the address. */
  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { host, port } = this.#options.listen;
    await new Promise<void>((resolve, reject) => {
      const fail = (error: unknown): void => reject(listenError(error, "peer-listen", { host, port }));
      this.#server.once("error", fail).listen({ host, port }, () => {
        this.#server.off("error", fail);
        // An accept that fails (no file descriptor left) must not end the process.
        this.#server.on("error", (error) => this.#deps.logger.warn({ err: error }, "peer data plane"));
        resolve();
      });
    });
  }

  /** Takes no more, lets bodies finish for `drainMs`, then cuts them. */
  async close(): Promise<void> {
    this.#draining = true;
    const closed = new Promise<void>((resolve) => void this.#server.close(() => resolve()));
    using drain = linkSignal([], this.#options.drainMs);
    const late = new Promise<void>((resolve) => {
      drain.signal.addEventListener("abort", () => resolve(), { once: true });
    });
    await Promise.race([Promise.all(this.#calls), late]);
    this.#cut = true;
    this.#server.closeAllConnections();
    await Promise.all(this.#calls);
    await closed;
  }

  #reject(socket: { destroy(): unknown }): void {
    this.#deps.metrics.rejectedSockets.inc();
    socket.destroy();
  }

  /** Never rejects. */
  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { logger, metrics } = this.#deps;
    const peer = this.#peers.get(request.socket);
    if (peer === undefined) return void request.socket.destroy();
    response.sendDate = false;
    response.setHeader(LOAD_HEADER, formatLoad(this.#slots.busy, this.#slots.all));
    this.#sockets.asked(request.socket);
    if (this.#draining || this.#sockets.isBeyond(request.socket)) response.setHeader("connection", "close");
    const abort = new AbortController();
    const onClose = (): void => abort.abort();
    response.on("close", onClose).on("error", () => undefined);
    const call: PeerCall = { peer, request, response, signal: abort.signal };
    let outcome: ServedOutcome;
    try {
      outcome = await this.#answer(call);
    } catch (error) {
      outcome = response.closed ? "left" : "cut";
      if (!response.closed) logger.warn({ err: error, peer, url: request.url }, "a peer's request failed");
      if (response.headersSent) response.socket?.destroySoon();
      else answer(response, 500);
    } finally {
      response.off("close", onClose);
      this.#sockets.answered(request.socket);
    }
    if (this.#cut && outcome === "left") outcome = "drained";
    metrics.served.inc({ kind: kindOf(request), outcome });
    logger.debug({ peer, url: request.url, range: request.headers.range, outcome }, "peer served");
  }

  async #answer(call: PeerCall): Promise<ServedOutcome> {
    const { request, response } = call;
    const refuse = (status: number): ServedOutcome => {
      answer(response, status);
      return "refused";
    };
    const hasHead = request.url?.startsWith(PIECE_PREFIX) !== true;
    if (request.method !== "GET" && !(request.method === "HEAD" && hasHead)) {
      response.setHeader("allow", hasHead ? "GET, HEAD" : "GET");
      return refuse(405);
    }
    if (
      request.headers["content-length"] !== undefined ||
      request.headers["transfer-encoding"] !== undefined
    ) {
      response.setHeader("connection", "close");
      return refuse(400);
    }
    const asked = parsePeerPath(request.url ?? "");
    if (asked.kind === "malformed") return refuse(400);
    if (asked.kind === "unknown") return refuse(501);
    if (this.#draining || this.#sockets.isBeyond(request.socket)) {
      return answerBusy(call, asked.kind === "record" ? [] : this.#deps.others(asked.digest));
    }
    if (asked.kind === "record") return this.#serveRecord(call, asked.key);
    const { readerStallMs, openMs } = this.#options;
    const deps = { ...this.#deps, slots: this.#slots, readerStallMs, openMs };
    return asked.kind === "piece" ? servePiece(call, asked, deps) : serveBlob(call, asked.digest, deps);
  }

  #serveRecord({ response }: PeerCall, key: string): ServedOutcome {
    const record = this.#deps.local.record(key);
    if (record === undefined || Buffer.byteLength(record) > MAX_RECORD_BYTES) {
      answer(response, 404);
      return "not-found";
    }
    this.#deps.limit?.charge(record.length);
    response.setHeader("content-type", "application/json");
    answer(response, 200, record);
    return "complete";
  }
}

function kindOf({ method, url = "" }: IncomingMessage): "blob" | "piece" | "stat" | "record" {
  if (method === "HEAD") return "stat";
  if (url.startsWith(PIECE_PREFIX)) return "piece";
  return url.startsWith(RECORDS_PATH) ? "record" : "blob";
}
