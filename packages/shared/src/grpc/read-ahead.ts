import { InterceptingCall, type Interceptor } from "@grpc/grpc-js";

/**
 * Bounds how many messages of a server stream are taken from the connection before their reader wants them. By itself a
 * grpc-js stream buffers sixteen: 16 MiB for each slow reader of a blob. One object per call.
 */
export class ReadAhead {
  readonly interceptor: Interceptor;
  #credits: number;
  #waiting: (() => void) | undefined;

  constructor(messages: number) {
    this.#credits = messages;
    this.interceptor = (options, nextCall) =>
      new GatedCall(nextCall(options), (startRead) => this.#admit(startRead));
  }

  /** The reader has taken one message: another may come. */
  taken(): void {
    this.#credits += 1;
    const startRead = this.#waiting;
    if (startRead === undefined) return;
    this.#waiting = undefined;
    this.#admit(startRead);
  }

  #admit(startRead: () => void): void {
    if (this.#credits === 0) {
      this.#waiting = startRead;
      return;
    }
    this.#credits -= 1;
    startRead();
  }
}

class GatedCall extends InterceptingCall {
  readonly #admit: (startRead: () => void) => void;

  constructor(
    call: ConstructorParameters<typeof InterceptingCall>[0],
    admit: (startRead: () => void) => void,
  ) {
    super(call);
    this.#admit = admit;
  }

  override startRead(): void {
    this.#admit(() => super.startRead());
  }
}
