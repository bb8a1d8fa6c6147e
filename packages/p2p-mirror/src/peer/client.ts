import { performance } from "node:perf_hooks";
import {
  InvalidInputError,
  NotFoundError,
  SourceError,
  type ByteRange,
  type Digest,
  type Logger,
  type Service,
  type BlockPool,
  type RateLimit,
} from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import {
  BusyError,
  type PeerBlob,
  type PeerClient,
  type PeerOptions,
  type PeerPiece,
  type WantedPiece,
} from "../transfer/peer-client.ts";
import { Connections, type Connection } from "./connections.ts";
import type { PeerClientTls } from "./dial.ts";
import { ClosedEarlyError, Exchange, type Answer } from "./exchange.ts";
import type { PeerMetrics } from "./metrics.ts";
import {
  blobPath,
  HASH_HEADER,
  LOAD_HEADER,
  MAX_BUSY_BYTES,
  MAX_RECORD_BYTES,
  parseBusy,
  parseHash,
  parseLoad,
  piecePath,
  recordPath,
} from "./protocol.ts";
import { Trial } from "./trial.ts";
import type { PeerQuestion } from "./verdict.ts";

/** All times in milliseconds, all sizes in bytes. */
export interface PeerClientOptions {
  /** For TCP; the TLS handshake may take twice as long; default 1,000. */
  readonly dialTimeoutMs?: number;
  /** Default of `PeerOptions.firstByteMs`; 3,000. */
  readonly firstByteMs?: number;
  /** Without a single byte for this long even the last source is given up; default 30,000. */
  readonly stallMs?: number;
  /** What counts as progress within `PeerOptions.stallMs`; default 16 KiB. */
  readonly minProgressBytes?: number;
  /** Connections to one peer; default 6. Further requests wait for one. */
  readonly connectionsPerPeer?: number;
  /** An unused connection is closed after; default 30,000. */
  readonly idleMs?: number;
  /** Peers with a pool and a breaker; default 256. */
  readonly maxPeers?: number;
  /** How long a peer is left alone after a dial without an answer, or two faults in a row; default 5,000. */
  readonly breakerOpenMs?: number;
  /** The same after a connection that was refused or reset; default 1,000. */
  readonly breakerRefusedMs?: number;
  /**
   * Buffered ahead of the reader of a body; default 512 KiB. Measured CPU per GB: 1.02 s with 64 KiB (the connection is
   * paused all the time), 0.76 s with 512 KiB, 0.73 s with 2 MiB.
   */
  readonly highWaterMark?: number;
}

export interface PeerClientDeps {
  readonly tls: PeerClientTls;
  readonly logger: Logger;
  readonly metrics: PeerMetrics;
  /** Memory for what comes in. */
  readonly blocks: BlockPool;
  /** Of all bodies from peers together. */
  readonly limit?: RateLimit | undefined;
  /** Monotonic milliseconds, for the breakers. */
  readonly now?: () => number;
}

const DEFAULTS: Required<PeerClientOptions> = {
  dialTimeoutMs: 1000,
  firstByteMs: 3000,
  stallMs: 30_000,
  minProgressBytes: 16 * 1024,
  connectionsPerPeer: 6,
  idleMs: 30_000,
  maxPeers: 256,
  breakerOpenMs: 5000,
  breakerRefusedMs: 1000,
  highWaterMark: 512 * 1024,
};

/** The peer data plane as a client; one for all peers. */
export function createPeerClient(options: PeerClientOptions, deps: PeerClientDeps): HttpsPeerClient {
  return new HttpsPeerClient({ ...DEFAULTS, ...options }, deps);
}

export class HttpsPeerClient implements PeerClient, Service {
  readonly name = "peer-client";
  readonly #options: Required<PeerClientOptions>;
  readonly #metrics: PeerMetrics;
  readonly #connections: Connections;
  readonly #pool: BlockPool;
  readonly #limit: RateLimit | undefined;

