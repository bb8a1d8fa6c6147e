/** Of what neighbours are asked for, at most one piece in so many is asked of a second one as well (5 %). */
const PIECES_A_HEDGE = 20;
/** The last pieces of a blob, of which each may be: nothing else is left to be done. */
const LAST_PIECES = 3;
/** What a second one brings is held in memory. */
const MAX_BYTES = 1024 * 1024;
/** Late: a piece that takes so many times what pieces take, and no less than so long. One of the last: as long as pieces take. */
const LATE_FACTOR = 2;
const LATE_MS = 500;
const LATE_LAST_MS = 100;
/** While no piece has come, nobody knows; and then it is looked at again so often. */
const LOOK_MS = 2_000;
const NEXT_LOOK_MS = 250;
/** Times that pieces took are remembered of so many. */
const REMEMBERED = 15;

/**
 * When a piece is late, by what pieces take at present, and whether another neighbour may be asked for it besides (a
 * hedge): whoever is first spares this node the wait for one that is slow, and costs the others a piece's bytes.
 */
export class PieceHedges {
  /** Milliseconds a byte, of the last pieces. */
  readonly #paces: number[] = [];
  /** Their median. */
  #pace: number | undefined;
  #asked = 0;
  #hedged = 0;
  /** One at a time: memory. */
  #busy = false;
  #atEnd = false;

  asked(): void {
    this.#asked += 1;
  }

  took(ms: number, bytes: number): void {
    this.#paces.push(ms / bytes);
    if (this.#paces.length > REMEMBERED) this.#paces.shift();
    this.#pace = this.#paces.toSorted((a, b) => a - b)[Math.floor(this.#paces.length / 2)];
  }

  /** Nothing is left but a few pieces that are on their way. */
  get atEnd(): boolean {
    return this.#atEnd;
  }

  /** Pieces that nobody is asked for, and those that are on their way. */
  left(open: number, asked: number): void {
    this.#atEnd = open === 0 && asked <= LAST_PIECES;
  }

  /** Milliseconds that so many bytes usually take; undefined while none have come. */
  usual(bytes: number): number | undefined {
    return this.#pace === undefined ? undefined : this.#pace * bytes;
  }

  /** Milliseconds after which a piece that has taken so many is to be looked at again. */
  nextLook(bytes: number, ms: number): number {
    const late = this.#lateMs(bytes);
    if (late === undefined) return LOOK_MS;
    // Whole ones: less than a clock can tell apart would be no time at all.
    return late > ms ? Math.ceil(late - ms) : NEXT_LOOK_MS;
  }

  /** Whether another neighbour may be asked for a piece that has taken so many milliseconds. */
  may(bytes: number, ms: number): boolean {
    if (this.#busy || bytes > MAX_BYTES) return false;
    const late = this.#lateMs(bytes);
    if (late === undefined || ms < late) return false;
    return this.#atEnd || (this.#hedged + 1) * PIECES_A_HEDGE <= this.#asked;
  }

  /** Another one is asked; call what is returned when that is over. */
  begin(): () => void {
    this.#busy = true;
    this.#hedged += 1;
    return () => {
      this.#busy = false;
    };
  }

  #lateMs(bytes: number): number | undefined {
    const usual = this.usual(bytes);
    if (usual === undefined) return undefined;
    return this.#atEnd ? Math.max(LATE_LAST_MS, usual) : Math.max(LATE_MS, LATE_FACTOR * usual);
  }
}
