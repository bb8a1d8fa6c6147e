import type { Digest } from "@p2p-mirror/shared";
import type { Lease } from "../swarm/swarm.ts";
import type { Candidate, Candidates } from "./candidates.ts";
import type { Crowd, FetchDeps } from "./fetch-deps.ts";
import { fetchRun } from "./fetch-run.ts";
import { handBackReason } from "./hand-back-reason.ts";
import type { Run } from "./picker.ts";
import type { BlobSource } from "./source.ts";

export interface LeaseFetchesDeps extends FetchDeps, Pick<Crowd, "member"> {
  readonly candidates: Candidates;
}

/** The lease is another's now, or goes on with another request. */
class Reassigned extends Error {
  override readonly name = "Reassigned";
}

interface Fetching {
  readonly run: Run;
  readonly abort: AbortController;
  readonly source: string;
}

/** Upstream, taken out of the candidates for as long as there are requests for leases. */
interface UpstreamAtWork {
  readonly candidate: Candidate;
  readonly receivedBefore: number;
  requests: number;
  failure: { readonly error: unknown } | undefined;
}

/** What this node is to bring from upstream for all members: one request for each lease. */
export class LeaseFetches {
  readonly #options: { readonly digest: Digest; readonly size: number };
  readonly #deps: LeaseFetchesDeps;
  /** By the lease's ID. */
  readonly #fetching = new Map<number, Fetching>();
  #upstream: UpstreamAtWork | undefined;
  /** Upstream ignores ranges: whoever streams, streams from the beginning. */
  #unranged = false;
  #patienceMs: () => number = () => Infinity;
  #closed = false;

