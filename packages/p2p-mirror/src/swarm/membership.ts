import { raceSignal } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import { Notifier } from "../transfer/notifier.ts";
import { PieceMap } from "../transfer/pieces.ts";
import { packBits } from "./bitmap.ts";
import { Avoided } from "./closest.ts";
import { CoordinatorLink, type LinkDeps, type LinkEnd, type LinkOwner } from "./coordinator-link.ts";
import { MAX_HOPS, type Closest } from "./coordinator.ts";
import { HeldLeases } from "./held-leases.ts";
import {
  MAX_AVOIDED,
  MAX_HOLDERS,
  MAX_UNREACHABLE,
  type Join,
  type Progress,
  type Told,
} from "./messages.ts";
import { Neighbours, type NeighboursDeps } from "./neighbours.ts";
import type { PieceHashes } from "./piece-hashes.ts";
import type { HandBackReason, JoinAbout, Lease, Neighbour, SwarmMember } from "./swarm.ts";
import { TIMES } from "./times.ts";
import type { Contact } from "./wire.ts";

/** The coordinator and its stand-in; when neither answers, one goes on alone. */
const TRIES = 2;

export interface MembershipDeps extends LinkDeps, Omit<NeighboursDeps, "have" | "changed" | "lost"> {
  readonly hashes: PieceHashes;
  readonly closest: Closest;
  readonly random: () => number;
  /** The membership is over. */
  readonly ended: () => void;
}

function takeSome(ids: Set<string>): string[] {
  const some = [...ids].slice(0, MAX_UNREACHABLE);
  for (const id of some) ids.delete(id);
  return some;
}

/** One digest as a member sees it: finds the coordinator and stays with it, and keeps what it says. */
export class Membership implements SwarmMember, LinkOwner {
  alone = false;
  fetchers = 1;
  brought = 0;
  absences = 0;
  coordinator: SwarmMember["coordinator"];
  readonly neighbourhood: Neighbours;
  readonly #about: JoinAbout;
  readonly #deps: MembershipDeps;
  readonly #have: PieceMap;
  readonly #leases: HeldLeases;
  readonly #notifier = new Notifier();
  readonly #avoided: Avoided;
  readonly #leaving = new AbortController();
  readonly #unreachable = new Set<string>();
  readonly #lost = new Set<string>();
  /** A channel to this coordinator has broken, and until when it is tried again. */
  #goesBack: { readonly to: string; readonly until: number } | undefined;
  /** A coordinator was heard then. */
  #heardAt: number;
  /** Found with the whole blob, by this member. */
  readonly #holders = new Map<string, Peer>();
  #newHolders: Peer[] = [];
  #news: number[] = [];
  #link: CoordinatorLink | undefined;
  #target = "";
  /** It has had a coordinator, or gone on without: others may know more than the next one. */
  #again = false;
  #unauthorized = false;
  /** What it has is not the blob. */
  #refuted = false;
  #staysUntil = -Infinity;
  #pausedUntil = 0;
  #zone: { readonly rank: number; readonly size: number } = { rank: 0, size: 0 };
  readonly #done: Promise<void>;

