import { AllSourcesFailedError, IntegrityError, NotFoundError } from "@p2p-mirror/shared";
import { TIMES } from "../../../packages/p2p-mirror/src/swarm/times.ts";
import type { Fault, FaultKind } from "./faults.ts";
import type { Pull, SimNode } from "./sim-node.ts";
import type { World } from "./world.ts";

/** A flight gives up after 45 s without a byte; upstream's client and its own last tries come on top. */
const LONGEST_FAILURE_MS = 100_000;

/** Then upstream gives nothing to anybody. */
const OUT: ReadonlySet<FaultKind> = new Set([
  "upstream 500",
  "upstream 429",
  "upstream stalls",
  "upstream gone",
  "upstream lost",
]);
/** After these a crowd may be two, each with a coordinator, until the farther one looks again for one that did not answer. */
const SPLITS: ReadonlySet<FaultKind> = new Set(["crash", "restart", "stop", "slow", "partition"]);
const SPLIT_MS = TIMES.avoid + TIMES.merge;

/** Whether pulls end, how, and whether they had to fail. Times of `faults` are those of the clock. */
export class Failures {
  readonly #world: World;
  readonly #faults: readonly Fault[];
  readonly #lostAt: number;

  constructor(world: World, faults: readonly Fault[]) {
    this.#world = world;
    this.#faults = faults;
    this.#lostAt = faults.find(({ kind }) => kind === "upstream lost")?.at ?? Infinity;
  }

  /** What must not be of the pull that is under way, or undefined. */
  hangs({ id, pullingSince }: SimNode): string | undefined {
    if (pullingSince === undefined) return undefined;
    const ms = this.#msInVain(pullingSince, this.#world.clock.now());
    return ms > LONGEST_FAILURE_MS ? `${id} has pulled for ${ms} ms, and neither ends nor fails` : undefined;
  }

  /** What must not be of one that has ended, or undefined. */
  problemOf(node: SimNode, pull: Pull): string | undefined {
    const { error } = pull;
    if (error === undefined) return undefined;
    const { id } = node;
    const ms = Math.round(this.#msInVain(pull.began, pull.ended));
    const isWrong = error instanceof IntegrityError;
    // Who believes nobody streams for itself, and all share upstream.
    if (ms > LONGEST_FAILURE_MS + (isWrong ? this.#allAloneMs : 0)) return `${id} took ${ms} ms to fail`;
    if (isWrong) return undefined;
    if (!(error instanceof NotFoundError || error instanceof AllSourcesFailedError))
      return `${id} failed: ${error.message}`;
    return this.#isExcused(node, pull)
      ? undefined
      : `${id} failed without need after ${ms} ms: ${error.message}`;
  }

  /** While bytes come a pull goes on; from when upstream is gone for good it may be in vain. */
  #msInVain(began: number, ended: number): number {
    return ended - (this.#lostAt < ended ? Math.max(began, this.#lostAt) : began);
  }

  /** Milliseconds that all nodes take when each gets the whole from upstream. */
  get #allAloneMs(): number {
    const { options, blob, nodes } = this.#world;
    const { upstream, wan = upstream } = options.links;
    return (1_000 * nodes.length * blob.bytes.length) / Math.min(upstream, nodes.length * wan);
  }

  #isExcused(node: SimNode, { began, ended, received }: Pull): boolean {
    // A flight that has bytes waits until upstream is back.
    if (this.#isUpstreamOut(began, ended) && (received === 0 || this.#lostAt <= ended)) return true;
    return this.#world.upstream.faults.denied.has(node.id) && !this.#hasHelp(began, ended);
  }

  #isUpstreamOut(began: number, ended: number): boolean {
    return this.#faults.some(({ kind, at, until }) => OUT.has(kind) && at <= ended && until >= began);
  }

  /** Somebody whom upstream lets in, and with whom nothing is wrong, brings it to those who are denied, from before until after. */
  #hasHelp(began: number, ended: number): boolean {
    // Who believes no signer any more needs upstream itself.
    if (this.#faults.some(({ kind }) => kind === "lies")) return false;
    // A crowd that had to do without its coordinator has another one, and who comes to that one's place is alone in it.
    const isSplit = this.#faults.some(
      ({ kind, at, until }) => SPLITS.has(kind) && at <= ended && until + SPLIT_MS >= began,
    );
    if (isSplit) return false;
    const { nodes, upstream } = this.#world;
    return nodes.some(
      (one) =>
        !upstream.faults.denied.has(one.id) &&
        this.#faults.every(({ victim }) => victim !== one) &&
        // Who was not served by an upstream that was out tells others that it is not let in, until its next pull.
        one.pulls.some((pull) => pull.began <= began && !this.#isUpstreamOut(pull.began, ended)),
    );
  }
}
