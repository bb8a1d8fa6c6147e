import type { Socket } from "node:net";

/**
 * The connections of peers, at most `max` of them in use. For one more, the one that was idle for longest is closed,
 * which no peer takes for a fault; when none is, the new one is only told that this node is busy.
 */
export class ServedSockets {
  readonly #max: number;
  readonly #all = new Set<Socket>();
  /** In the order in which they became idle. */
  readonly #idle = new Set<Socket>();
  readonly #beyond = new WeakSet<Socket>();

  constructor(max: number) {
    this.#max = max;
  }

  /** A handshake is over. */
  add(socket: Socket): void {
    this.#all.add(socket);
    socket.once("close", () => {
      this.#all.delete(socket);
      this.#idle.delete(socket);
    });
    if (this.#all.size <= this.#max) return;
    const [idle] = this.#idle;
    if (idle === undefined) return void this.#beyond.add(socket);
    this.#all.delete(idle);
    this.#idle.delete(idle);
    // After what may still be on its way.
    idle.destroySoon();
  }

  /** A request came. */
  asked(socket: Socket): void {
    this.#idle.delete(socket);
  }

  /** Its answer is over. */
  answered(socket: Socket): void {
    if (this.#all.has(socket) && !socket.destroyed) this.#idle.add(socket);
  }

  /** One too many: its requests are to be answered with "busy". */
  isBeyond(socket: Socket): boolean {
    return this.#beyond.has(socket);
  }
}