  constructor(about: JoinAbout, deps: MembershipDeps) {
    this.#about = about;
    this.#deps = deps;
    this.#have = new PieceMap(about.geometry.count);
    for (let piece = 0; piece < about.geometry.count; piece += 1) {
      if (about.have.has(piece)) this.#have.set(piece);
    }
    this.#avoided = new Avoided(deps.clock);
    this.#heardAt = deps.clock.now();
    this.#leases = new HeldLeases(about.geometry, this.#have, deps.clock);
    this.neighbourhood = new Neighbours(about, {
      ...deps,
      have: this.#have,
      changed: () => this.#notifier.notify(),
      lost: (id) => this.#lost.add(id),
    });
    this.#done = this.#run().catch((error: unknown) => {
      // A fault of ours must not cost the pull, nor the process.
      deps.logger.error({ err: error, digest: about.digest }, "a membership of a swarm has failed");
      this.alone = true;
      this.#notifier.notify();
    });
  }

  get neighbours(): readonly Neighbour[] {
    return this.neighbourhood.list;
  }

  get leases(): readonly Lease[] {
    return this.#leases.list;
  }

  get change(): Promise<void> {
    return this.#notifier.change;
  }

  get pausedMs(): number {
    return Math.max(0, this.#pausedUntil - this.#deps.clock.now());
  }

  get holding(): boolean {
    return this.#leases.size > 0;
  }

  rarity(piece: number): number {
    return this.neighbourhood.rarity(piece);
  }

  bringsIn(piece: number): boolean {
    return this.#zone.size === 0 || this.turnOf(piece) === this.#zone.rank;
  }

  turnOf(piece: number): number {
    return piece % Math.max(1, this.#zone.size);
  }

  standsIn(piece: number): boolean {
    const { rank, size } = this.#zone;
    if (size < 2) return false;
    // The others one after the other, for each piece of whose turn it is another one.
    const next = 1 + (Math.floor(piece / size) % (size - 1));
    return (this.turnOf(piece) + next) % size === rank;
  }

  hashOf(piece: number): Buffer | undefined {
    const hash = this.#deps.hashes.of(piece);
    return hash === undefined ? undefined : Buffer.from(hash.sha256);
  }

  signerOf(piece: number): string | undefined {
    return this.#deps.hashes.of(piece)?.signer;
  }

  have(piece: number, sha256: Uint8Array, fromUpstream: boolean): void {
    if (this.#have.has(piece) || this.#leaving.signal.aborted) return;
    if (fromUpstream) this.#deps.hashes.sign(piece, sha256);
    this.#have.set(piece);
    this.#news.push(piece);
    this.neighbourhood.have(piece);
    if (this.#leases.have(piece).length === 0) return;
    this.#notifier.notify();
    this.#link?.report();
  }

  received(lease: Lease, bytes: number): void {
    if (this.#leases.received(lease, bytes)) this.#link?.report();
  }

  handBack({ id }: Lease, why: HandBackReason): void {
    if (why.kind === "unauthorized") this.#unauthorized = true;
    if (!this.#leases.end(id)) return;
    this.#link?.handBack({ kind: "hand-back", lease: id, why });
    this.#notifier.notify();
  }

  holds(peer: Peer): void {
    if (
      this.#holders.has(peer.id) ||
      this.#holders.size >= MAX_HOLDERS ||
      peer.id === this.#deps.self.peer.id
    )
      return;
    this.#holders.set(peer.id, peer);
    this.#newHolders.push(peer);
    this.#link?.report();
  }

  unreachable({ id }: Peer): void {
    this.#holders.delete(id);
    this.neighbourhood.drop(id);
    this.#unreachable.add(id);
    // It may be that nobody else has what it has: somebody must fetch that.
    this.#link?.report();
  }

  mismatch(hashes: readonly (Uint8Array | undefined)[]): void {
    this.#refuted = true;
    this.#deps.hashes.mismatch(hashes);
  }

  verified(hashes: readonly (Uint8Array | undefined)[]): void {
    this.#deps.hashes.verified(hashes);
  }

  async leave(keeps = true): Promise<void> {
    if (!this.#leaving.signal.aborted) {
      const complete = keeps && this.#have.complete && !this.#refuted;
      this.#link?.leave(complete);
      this.neighbourhood.close(complete);
      this.#leaving.abort();
      this.#deps.ended();
    }
    await this.#done;
  }

  takeProgress(): Progress {
    return {
      kind: "progress",
      pieces: this.#news.splice(0),
      leases: this.#leases.progress,
      load: this.#deps.load(),
      unreachable: takeSome(this.#unreachable),
      lost: takeSome(this.#lost),
      holders: this.#newHolders.splice(0),
    };
  }

  told(told: Told, first: boolean): void {
    this.#heardAt = this.#deps.clock.now();
    if (first) {
      if (this.#again) this.neighbourhood.renew();
      this.#again = true;
      this.alone = false;
      this.coordinator = { id: this.#target, self: this.#target === this.#deps.self.contact.id };
    }
    this.fetchers = told.fetchers;
    this.brought = told.brought;
    this.#pausedUntil = this.#deps.clock.now() + told.pausedMs;
    this.#zone = { rank: told.zoneRank, size: told.zoneSize };
    this.#leases.told(told.leases);
    this.neighbourhood.dismissed(told.gone);
    this.neighbourhood.named(told.neighbours, first);
    this.#notifier.notify();
    if (first && this.#newHolders.length > 0) this.#link?.report();
  }

  async #run(): Promise<void> {
    let hops = 0;
    let failures = 0;
    let target: Contact | undefined;
    let redirected = false;
    while (!this.#leaving.signal.aborted) {
      target ??= this.#nextCoordinator();
      if (target === undefined || failures >= TRIES) await this.#goAlone();
      if (this.#leaving.signal.aborted) return;
      target ??= this.#nextCoordinator();
      if (target === undefined) continue;
      const end = await this.#attend(target, this.#deps.clock.now() < this.#staysUntil ? MAX_HOPS : hops);
      if (this.#leaving.signal.aborted) return;
      this.#noticeAbsence();
      if (end.joined) failures = 0;
      if (end.kind === "redirected") {
        hops = end.joined ? 1 : Math.min(MAX_HOPS, hops + 1);
        target = end.to;
        redirected = true;
        continue;
      }
      if (await this.#shallGoBack(target.id, end)) continue;
      // Others reach it, this node does not: it wants to be left where it gets now.
      if (redirected && !end.joined) this.#staysUntil = this.#deps.clock.now() + TIMES.avoid;
      redirected = false;
      this.#deps.metrics.coordinatorsLost.inc();
      this.#avoided.add(target.id);
      failures += 1;
      hops = 0;
      target = undefined;
    }
  }

  /**
   * A connection may break though nobody is gone, and then it does for many, and may again while it is made anew: all would
   * have other coordinators.
   */
  async #shallGoBack(to: string, end: LinkEnd): Promise<boolean> {
    if (end.kind !== "lost" || !end.broken) return false;
    const now = this.#deps.clock.now();
    const known = this.#goesBack?.to === to ? this.#goesBack : undefined;
    if (known === undefined && !end.joined) return false;
    this.#goesBack = known ?? { to, until: now + TIMES.goBack };
    if (now >= this.#goesBack.until) return false;
    if (!end.joined) await this.#pause(TIMES.goBackPause);
    return true;
  }

  /** Where nobody was heard for longer than a member may be silent, what it held is others' by now. */
  #noticeAbsence(): void {
    const now = this.#deps.clock.now();
    if (now - this.#heardAt <= TIMES.silent) return;
    this.#heardAt = now;
    this.#leases.lapse();
    this.absences += 1;
    this.#notifier.notify();
  }

  async #attend(target: Contact, hops: number): Promise<LinkEnd> {
    const link = new CoordinatorLink(target, this, this.#deps);
    this.#link = link;
    const joining = this.#join(hops);
    this.#target = target.id;
    const end = await link.attend(joining, this.#leaving.signal);
    this.#link = undefined;
    this.coordinator = undefined;
    this.#notifier.notify();
    return end;
  }

  #join(hops: number): Join {
    const { digest, size, geometry } = this.#about;
    const { self, zone, load } = this.#deps;
    // All that is here is in the bitmap; of holders the next one knows nothing.
    this.#news = [];
    this.#newHolders = [...this.#holders.values()];
    return {
      kind: "join",
      digest,
      size,
      host: self.peer.host,
      port: self.peer.port,
      contactPort: self.contact.port,
      zone,
      load: load(),
      have: packBits(geometry.count, (piece) => this.#have.has(piece)),
      leases: this.#leases.list,
      again: this.#again,
      unauthorized: this.#unauthorized,
      hops,
      avoid: this.#avoided.ids(MAX_AVOIDED),
    };
  }

  #nextCoordinator(): Contact | undefined {
    return this.#avoided.firstOf(this.#deps.closest(this.#about.digest, TRIES + this.#avoided.size));
  }

  /** Nobody coordinates: not all at once, each fetches for itself, and looks for a coordinator again a little later. */
  async #goAlone(): Promise<void> {
    if (!this.alone) {
      await this.#pause(this.#deps.random() * TIMES.aloneJitter);
      if (this.#leaving.signal.aborted) return;
      this.alone = true;
      this.#again = true;
      this.#deps.metrics.alone.inc();
      this.#notifier.notify();
    }
    await this.#pause(TIMES.aloneRetry);
  }

  async #pause(ms: number): Promise<void> {
    let cancel: (() => void) | undefined;
    const over = new Promise<void>((resolve) => {
      cancel = this.#deps.clock.after(ms, resolve);
    });
    await raceSignal(over, this.#leaving.signal).catch(() => undefined);
    cancel?.();
  }
}
