import type { Clock, Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { HandBackReason, Swarm, SwarmMember } from "../swarm/swarm.ts";
import { PieceGeometry, PieceMap } from "./pieces.ts";

/**
 * What all members say of an object's size, since not all who ask for it know that: one piece. Larger blobs, which have
 * more pieces, never have this size.
 */
const NOMINAL_BYTES = 1;
const GEOMETRY = new PieceGeometry(NOMINAL_BYTES);
/** The digest of the object is the hash of its only piece: nobody has to sign one. */
const NO_HASH = new Uint8Array();
/**
 * A member with the object stays for so long: who comes a moment later finds it in the swarm. By then it can be found by a
 * lookup, 100 ms and a message after it was stored.
 */
export const LINGER_MS = 2_000;

export interface SmallMembersDeps {
  readonly swarm: Pick<Swarm, "join">;
  readonly clock: Clock;
}

/** This node in the swarms of small objects, those it is still in after it has got them included. */
export class SmallMembers {
  readonly #deps: SmallMembersDeps;
  readonly #members = new Map<Digest, SmallMember>();
  readonly #closing = new AbortController();

  constructor(deps: SmallMembersDeps) {
    this.#deps = deps;
  }

  /** Undefined: it is being fetched as something else (a manifest, a blob) already, and a digest has one membership. */
  join(digest: Digest): SmallMember | undefined {
    const before = this.#members.get(digest);
    if (before?.complete === false) return undefined;
    before?.leave();
    const { swarm, clock } = this.#deps;
    const have = new PieceMap(GEOMETRY.count);
    const about = { digest, size: NOMINAL_BYTES, geometry: GEOMETRY, have };
    const member = new SmallMember(swarm.join(about, this.#closing.signal), clock, () => {
      if (this.#members.get(digest) === member) this.#members.delete(digest);
    });
    this.#members.set(digest, member);
    return member;
  }

  close(): void {
    this.#closing.abort();
    for (const member of this.#members.values()) member.leave();
  }
}

/** One small object as a member of its swarm: whether to ask upstream, or whom else. */
export class SmallMember {
  complete = false;
  readonly #member: SwarmMember;
  readonly #clock: Clock;
  readonly #left: () => void;
  /** The coordinator was told that upstream does not let this node in. */
  #denied = false;
  #cancelLinger: (() => void) | undefined;

  constructor(member: SwarmMember, clock: Clock, left: () => void) {
    this.#member = member;
    this.#clock = clock;
    this.#left = left;
  }

  get change(): Promise<void> {
    return this.#member.change;
  }

  /** It is known who coordinates, or that nobody does. */
  get isSettled(): boolean {
    return this.#member.alone || this.#member.coordinator !== undefined;
  }

  /** It is this node that should ask upstream. */
  get isTurn(): boolean {
    return this.#member.alone || this.#member.leases.length > 0;
  }

  /** Upstream wants to be left alone for so many milliseconds. */
  get pausedMs(): number {
    return this.#member.pausedMs;
  }

  /** Somebody else could get it from upstream. Upstream limits one node or fails it: that one still counts as one who could. */
  get hasOthers(): boolean {
    return !this.#member.alone && this.#member.fetchers > (this.#denied ? 0 : 1);
  }

  /** Other members that have it. */
  get holders(): Peer[] {
    return this.#member.neighbours.filter((one) => one.has(0)).map(({ peer }) => peer);
  }

  handBack(why: HandBackReason): void {
    for (const lease of this.#member.leases) {
      this.#member.handBack(lease, why);
      this.#denied ||= why.kind === "unauthorized";
    }
  }

  /** It did not give the object. Of one that never said it has it, nobody is told. */
  didNotGive({ id }: Peer): void {
    const holder = this.holders.find((one) => one.id === id);
    if (holder !== undefined) this.#member.unreachable(holder);
  }

  /** It is here, verified, and can be given to others from now on. */
  has(): void {
    this.complete = true;
    this.#member.have(0, NO_HASH, false);
    this.#cancelLinger = this.#clock.after(LINGER_MS, () => this.leave());
  }

  /** Idempotent. */
  leave(): void {
    this.#cancelLinger?.();
    void this.#member.leave();
    this.#left();
  }
}
