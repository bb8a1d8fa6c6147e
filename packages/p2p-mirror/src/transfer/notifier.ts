/** Something changed, look again: all who wait go on. */
export class Notifier {
  #next = Promise.withResolvers<void>();

  /** The next change. Take it before looking at the state, so that no change in between is missed. */
  get change(): Promise<void> {
    return this.#next.promise;
  }

  notify(): void {
    const { resolve } = this.#next;
    this.#next = Promise.withResolvers<void>();
    resolve();
  }
}