  constructor(options: { readonly digest: Digest; readonly size: number }, deps: LeaseFetchesDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  get active(): number {
    return this.#fetching.size;
  }

  /** Who is at work. */
  get sources(): string[] {
    return [...this.#fetching.values()].map(({ source }) => source);
  }

  /** Ends the requests for leases that are lost; what others have taken of a lease is open for pieces of theirs. */
  endLost(): void {
    for (const [id, { run, abort }] of this.#fetching) {
      const lease = this.#lease(id);
      if (lease === undefined) abort.abort(new Reassigned());
      else run.end = Math.min(run.end, Math.max(run.next, lease.end));
    }
  }

  /** Begins to fetch what is leased and not fetched yet; within a lease, from the piece `from` on first. */
  fetchAll(from: number, patienceMs: () => number): void {
    this.#patienceMs = patienceMs;
    for (const lease of this.#deps.member.leases) this.#fetch(lease, from);
  }

  preempt(run: Run): void {
    if (this.#unranged) return;
    for (const fetching of this.#fetching.values())
      if (fetching.run === run) fetching.abort.abort(new Reassigned());
  }

  close(): void {
    this.#closed = true;
    for (const { abort } of this.#fetching.values()) abort.abort();
  }

  #lease(id: number): Lease | undefined {
    return this.#deps.member.leases.find((lease) => lease.id === id);
  }

  #isWhole({ first, end }: Lease): boolean {
    return first === 0 && end === this.#deps.pieces.geometry.count;
  }

  #fetch(lease: Lease, from: number): void {
    const { candidates, member, pieces } = this.#deps;
    if (this.#fetching.has(lease.id)) return;
    if (!candidates.mayAskUpstream) return member.handBack(lease, { kind: "unauthorized" });
    // A coordinator that is new does not know it.
    if (this.#unranged && !this.#isWhole(lease)) return member.handBack(lease, { kind: "unranged" });
    const upstream = this.#upstream ?? this.#takeUpstream();
    // After a failure nothing is begun before it is settled when to try again.
    if (upstream === undefined || upstream.failure !== undefined) return;
    // Without ranges what is below comes in any case.
    const first = this.#unranged ? lease.first : Math.max(lease.first, from);
    const run =
      pieces.picker.takeWithin(first, lease.end) ?? pieces.picker.takeWithin(lease.first, lease.end);
    if (run === undefined) return this.#putBackUnused(upstream);
    if (this.#unranged) pieces.picker.stretch(run, lease.end);
    const { source } = upstream.candidate;
    const fetching = { run, abort: new AbortController(), source: source.id };
    this.#fetching.set(lease.id, fetching);
    upstream.requests += 1;
    void this.#bring(lease.id, source, fetching)
      .catch((error: unknown) => {
        if (!this.#closed) this.#failed(lease.id, upstream, fetching, error);
      })
      .finally(() => {
        this.#fetching.delete(lease.id);
        pieces.picker.release(run);
        upstream.requests -= 1;
        this.#putBackUnused(upstream);
        this.#deps.changed();
      });
  }

  /** The next lease begins before the last one is through: they share upstream, as one source of the flight. */
  #takeUpstream(): UpstreamAtWork | undefined {
    const candidate = this.#deps.candidates.takeUpstream();
    if (candidate === undefined) return undefined;
    const { received } = this.#deps.pieces;
    this.#upstream = { candidate, requests: 0, receivedBefore: received, failure: undefined };
    return this.#upstream;
  }

  #putBackUnused(upstream: UpstreamAtWork): void {
    if (upstream.requests > 0) return;
    const { candidates, pieces } = this.#deps;
    if (this.#upstream === upstream) this.#upstream = undefined;
    const { candidate, receivedBefore, failure } = upstream;
    const progressed = pieces.received > receivedBefore;
    if (failure === undefined && progressed) candidates.worked(candidate);
    else if (failure === undefined) candidates.putBack(candidate);
    else
      candidates.failed(candidate, failure.error, {
        progressed,
        begun: pieces.received > 0,
        patienceMs: this.#patienceMs(),
      });
  }

  async #bring(id: number, source: BlobSource, { run, abort }: Fetching): Promise<void> {
    const { pieces, clock, member } = this.#deps;
    const start = pieces.filledTo(run.first);
    // Its end moves down when others take a part.
    const end = (): number => pieces.geometry.end(Math.min(run.end, this.#lease(id)?.end ?? run.end) - 1);
    const renew = (bytes: number): void => {
      const lease = this.#lease(id);
      if (lease !== undefined) member.received(lease, bytes);
    };
    await fetchRun(
      source,
      { start, end: end() },
      this.#options.size,
      {
        end,
        accepted: (from) => {
          this.#deps.accepted("upstream");
          if (from === start || this.#unranged) return;
          this.#unranged = true;
          const lease = this.#lease(id);
          // The coordinator knows already: it is this node that streams the whole. Once, not for each gap.
          if (lease !== undefined && this.#isWhole(lease)) {
            if (!pieces.picker.stretch(run, lease.end)) return;
          } else if (lease !== undefined) member.handBack(lease, { kind: "unranged" });
          throw new Reassigned();
        },
        arrived: (offset, chunk, recycle) => {
          // Not only when it is written: a slow upstream takes longer for what is written at once than a lease lasts.
          renew(chunk.length);
          if (pieces.arrived(offset, chunk, undefined, recycle)) this.#deps.arrived(offset);
        },
        // Nothing to keep, but it goes on: nobody else would be there earlier.
        passed: (bytes) => {
          renew(bytes);
          this.#deps.written("upstream", 0);
        },
        lost: (offset, chunks) => pieces.lost(offset, chunks),
        // The sooner a piece is whole, the sooner neighbours give it on.
        isDue: (from, to) =>
          member.neighbours.length > 0 && pieces.geometry.end(pieces.geometry.at(from)) <= to,
        write: async (offset, chunks) => {
          this.#deps.written("upstream", await pieces.write(run, offset, chunks, undefined));
        },
      },
      // Who is too slow loses the lease: that is the coordinator's to judge.
      { abort, clock, alternatives: () => false },
    );
  }

  #failed(id: number, upstream: UpstreamAtWork, { abort, source, run }: Fetching, error: unknown): void {
    const { member, pieces, logger } = this.#deps;
    if (error instanceof Reassigned || abort.signal.reason instanceof Reassigned) {
      const begun = pieces.filledTo(run.next) - pieces.geometry.start(run.next);
      logger.debug({ digest: this.#options.digest, piece: run.next, begun }, "a lease is another's now");
      return;
    }
    logger.debug({ err: error, digest: this.#options.digest, source }, "a lease failed");
    upstream.failure ??= { error };
    const lease = this.#lease(id);
    if (lease !== undefined) member.handBack(lease, handBackReason(error));
  }
}
