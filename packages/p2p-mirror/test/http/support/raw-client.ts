import { connect, type Socket } from "node:net";
import { once } from "node:events";

/** How a connection ended, as the client's kernel saw it: FIN is `end`, RST is an error. */
export type Ending = "end" | { readonly error: string };

/** A TCP client that says exactly what it is told and reads only when it is told. */
export class RawClient {
  readonly socket: Socket;
  #received: Buffer[] = [];
  #length = 0;
  #ending: Ending | undefined;
  #wake: (() => void)[] = [];

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("end", () => this.#end("end"));
    socket.on("error", (error: NodeJS.ErrnoException) => this.#end({ error: error.code ?? error.message }));
    socket.on("close", () => this.#end("end"));
  }

  static async open(port: number, host = "127.0.0.1"): Promise<RawClient> {
    const socket = connect({ port, host, allowHalfOpen: true, noDelay: true });
    await once(socket, "connect");
    return new RawClient(socket);
  }

  #end(ending: Ending): void {
    this.#ending ??= ending;
    for (const wake of this.#wake.splice(0)) wake();
  }

  send(text: string | Buffer): this {
    this.socket.write(text);
    return this;
  }

  get(target: string, headers: Record<string, string> = {}): this {
    const lines = Object.entries({ host: "mirror", ...headers }).map(
      ([name, value]) => `${name}: ${value}\r\n`,
    );
    return this.send(`GET ${target} HTTP/1.1\r\n${lines.join("")}\r\n`);
  }

  /** Starts reading. Until then the kernel's buffers fill, and backpressure reaches the server. */
  read(): this {
    this.socket.on("data", (chunk: Buffer) => {
      this.#received.push(chunk);
      this.#length += chunk.byteLength;
      for (const wake of this.#wake.splice(0)) wake();
    });
    return this;
  }

  get received(): Buffer {
    const all = Buffer.concat(this.#received);
    this.#received = [all];
    return all;
  }

  get ending(): Ending | undefined {
    return this.#ending;
  }

  async #next(): Promise<void> {
    await new Promise<void>((resolve) => this.#wake.push(resolve));
  }

  /** Until so many bytes of head and body are here. */
  async untilBytes(count: number): Promise<Buffer> {
    return this.#until(() => this.#length >= count);
  }

  /** Until a body of so many bytes is here behind its head. */
  async untilBody(count: number): Promise<Buffer> {
    await this.untilBytes(count);
    await this.until((received) => splitAnswer(received).body.byteLength >= count);
    return splitAnswer(this.received).body;
  }

  /** Until the answer is as wanted. */
  async until(condition: (received: Buffer) => boolean): Promise<Buffer> {
    return this.#until(() => condition(this.received));
  }

  async #until(condition: () => boolean): Promise<Buffer> {
    while (!condition()) {
      if (this.#ending !== undefined) throw new Error(`ended first: ${JSON.stringify(this.#ending)}`);
      await this.#next();
    }
    return this.received;
  }

  /** Until the connection ended, either way; then it is closed from this side too. */
  async ended(): Promise<Ending> {
    while (this.#ending === undefined) await this.#next();
    this.socket.destroy();
    return this.#ending;
  }
}

/** Head and body of a raw answer. */
export function splitAnswer(raw: Buffer): { head: string; body: Buffer } {
  const at = raw.indexOf("\r\n\r\n");
  return at === -1
    ? { head: raw.toString("latin1"), body: Buffer.alloc(0) }
    : { head: raw.subarray(0, at).toString("latin1"), body: raw.subarray(at + 4) };
}
