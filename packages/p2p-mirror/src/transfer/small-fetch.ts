import {
  AllSourcesFailedError,
  IntegrityError,
  linkSignal,
  NotFoundError,
  raceSignal,
  SourceError,
  type Logger,
} from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import { Candidates, type Candidate } from "./candidates.ts";
import { handBackReason } from "./hand-back-reason.ts";
import { Notifier } from "./notifier.ts";
import { PATIENCE_MS } from "./patience.ts";
import { BusyError } from "./peer-client.ts";
import type { SmallMember } from "./small-members.ts";
import type { SmallPatience } from "./small-patience.ts";
import { SMALL_KINDS, type SmallObject, type SmallRequest } from "./small-request.ts";
import { peerSource, upstreamSource, type PeerSourceDeps, type SmallSource } from "./small-sources.ts";
import type { Source } from "./source.ts";
import { TooLargeError } from "./whole.ts";

/** Of those that had time for an answer. */
const MAX_PEERS_ASKED = 4;
/** Who has no coordinator by then goes on without: time to give a silent one up (swarm/times.ts) and ask its stand-in. */
const JOIN_PATIENCE_MS = 1_300;
/** A lease is kept while upstream is asked again within this; otherwise it is another's turn. */
const KEEP_LEASE_MS = 1_000;

export interface SmallFetchDeps extends PeerSourceDeps {
  /** Undefined: nobody else is looked at. */
  readonly member: SmallMember | undefined;
  readonly patience: SmallPatience;
  readonly logger: Logger;
}

/**
 * One small object on its way: from a peer that holds it; else from upstream when it is this node's turn, or from the
 * member of its swarm whose turn it is. One peer is asked at a time, and upstream beside it when nobody has brought it
 * in time.
 */
export class SmallFetch {
  readonly #request: SmallRequest;
  readonly #deps: SmallFetchDeps;
  readonly #candidates: Candidates<SmallSource>;
  readonly #changes = new Notifier();
  readonly #atWork = new Set<Source["kind"]>();
  readonly #asking = new Set<Promise<void>>();
  /** What upstream said, of all repositories. */
  readonly #refusals: unknown[] = [];
  readonly #began: number;
  readonly #waitMs: number;
  /** Until when others, or a peer that is at it, are waited for; then upstream is asked, too. */
  #until: number;
  /** Peers that may still be asked: some that a lookup finds, and each member once that says it has it. */
  #tries = MAX_PEERS_ASKED;
  readonly #heard = new Set<string>();
  /** It has had a coordinator, so that others may be at it, even if that one is lost. */
  #joined = false;
  #over = false;
  #found: SmallObject | undefined;
  #tooLarge: { readonly error: TooLargeError; readonly final: boolean } | undefined;
  #cancelWake: (() => void) | undefined;

