import { SourceError, type BlockPool } from "@p2p-mirror/shared";
import { LRUCache } from "lru-cache";
import { Pool } from "undici";
import type { Peer } from "../routing/router.ts";
import { Breaker } from "./breaker.ts";
import { createDialer, type DialFailure, type PeerClientTls } from "./dial.ts";
import { MAX_HEADER_BYTES } from "./protocol.ts";

export interface ConnectionsOptions {
  readonly dialTimeoutMs: number;
  /** Connections to one peer. */
  readonly perPeer: number;
  /** An unused connection is closed after this many milliseconds. */
  readonly idleMs: number;
  /** Peers whose connections and breakers are kept; the least recently used go first. */
  readonly peers: number;
  readonly breakerOpenMs: number;
  readonly breakerRefusedMs: number;
  readonly breakerFaults: number;
}

export interface ConnectionsDeps {
  readonly tls: PeerClientTls;
  readonly pool: BlockPool;
  readonly now: () => number;
  readonly onDialFailure: (peer: Peer, reason: DialFailure) => void;
  readonly onTrip: (peer: Peer) => void;
}

/** What this node has and knows of one peer. */
export interface Connection {
  pool: Pool;
  readonly breaker: Breaker;
  /** True once it answered: a connection that ends before an answer may then have been a kept one that went stale. */
  answered: boolean;
}

const keyOf = (peer: Peer): string => `${peer.id}@${peer.host}:${peer.port}`;
const hostOf = (peer: Peer): string => (peer.host.includes(":") ? `[${peer.host}]` : peer.host);

/** The connections to all peers: a bounded number of pools, each with a bounded number of sockets. */
export class Connections {
  readonly #options: ConnectionsOptions;
  readonly #deps: ConnectionsDeps;
  readonly #byPeer: LRUCache<string, Connection>;
  /** Pools that are no longer used for new requests, until their last request is over. */
  readonly #retiring = new Set<Pool>();

  #closed = false;

  constructor(options: ConnectionsOptions, deps: ConnectionsDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#byPeer = new LRUCache({
      max: options.peers,
      dispose: (connection) => this.#retire(connection.pool),
    });
  }

  /** @throws SourceError (`UNREACHABLE`) after `close` */
  to(peer: Peer): Connection {
    if (this.#closed) throw new SourceError("UNREACHABLE", peer.id, { message: "this node is closing" });
    const key = keyOf(peer);
    const known = this.#byPeer.get(key);
    if (known !== undefined) return known;
    const connection: Connection = {
      pool: this.#pool(peer),
      answered: false,
      breaker: new Breaker(
        {
          openMs: this.#options.breakerOpenMs,
          refusedMs: this.#options.breakerRefusedMs,
          faults: this.#options.breakerFaults,
        },
        {
          now: this.#deps.now,
          onTrip: () => {
            // Its other connections are most likely as dead, only silently so; the next try shall dial.
            this.#retire(connection.pool);
            connection.pool = this.#pool(peer);
            connection.answered = false;
            this.#deps.onTrip(peer);
          },
        },
      ),
    };
    this.#byPeer.set(key, connection);
    return connection;
  }

  /** Whether the peer's breaker is open, for the status page. */
  isBroken(peer: Peer): boolean {
    return this.#byPeer.peek(keyOf(peer))?.breaker.open === true;
  }

  /** As `PeerStatus.faults`. */
  faultsOf(peer: Peer): number {
    return this.#byPeer.peek(keyOf(peer))?.breaker.faultsInARow ?? 0;
  }

  async close(): Promise<void> {
    this.#closed = true;
    const pools = [...this.#byPeer.values()].map((connection) => connection.pool).concat(...this.#retiring);
    this.#byPeer.clear();
    await Promise.all(pools.map((pool) => pool.destroy()));
  }

  #pool(peer: Peer): Pool {
    const { dialTimeoutMs, perPeer, idleMs } = this.#options;
    return new Pool(`https://${hostOf(peer)}:${peer.port}`, {
      connections: perPeer,
      pipelining: 1,
      allowH2: false,
      connect: createDialer(peer, dialTimeoutMs, {
        tls: this.#deps.tls,
        pool: this.#deps.pool,
        onFailure: (reason) => this.#deps.onDialFailure(peer, reason),
      }),
      keepAliveTimeout: idleMs,
      // The peer's own Keep-Alive header would count instead.
      keepAliveMaxTimeout: idleMs,
      maxHeaderSize: MAX_HEADER_BYTES,
      // The exchange has its own deadlines; undici's tick in half seconds.
      headersTimeout: 0,
      bodyTimeout: 0,
    });
  }

  #retire(pool: Pool): void {
    this.#retiring.add(pool);
    const gone = (): void => void this.#retiring.delete(pool);
    pool.close().then(gone, gone);
  }
}
