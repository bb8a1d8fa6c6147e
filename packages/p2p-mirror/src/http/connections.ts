import type { Server } from "node:http";
import type { Socket } from "node:net";

/** A request on a connection, until its answer is over. */
export interface Pending {
  readonly over: Promise<void>;
  /** The connection is gone. Idempotent. */
  lost(): void;
}

/** How long input is still read and dropped after everything was flushed and FIN was sent. */
const LINGER_MS = 10_000;

/** What the endpoint knows of one client connection. */
export class Connection {
  readonly socket: Socket;
  readonly #pending = new Set<Pending>();
  #last: Pending | undefined;
  #cut = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.once("close", () => {
      for (const one of this.#pending) one.lost();
    });
  }

  /** Requests received and not over yet: more than one only when the client pipelines. */
  get pending(): number {
    return this.#pending.size;
  }

  /** True once `cut` was called: requests that were pipelined behind get no answer any more. */
  get isCut(): boolean {
    return this.#cut;
  }

  /**
   * Takes a request in, and gives what to wait for before it is answered: one at a time and in order, as HTTP/1.1 wants
   * the answers anyway, so that a cut always ends the answer it means.
   */
  enter(pending: Pending): Promise<void> | undefined {
    const before = this.#pending.size === 0 ? undefined : this.#last?.over;
    this.#pending.add(pending);
    this.#last = pending;
    void pending.over.then(() => this.#pending.delete(pending));
    return before;
  }

  /**
   * Ends the connection, also in the middle of an answer, so that the client sees FIN after every byte that was written
   * so far, never RST: containerd resumes after FIN, and fails the whole pull after RST.
   *
   * Linux answers `close(2)` with RST while input lies unread, and RST also throws away what the client has not read yet.
   * So: flush, shut down the writing side only, go on reading and dropping input, and close when the client has closed,
   * or `lingerMs` after everything was flushed.
   */
  cut(lingerMs = LINGER_MS): void {
    const { socket } = this;
    if (this.#cut || socket.destroyed) return;
    this.#cut = true;
    let timer: NodeJS.Timeout | undefined;
    const linger = (): void => {
      timer = setTimeout(() => socket.destroy(), lingerMs);
    };
    socket.once("close", () => clearTimeout(timer));
    if (socket.writableFinished) linger();
    else socket.once("finish", linger);
    socket.end();
    // node:http stops reading while requests are pipelined behind a slow answer; here input must keep flowing.
    socket.resume();
  }
}

/** All client connections of a server. */
export class Connections {
  /** One for each socket, also after it closed: requests that were waiting for their turn still ask for it then. */
  readonly #all = new WeakMap<Socket, Connection>();
  readonly #open = new Set<Connection>();

  watch(server: Server): void {
    server.on("connection", (socket: Socket) => {
      const connection = this.of(socket);
      this.#open.add(connection);
      socket.once("close", () => this.#open.delete(connection));
    });
  }

  of(socket: Socket): Connection {
    let connection = this.#all.get(socket);
    if (connection === undefined) {
      connection = new Connection(socket);
      this.#all.set(socket, connection);
    }
    return connection;
  }

  /** FIN to those that wait for a next request, at once. */
  closeIdle(): void {
    for (const one of this.#open) if (one.pending === 0) one.cut(0);
  }

  destroyAll(): void {
    for (const { socket } of this.#open) socket.destroy();
  }
}
