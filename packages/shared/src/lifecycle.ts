/** Something with a start and an end. `close` is called once, also when `start` failed half-way, and leaves nothing open. */
export interface Service {
  readonly name: string;
  start(signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/**
 * Starts services in order and closes them in reverse, each awaited. A failed start closes what had been started (the
 * failed one included) and rethrows. Errors while closing do not keep the rest open; they come out together at the end.
 */
export class Lifecycle {
  readonly #services: readonly Service[];
  readonly #started: Service[] = [];
  #closing: Promise<void> | undefined;

  constructor(services: readonly Service[]) {
    this.#services = services;
  }

  async start(signal: AbortSignal): Promise<void> {
    for (const service of this.#services) {
      signal.throwIfAborted();
      this.#started.push(service);
      try {
        await service.start(signal);
      } catch (error) {
        await this.close().catch(() => undefined);
        throw error;
      }
    }
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
