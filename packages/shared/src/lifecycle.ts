/** Something with a start and an end. `close` is called once, also when `start` failed half-way, and leaves nothing open. */
export interface Service {
  readonly name: string;
  start(signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/**
 * Starts services one after the other and closes them in reverse, each awaited. A service whose start failed is closed
 * with the rest. Errors while closing do not keep the rest open; they come out together at the end.
 */
export class Lifecycle {
  readonly #started: Service[] = [];
  #closing: Promise<void> | undefined;

  /** Starts the next service; from now on `close` closes it, too. */
  async start<T extends Service>(service: T, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    this.#started.push(service);
    await service.start(signal);
    return service;
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll(): Promise<void> {
    const errors: unknown[] = [];
    for (const service of this.#started.splice(0).toReversed()) {
      try {
        await service.close();
      } catch (error) {
        errors.push(new Error(`closing ${service.name} failed`, { cause: error }));
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, "not everything closed cleanly");
  }
}
