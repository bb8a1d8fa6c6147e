/** Told when it is its turn, or may be. */
type Wake = () => void;

interface Line {
  isBusy: boolean;
  readonly waiting: Set<Wake>;
}

/**
 * While a crowd fetches from whoever has everything, this node asks it for one piece at a time, of whichever blob: the sooner a
 * piece is whole, the sooner it is given on. Of an image three layers are under way, and with a piece of each for each of
 * seven nodes 21 pieces shared the holder's uplink: at 50 Mbit/s none was whole for 3 s, and TCP gave one node a third of
 * what it gave another. Who has waited longest is next, so that layers get on alike.
 */
export class HolderQueue {
  readonly #lines = new Map<string, Line>();

  /** For one blob. `wake` is called when it may be its turn at a holder: it takes it then, or says that it does not want it. */
  place(wake: () => void): HolderPlace {
    return new HolderPlace(this, wake);
  }

  /** True when it is the turn of `wake`, until it is given back. Otherwise it is in line now. */
  take(holder: string, wake: Wake): boolean {
    const line = this.#lines.get(holder) ?? { isBusy: false, waiting: new Set() };
    this.#lines.set(holder, line);
    const [first = wake] = line.waiting;
    if (line.isBusy || first !== wake) {
      line.waiting.add(wake);
      return false;
    }
    line.waiting.delete(wake);
    line.isBusy = true;
    return true;
  }

  giveBack(holder: string): void {
    const line = this.#lines.get(holder);
    if (line === undefined) return;
    line.isBusy = false;
    this.#next(holder, line);
  }

  /** `wake` leaves all lines but these. */
  keep(wake: Wake, holders: ReadonlySet<string>): void {
    for (const [holder, line] of this.#lines)
      if (!holders.has(holder) && line.waiting.delete(wake)) this.#next(holder, line);
  }

  #next(holder: string, { isBusy, waiting }: Line): void {
    if (isBusy) return;
    const [first] = waiting;
    if (first === undefined) this.#lines.delete(holder);
    else first();
  }
}

/** Of one blob, in the lines of all holders. */
export class HolderPlace {
  readonly #queue: HolderQueue;
  readonly #wake: Wake;
  #inLine: ReadonlySet<string> = new Set();
  /** Since it has settled. */
  #refused = new Set<string>();

  constructor(queue: HolderQueue, wake: () => void) {
    this.#queue = queue;
    // Places are told apart by it.
    this.#wake = () => wake();
  }

  /** A holder gives another blob's piece first. */
  get waiting(): boolean {
    return this.#inLine.size > 0;
  }

  /** True when the holder may be asked now, once; to be given back then. */
  take(holder: string): boolean {
    const taken = this.#queue.take(holder, this.#wake);
    if (!taken) this.#refused.add(holder);
    return taken;
  }

  giveBack(holder: string): void {
    this.#queue.giveBack(holder);
  }

  /** Where it was not its turn since the last time, it waits, if it does `want` anything still; and nowhere else. */
  settle(wants: boolean): void {
    this.#inLine = wants ? this.#refused : new Set();
    this.#refused = new Set();
    this.#queue.keep(this.#wake, this.#inLine);
  }
}
