/** The right to send one body. `release` may be called more than once. */
export interface UploadSlot {
  release(): void;
}

/** How many bodies this node sends at once: enough to fill its link, few enough that each of them moves. */
export class UploadSlots {
  readonly all: number;
  readonly #onChange: (busy: number) => void;
  #busy = 0;

  constructor(all: number, onChange: (busy: number) => void) {
    this.all = all;
    this.#onChange = onChange;
  }

  get busy(): number {
    return this.#busy;
  }

  /** Undefined when none is free: the asker is told at once, since somebody else may have the blob as well. */
  take(): UploadSlot | undefined {
    if (this.#busy >= this.all) return undefined;
    this.#onChange((this.#busy += 1));
    let held = true;
    return {
      release: () => {
        if (held) this.#onChange((this.#busy -= 1));
        held = false;
      },
    };
  }
}
