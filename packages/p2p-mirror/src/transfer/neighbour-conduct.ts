import type { Clock } from "@p2p-mirror/shared";

/** After a connection that broke, or a piece it does not have after all, a neighbour is left alone for so long. */
export const FAULT_PAUSE_MS = 1_000;
/**
 * Who cannot be reached is of no use when that is still so after a while: connections may break, and while they do, what
 * such a neighbour alone has need not be fetched from upstream again.
 */
const UNREACHABLE_MS = 500;
/**
 * So often a neighbour may fail in a way that says something about it. `wrong`: pieces with another hash than the signed one,
 * of which the first may be the network's fault. `missed`: pieces that a holder of the whole blob does not have: it has nothing
 * (any more). Of one, signers may contradict each other.
 */
const LIMITS = { wrong: 2, missed: 2 } as const;
export type Offence = keyof typeof LIMITS;

interface Conduct {
  /** Not to be asked before: for anything, and for single pieces. */
  notBefore: number;
  readonly pieces: Map<number, number>;
  readonly offences: { [kind in Offence]: number };
  /** Since when it cannot be reached. */
  unreachableSince: number | undefined;
}

/** How neighbours, by their IDs, have behaved: who may be asked again, when, and for what. */
export class NeighbourConduct {
  readonly #clock: Clock;
  readonly #records = new Map<string, Conduct>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** It may be asked for something now. */
  isOpen(id: string): boolean {
    const record = this.#records.get(id);
    return record === undefined || (record.notBefore <= this.#clock.now() && !isOut(record, "wrong"));
  }

  /** Nothing speaks against asking it for this piece now. */
  gives(id: string, piece: number): boolean {
    return this.isOpen(id) && this.isOpenFor(id, piece);
  }

  /** It may be asked for this piece now, as far as that piece goes. */
  isOpenFor(id: string, piece: number): boolean {
    const until = this.#records.get(id)?.pieces.get(piece);
    return until === undefined || until <= this.#clock.now();
  }

  pause(id: string, ms: number): void {
    this.#of(id).notBefore = this.#clock.now() + ms;
  }

  pausePiece(id: string, piece: number): void {
    this.#of(id).pieces.set(piece, this.#clock.now() + FAULT_PAUSE_MS);
  }

  /** True when it has done so too often. */
  offends(id: string, kind: Offence): boolean {
    const record = this.#of(id);
    record.offences[kind] += 1;
    return isOut(record, kind);
  }

  /** It could not be reached. True when that has been so for a while. */
  staysAway(id: string): boolean {
    const record = this.#of(id);
    const now = this.#clock.now();
    record.unreachableSince ??= now;
    return now - record.unreachableSince >= UNREACHABLE_MS;
  }

  reached(id: string): void {
    const record = this.#records.get(id);
    if (record !== undefined) record.unreachableSince = undefined;
  }

  #of(id: string): Conduct {
    const known = this.#records.get(id);
    if (known !== undefined) return known;
    const record: Conduct = {
      notBefore: 0,
      pieces: new Map(),
      offences: { wrong: 0, missed: 0 },
      unreachableSince: undefined,
    };
    this.#records.set(id, record);
    return record;
  }
}

const isOut = ({ offences }: Conduct, kind: Offence): boolean => offences[kind] >= LIMITS[kind];
