import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { performance } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { drained } from "./drained.ts";
import { resetSocket } from "./reset.ts";

export interface ShapedLinkOptions {
  readonly target: { readonly host: string; readonly port: number };
  /** Default 127.0.0.1 and any free port. */
  readonly host?: string;
  readonly port?: number;
  /** Bytes per second from the target to the clients, over all connections together. Undefined: unlimited. */
  readonly downRate?: number;
  /** Bytes per second the other way. Undefined: unlimited. */
  readonly upRate?: number;
  /** Bytes that may pass at once after a pause; default: what 20 ms are worth, at least one slice. */
  readonly burst?: number;
  /** Milliseconds one way, and up to so many more at random (from the seed). Bytes never overtake each other. */
  readonly latencyMs?: number;
  readonly jitterMs?: number;
  readonly seed?: number;
}

export interface ShapedLink {
  readonly host: string;
  readonly port: number;
  /** Payload bytes that passed: `down` from the target to the clients. */
  readonly bytes: { readonly down: number; readonly up: number };
  readonly connections: number;
  setRate(bytesPerSecond: number | undefined): void;
  /** Cuts the cable where somebody notices: connections are reset, new ones refused. */
  kill(): Promise<void>;
  /** Cuts it where nobody notices: connections stay, new ones are accepted, no byte passes. */
  freeze(): void;
  /** Undoes `kill` or `freeze`, on the same port. */
  restore(): Promise<void>;
  close(): Promise<void>;
}

/** Small enough that several connections share the rate fairly, large enough to cost little CPU. */
const SLICE = 16 * 1024;
/** Bytes a direction of one connection may hold in flight while latency delays them. */
const MAX_IN_FLIGHT = 4 * 1024 * 1024;

/** A token bucket in virtual time: every slice books the link after the one before it, whoever sends it. */
class Bucket {
  #rate: number | undefined;
  readonly #burst: number | undefined;
  #freeAt = 0;

  constructor(rate: number | undefined, burst: number | undefined) {
    this.#rate = rate;
    this.#burst = burst;
  }

  setRate(rate: number | undefined): void {
    this.#rate = rate;
    this.#freeAt = performance.now();
  }

  async take(bytes: number): Promise<void> {
    if (this.#rate === undefined) return;
    const now = performance.now();
    const burstMs = this.#burst === undefined ? 20 : (this.#burst / this.#rate) * 1000;
    this.#freeAt = Math.max(this.#freeAt, now - burstMs) + (bytes / this.#rate) * 1000;
    const wait = this.#freeAt - now;
    if (wait >= 1) await delay(wait);
  }
}

/** Mulberry32: a small generator, the same sequence for the same seed. */
function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A TCP proxy that is as slow, as far away and as dead as it is told to be. Needs no privileges. */
export async function startShapedLink(options: ShapedLinkOptions): Promise<ShapedLink> {
  const host = options.host ?? "127.0.0.1";
  const down = new Bucket(options.downRate, options.burst);
  const up = new Bucket(options.upRate, options.burst);
  const random = seededRandom(options.seed ?? 1);
  const bytes = { down: 0, up: 0 };
  const sockets = new Set<Socket>();
  let port = options.port ?? 0;
  let frozen: { promise: Promise<void>; thaw: () => void } | undefined;

  /** Moves one direction, slice by slice; ends the other side as this one ended. */
  const pump = async (
    from: Socket,
    to: Socket,
    bucket: Bucket,
    count: (size: number) => void,
  ): Promise<void> => {
    let dueBefore = 0;
    let inFlight = 0;
    let tail: Promise<void> = Promise.resolve();
    const deliver = async (slice: Buffer, due: number): Promise<void> => {
      const wait = due - performance.now();
      if (wait >= 1) await delay(wait);
      await frozen?.promise;
      if (to.destroyed) return;
      count(slice.length);
      inFlight -= slice.length;
      if (!to.write(slice)) await drained(to);
    };
    for await (const chunk of from.iterator({ destroyOnReturn: false })) {
      if (!Buffer.isBuffer(chunk)) throw new TypeError("a socket gave no bytes");
      for (let at = 0; at < chunk.length; at += SLICE) {
        const slice = chunk.subarray(at, at + SLICE);
        await bucket.take(slice.length);
        const far = (options.latencyMs ?? 0) + random() * (options.jitterMs ?? 0);
        dueBefore = Math.max(dueBefore, performance.now() + far);
        inFlight += slice.length;
        const due = dueBefore;
        tail = tail.then(() => deliver(slice, due));
        if (far === 0 || inFlight > MAX_IN_FLIGHT) await tail;
      }
    }
    await tail;
    to.end();
  };

  const onClient = (client: Socket): void => {
    const target = connect({ ...options.target, allowHalfOpen: true, noDelay: true });
    client.setNoDelay(true);
    for (const socket of [client, target]) {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
    }
    const drop = (): void => {
      for (const socket of [client, target]) resetSocket(socket);
    };
    client.on("error", drop);
    target.on("error", drop);
    Promise.all([
      pump(client, target, up, (size) => (bytes.up += size)),
      pump(target, client, down, (size) => (bytes.down += size)),
    ]).catch(drop);
  };

  let server: Server | undefined;
  const listen = async (): Promise<void> => {
    server = createServer({ allowHalfOpen: true }, onClient);
    server.listen(port, host);
    await once(server, "listening");
    const address = server.address();
    if (typeof address === "object" && address !== null) port = address.port;
  };
  const thaw = (): void => {
    frozen?.thaw();
    frozen = undefined;
  };
  const kill = async (): Promise<void> => {
    const open = server;
    server = undefined;
    const closed = open === undefined ? undefined : once(open, "close");
    open?.close();
    for (const socket of sockets) resetSocket(socket);
    thaw();
    await closed;
  };
  await listen();
  return {
    host,
    get port() {
      return port;
    },
    bytes,
    get connections() {
      return sockets.size / 2;
    },
    setRate: (rate) => down.setRate(rate),
    kill,
    freeze() {
      if (frozen !== undefined) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      frozen = { promise, thaw: resolve };
    },
    async restore() {
      thaw();
      if (server === undefined) await listen();
    },
    close: kill,
  };
}
