import { raceSignal } from "@p2p-mirror/shared";

/** As the peers' client: connections to one peer, and how long a request waits for one. */
const PER_PEER = 6;

interface Line {
  open: number;
  readonly waiting: Set<() => void>;
}

/** The connections between nodes, which all blobs share: who waits longest for one gets the next that is free. */
export class Connections {
  readonly #lines = new Map<string, Line>();

  /** Resolves to what gives it back. @throws the signal's reason */
  async take(from: string, to: string, signal: AbortSignal): Promise<() => void> {
    const key = `${from} ${to}`;
    const line = this.#lines.get(key) ?? { open: 0, waiting: new Set() };
    this.#lines.set(key, line);
    if (line.open < PER_PEER) line.open += 1;
    else {
      const turn = Promise.withResolvers<void>();
      line.waiting.add(turn.resolve);
      try {
        await raceSignal(turn.promise, signal);
      } catch (error) {
        // It may have come in the very moment of the abort: then it is the next one's.
        if (!line.waiting.delete(turn.resolve)) this.#free(line);
        throw error;
      }
    }
    let taken = true;
    return () => {
      if (taken) this.#free(line);
      taken = false;
    };
  }

  #free(line: Line): void {
    const [next] = line.waiting;
    if (next === undefined) line.open -= 1;
    else {
      line.waiting.delete(next);
      next();
    }
  }
}
