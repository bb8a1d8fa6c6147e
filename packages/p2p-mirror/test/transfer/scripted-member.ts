import { digestOf, silentLogger, VirtualClock } from "@p2p-mirror/shared";
import type { KnownHashes, Lease, Neighbour, SwarmMember } from "../../src/swarm/swarm.ts";
import { Candidates } from "../../src/transfer/candidates.ts";
import type { AskForPiece } from "../../src/transfer/fetch-piece.ts";
import { FlightPieces } from "../../src/transfer/flight-pieces.ts";
import { HolderQueue } from "../../src/transfer/holder-queue.ts";
import { Notifier } from "../../src/transfer/notifier.ts";
import { WholeSpool } from "../../src/transfer/spool.ts";
import type { SwarmFetchesDeps } from "../../src/transfer/swarm-fetches.ts";

/** Of a small blob. */
export const PIECE_BYTES = 128 * 1024;

/** A membership in which the test says what the coordinator and the neighbours would. */
export class ScriptedMember implements SwarmMember {
  neighbours: Neighbour[] = [];
  leases: Lease[] = [];
  alone = false;
  fetchers = 4;
  pausedMs = 0;
  brought = 0;
  absences = 0;
  coordinator = { id: "coordinator", self: false };
  bringsIn: SwarmMember["bringsIn"] = () => true;
  turnOf: SwarmMember["turnOf"] = () => 0;
  standsIn: SwarmMember["standsIn"] = () => false;
  rarity: SwarmMember["rarity"] = (piece) => this.neighbours.filter((one) => one.has(piece)).length;
  readonly #notifier = new Notifier();

  get change(): Promise<void> {
    return this.#notifier.change;
  }

  /** News from the coordinator or from neighbours. */
  told(news: Partial<Pick<ScriptedMember, "neighbours" | "leases" | "brought">>): void {
    Object.assign(this, news);
    this.#notifier.notify();
  }

  hashOf(): undefined {
    return undefined;
  }
  signerOf(): undefined {
    return undefined;
  }
  have(): void {}
  received(): void {}
  handBack(): void {}
  holds(): void {}
  unreachable(): void {}
  mismatch(): void {}
  verified(): void {}
  leave(): Promise<void> {
    return Promise.resolve();
  }
}

const NO_HASHES: KnownHashes = {
  of: () => undefined,
  isDoubted: () => false,
  doubts: false,
  toCheck: () => [],
  learn: () => false,
  sign: () => undefined,
};

export const neighbourWith = (id: string, pieces: readonly number[], zone = ""): Neighbour => ({
  peer: { id, host: "127.0.0.1", port: 1 },
  zone,
  load: 0,
  complete: false,
  left: false,
  has: (piece) => pieces.includes(piece),
});

const nobody = async function* (): AsyncGenerator<never, void, undefined> {};

/** A member of the swarm of a blob of so many pieces, none of which is here; `changed` calls `onChange`, when there is one. */
export function memberOf(count: number, ask: AskForPiece) {
  const clock = new VirtualClock();
  const member = new ScriptedMember();
  const options = { digest: digestOf(Buffer.from("blob")), size: count * PIECE_BYTES };
  const state: { onChange: (() => void) | undefined } = { onChange: undefined };
  const changed = (): void => state.onChange?.();
  const pieces = new FlightPieces(options, new WholeSpool(options.size), changed);
  const deps: SwarmFetchesDeps = {
    member,
    pieces,
    candidates: new Candidates({ peers: nobody, named: () => undefined, clock, changed }),
    hashes: NO_HASHES,
    ask,
    holders: new HolderQueue(),
    blobs: () => 1,
    zone: "here",
    clock,
    random: () => 0.5,
    logger: silentLogger(),
    accepted: () => undefined,
    arrived: () => undefined,
    written: () => undefined,
    changed,
  };
  return { clock, member, pieces, options, deps, state };
}
