import { IntegrityError, NotFoundError, SourceError, type Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { Crowd, FetchDeps } from "./fetch-deps.ts";
import { FAULT_PAUSE_MS, type NeighbourConduct } from "./neighbour-conduct.ts";
import { BusyError } from "./peer-client.ts";

/** After "busy" a neighbour is left alone for so long. */
const BUSY_PAUSE_MS = 100;

export type NeighbourFaultsDeps = Pick<FetchDeps, "clock" | "logger" | "changed"> &
  Pick<Crowd, "member"> & { readonly conduct: NeighbourConduct };

/** What a piece that a neighbour did not bring means for it: left alone for a while, for that piece alone, or for good. */
export class NeighbourFaults {
  readonly #digest: Digest;
  readonly #deps: NeighbourFaultsDeps;
  readonly #timers = new Set<() => void>();

  constructor(digest: Digest, deps: NeighbourFaultsDeps) {
    this.#digest = digest;
    this.#deps = deps;
  }

  /** Somebody will be asked again later. */
  get pausing(): boolean {
    return this.#timers.size > 0;
  }

  close(): void {
    for (const cancel of this.#timers) cancel();
  }

  failed(peer: Peer, piece: number, error: unknown): void {
    const { member, conduct, logger } = this.#deps;
    const { id } = peer;
    logger.debug({ err: error, digest: this.#digest, peer: id, piece }, "a neighbour failed");
    if (error instanceof BusyError) return this.#pause(id, BUSY_PAUSE_MS);
    if (error instanceof NotFoundError) {
      this.#pausePiece(id, piece);
      if (this.#hasNothing(id)) member.unreachable(peer);
      return;
    }
    const wrong = error instanceof IntegrityError;
    if (wrong) this.#pausePiece(id, piece);
    else this.#pause(id, FAULT_PAUSE_MS);
    if (wrong ? conduct.offends(id, "wrong") : this.#isUseless(id, error)) member.unreachable(peer);
  }

  /** A member tells what it has, and may be late to give it; who went with the whole blob gives everything, or nothing. */
  #hasNothing(id: string): boolean {
    const { member, conduct } = this.#deps;
    const left = member.neighbours.find(({ peer }) => peer.id === id)?.left === true;
    return left && conduct.offends(id, "missed");
  }

  #isUseless(id: string, error: unknown): boolean {
    if (!(error instanceof SourceError)) return false;
    return (
      error.code === "NO_FIRST_BYTE" || (error.code === "UNREACHABLE" && this.#deps.conduct.staysAway(id))
    );
  }

  #pausePiece(id: string, piece: number): void {
    this.#deps.conduct.pausePiece(id, piece);
    this.#later(FAULT_PAUSE_MS);
  }

  #pause(id: string, ms: number): void {
    this.#deps.conduct.pause(id, ms);
    this.#later(ms);
  }

  #later(ms: number): void {
    const { clock, changed } = this.#deps;
    const cancel = clock.after(ms, () => {
      this.#timers.delete(cancel);
      changed();
    });
    this.#timers.add(cancel);
  }
}