  constructor(
    options: Required<PeerClientOptions>,
    { tls, logger, metrics, blocks, limit, now }: PeerClientDeps,
  ) {
    this.#options = options;
    this.#metrics = metrics;
    this.#pool = blocks;
    this.#limit = limit;
    this.#connections = new Connections(
      {
        dialTimeoutMs: options.dialTimeoutMs,
        perPeer: options.connectionsPerPeer,
        idleMs: options.idleMs,
        peers: options.maxPeers,
        breakerOpenMs: options.breakerOpenMs,
        breakerRefusedMs: options.breakerRefusedMs,
        breakerFaults: 2,
      },
      {
        tls,
        pool: this.#pool,
        now: now ?? (() => performance.now()),
        onDialFailure: (peer, reason) => {
          metrics.dialFailures.inc({ reason });
          if (reason === "wrong-identity")
            logger.warn({ peer }, "another node answers at the address of a peer");
        },
        onTrip: (peer) => {
          metrics.breakerTrips.inc();
          logger.debug({ peer }, "peer is left alone for a while");
        },
      },
    );
  }

  async start(): Promise<void> {
    // Connections are opened when they are needed.
  }

  /** Whether a peer is left alone after failures now. */
  isBroken(peer: Peer): boolean {
    return this.#connections.isBroken(peer);
  }

  /** As `PeerStatus.faults`. */
  faultsOf(peer: Peer): number {
    return this.#connections.faultsOf(peer);
  }

  /** Ends all connections; what is still under way fails with `CUT`. */
  close(): Promise<void> {
    return this.#connections.close();
  }

  async blob(
    peer: Peer,
    digest: Digest,
    range: ByteRange | undefined,
    options: PeerOptions = {},
  ): Promise<PeerBlob> {
    if (range !== undefined && !(range.start >= 0 && range.end > range.start)) {
      throw new InvalidInputError("RANGE_INVALID", "range", `${range.start}-${range.end}`);
    }
    const { answer, size } = await this.#ask(peer, { kind: "blob", path: blobPath(digest), range }, options);
    return { size, body: answer.body, load: loadOf(answer) };
  }

  async piece(
    peer: Peer,
    digest: Digest,
    wanted: WantedPiece,
    options: PeerOptions = {},
  ): Promise<PeerPiece> {
    const { size, piece, length } = wanted;
    const question: PeerQuestion = { kind: "piece", path: piecePath(digest, size, piece), length };
    const { answer } = await this.#ask(peer, question, options);
    const hash = parseHash(answer.head.headers[HASH_HEADER], piece);
    return { body: answer.body, hash, load: loadOf(answer) };
  }

  async stat(peer: Peer, digest: Digest, options: PeerOptions = {}): Promise<number> {
    const { answer, size } = await this.#ask(peer, { kind: "stat", path: blobPath(digest) }, options);
    answer.body.discard(0);
    return size;
  }

  async record(peer: Peer, key: string, options: PeerOptions = {}): Promise<string> {
    const { answer } = await this.#ask(peer, { kind: "record", path: recordPath(key) }, options);
    // The length was judged already; the check here is for the type.
    return (await answer.body.text(MAX_RECORD_BYTES)) ?? "";
  }

  /** Resolves only with exactly what was asked for. */
  async #ask(
    peer: Peer,
    question: PeerQuestion,
    options: PeerOptions,
  ): Promise<{ answer: Answer; size: number }> {
    const connection = this.#connections.to(peer);
    const permit = connection.breaker.admit();
    if (permit === undefined) {
      this.#metrics.fetched.inc({ kind: question.kind, outcome: "breaker-open" });
      throw new SourceError("UNREACHABLE", peer.id, { message: "left alone after failures" });
    }
    const trial = new Trial(peer.id, question, { permit, metrics: this.#metrics });
    const answer = await this.#exchange(peer, question, options, connection, trial);
    connection.answered = true;
    const verdict = trial.verdict;
    if (verdict.kind === "fine") return { answer, size: verdict.size };
    if (verdict.kind === "busy") {
      const text = await answer.body.text(MAX_BUSY_BYTES).catch(() => undefined);
      options.signal?.throwIfAborted();
      throw new BusyError(peer.id, parseBusy(text ?? ""));
    }
    answer.body.discard(MAX_BUSY_BYTES);
    if (verdict.kind === "wrong") throw verdict.error;
    throw new NotFoundError("BLOB_UNKNOWN", `${question.path} at ${peer.id}`);
  }

  async #exchange(
    peer: Peer,
    question: PeerQuestion,
    options: PeerOptions,
    connection: Connection,
    trial: Trial,
  ): Promise<Answer> {
    // A connection that was kept may have been closed by the peer in this very moment; a second one cannot be old.
    let retries = connection.answered ? 1 : 0;
    for (;;) {
      try {
        return await this.#exchangeOnce(peer, question, options, connection, trial);
      } catch (error) {
        if (error instanceof ClosedEarlyError && retries > 0) {
          retries -= 1;
          continue;
        }
        if (options.signal?.aborted === true && error === options.signal.reason) trial.abandoned();
        else trial.failedBeforeHead(error);
        throw error;
      }
    }
  }

  #exchangeOnce(
    peer: Peer,
    question: PeerQuestion,
    options: PeerOptions,
    connection: Connection,
    trial: Trial,
  ): Promise<Answer> {
    const { dialTimeoutMs, firstByteMs, stallMs, minProgressBytes, highWaterMark } = this.#options;
    const { range } = question;
    const answerMs = options.firstByteMs ?? firstByteMs;
    const exchange = new Exchange(
      {
        peer: peer.id,
        method: question.kind === "stat" ? "HEAD" : "GET",
        path: question.path,
        range: range === undefined ? undefined : `bytes=${range.start}-${range.end - 1}`,
        signal: options.signal,
        queueMs: dialTimeoutMs + answerMs,
        firstByteMs: answerMs,
        stallMs: options.stallMs ?? stallMs,
        minBytes: options.stallMs === undefined ? 1 : minProgressBytes,
        highWaterMark,
        pool: this.#pool,
        limit: this.#limit,
      },
      trial,
    );
    return exchange.run(connection.pool);
  }
}

const loadOf = (answer: Answer): number | undefined => {
  const header = answer.head.headers[LOAD_HEADER];
  return typeof header === "string" ? parseLoad(header) : undefined;
};