  constructor(request: SmallRequest, deps: SmallFetchDeps) {
    this.#request = request;
    this.#deps = deps;
    const { clock, sources, patience } = deps;
    this.#began = clock.now();
    this.#waitMs = patience.waitMs;
    this.#until = this.#began + this.#waitMs;
    this.#candidates = new Candidates<SmallSource>({
      peers: (signal) => this.#holders(signal),
      named: (peer) => (sources.mayAsk(peer) ? this.#peer(peer) : undefined),
      clock,
      changed: () => this.#changes.notify(),
    });
    this.add(request);
  }

  /** Another repository it may be fetched from at upstream. */
  add(request: SmallRequest): void {
    this.#candidates.addUpstream(upstreamSource(request));
  }

  /** Resolves when nobody is asked any more, soon after `run`. */
  get settled(): Promise<unknown> {
    return Promise.all(this.#asking);
  }

  /** To be called once. @throws NotFoundError: upstream refuses it; TooLargeError; AllSourcesFailedError; of `signal`. */
  async run(signal: AbortSignal): Promise<SmallObject> {
    const link = linkSignal([signal], PATIENCE_MS);
    this.#candidates.look();
    void this.#follow();
    try {
      for (;;) {
        const { change } = this.#changes;
        if (this.#found !== undefined) return this.#found;
        if (this.#tooLarge?.final === true) throw this.#tooLarge.error;
        this.#hear();
        this.#askAll(link.signal);
        if (!this.#hasHope) throw this.#failure();
        await raceSignal(change, link.signal);
      }
    } catch (error) {
      throw link.signal.aborted && !signal.aborted ? this.#failure(error) : error;
    } finally {
      this.#over = true;
      this.#cancelWake?.();
      this.#candidates.close();
      link.release();
      // Whoever else is still at work.
      link.abort(new DOMException("it came from another source", "AbortError"));
    }
  }

  async *#holders(signal: AbortSignal): AsyncGenerator<SmallSource, void, undefined> {
    const { sources } = this.#deps;
    for await (const peer of sources.holders(this.#request.digest, signal)) yield this.#peer(peer);
  }

  #peer(peer: Peer): SmallSource {
    return peerSource(peer, this.#request, this.#deps);
  }

  /** What other members say may change at any time. */
  async #follow(): Promise<void> {
    const { member } = this.#deps;
    if (member === undefined) return;
    while (!this.#over) {
      await member.change;
      this.#changes.notify();
    }
  }

  #hear(): void {
    const { member, sources } = this.#deps;
    if (member === undefined) return;
    this.#joined ||= member.isSettled;
    for (const peer of member.holders) {
      if (!sources.mayAsk(peer) || !this.#candidates.preferPeer(this.#peer(peer))) continue;
      if (!this.#heard.has(peer.id)) this.#tries += 1;
      this.#heard.add(peer.id);
    }
    if (!this.#candidates.mayAskUpstream) member.handBack({ kind: "unauthorized" });
  }

  #askAll(signal: AbortSignal): void {
    this.#wakeLater();
    const late = this.#deps.clock.now() >= this.#until;
    for (;;) {
      const asksUpstream = this.#atWork.has("upstream");
      const candidate = this.#candidates.take(late, {
        peers: this.#mayAskPeers && !this.#atWork.has("peer") && (late || !asksUpstream),
        upstream: !asksUpstream && this.#isTurn(late),
      });
      if (candidate === undefined) return;
      const { member, patience } = this.#deps;
      if (candidate.source.kind === "upstream" && member?.isTurn === false) patience.inVain();
      const asking = this.#ask(candidate, signal).finally(() => this.#asking.delete(asking));
      this.#asking.add(asking);
    }
  }

  get #mayAskPeers(): boolean {
    return this.#tries > 0;
  }

  #isTurn(late: boolean): boolean {
    const { member, clock } = this.#deps;
    if (member === undefined || member.isTurn || late) return true;
    return !this.#joined && clock.now() >= this.#joinsUntil;
  }

  get #joinsUntil(): number {
    return this.#began + Math.min(JOIN_PATIENCE_MS, this.#waitMs);
  }

  /** Looks again when others have had their time. While upstream wants to be left alone, nobody's begins. */
  #wakeLater(): void {
    const { member, clock } = this.#deps;
    const now = clock.now();
    const pausedMs = member?.pausedMs ?? 0;
    if (pausedMs > 0) this.#until = Math.max(this.#until, now + pausedMs + this.#waitMs);
    const next = !this.#joined && this.#joinsUntil > now ? this.#joinsUntil : this.#until;
    this.#cancelWake?.();
    this.#cancelWake = next > now ? clock.after(next - now, () => this.#changes.notify()) : undefined;
  }

  /** Somebody may still bring it. */
  get #hasHope(): boolean {
    const { member, clock } = this.#deps;
    const { lookedUp, hasPeers, mayAskUpstream } = this.#candidates;
    if (this.#atWork.size > 0 || !lookedUp || mayAskUpstream || (hasPeers && this.#mayAskPeers)) return true;
    return member?.hasOthers === true && clock.now() < this.#until;
  }

  async #ask(candidate: Candidate<SmallSource>, signal: AbortSignal): Promise<void> {
    const { kind, peer } = candidate.source;
    this.#atWork.add(kind);
    try {
      const object = await candidate.source.fetch(signal);
      this.#found ??= object;
      this.#candidates.worked(candidate);
      if (peer !== undefined && this.#heard.has(peer.id)) this.#deps.patience.paid();
      // Layers and configs have a parent to remember holders for. Who has it of late, as other members do, has no layers yet.
      if (peer !== undefined && this.#request.kind === "manifest" && !this.#heard.has(peer.id))
        this.#deps.sources.remember(this.#request.digest, peer);
    } catch (error) {
      if (!signal.aborted) this.#failed(candidate, error);
    } finally {
      this.#atWork.delete(kind);
      this.#changes.notify();
    }
  }

  #failed(candidate: Candidate<SmallSource>, error: unknown): void {
    const { logger, clock, sources, member } = this.#deps;
    const { digest } = this.#request;
    const { source } = candidate;
    logger.debug({ err: error, digest, source: source.id }, "a source failed");
    if (error instanceof TooLargeError) this.#tooLarge ??= { error, final: source.kind === "upstream" };
    if (source.peer === undefined) this.#refusals.push(error);
    else if (!(error instanceof BusyError)) {
      this.#tries -= 1;
      if (error instanceof NotFoundError) sources.missing(digest, source.peer);
      // Of a size nobody knows the truth before the bytes are here.
      if (error instanceof IntegrityError && error.code === "DIGEST_MISMATCH") source.refuted();
      member?.didNotGive(source.peer);
    }
    this.#candidates.failed(candidate, error, {
      progressed: false,
      begun: false,
      patienceMs: PATIENCE_MS - (clock.now() - this.#began),
    });
    if (source.kind === "upstream") this.#giveTurn(candidate, error);
  }

  /** Upstream did not give it to this node: another member's turn, unless this one will ask again at once. */
  #giveTurn({ notBefore }: Candidate<SmallSource>, error: unknown): void {
    const { member, clock } = this.#deps;
    const again = this.#candidates.mayAskUpstream && notBefore - clock.now() < KEEP_LEASE_MS;
    if (!again) member?.handBack(handBackReason(error));
  }

  #failure(reason?: unknown): Error {
    const { digest, kind } = this.#request;
    if (this.#tooLarge !== undefined) return this.#tooLarge.error;
    if (reason === undefined && this.#refusals.length > 0 && this.#refusals.every(isRefusal))
      return new NotFoundError(SMALL_KINDS[kind].unknown, digest, { cause: this.#refusals[0] });
    const errors = this.#candidates.errors;
    return new AllSourcesFailedError(digest, reason === undefined ? errors : [...errors, reason]);
  }
}

const isRefusal = (error: unknown): boolean =>
  error instanceof NotFoundError || (error instanceof SourceError && error.code === "DENIED");
