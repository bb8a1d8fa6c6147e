import { TIMES } from "../../../packages/p2p-mirror/src/swarm/times.ts";
import type { Fault, FaultKind } from "./faults.ts";
import type { World } from "./world.ts";

/** One copy, and what late comers and leases that are cut cost in a crowd of so few pieces. */
const UNDISTURBED = 1.25;
/** Nodes that may coordinate. Where neither can be had each works alone until it asks the next closest ones. */
const COORDINATORS = 2;
const LEADERLESS_MS = TIMES.dial + TIMES.aloneRetry + TIMES.aloneJitter;
const AWAY: ReadonlySet<FaultKind> = new Set(["crash", "restart", "stop", "slow"]);

/** What may have left upstream for others than liars, in copies of the blob: by what each fault can destroy, or hide from others. */
export function copiesAllowed(world: World, faults: readonly Fault[]): number {
  const unranged = faults.some(({ kind }) => kind === "no ranges");
  let copies = UNDISTURBED + whileLeaderless(world, faults) + afterLies(world, faults, unranged);
  // The first stream may be one that was cut before anybody knew.
  if (unranged) copies += 1;
  for (const fault of faults) copies += lost(world, fault) + (unranged ? begunAnew(world, fault) : 0);
  return copies;
}

/** What a fault takes away that others had no part of yet. */
function lost({ nodes, geometry, blob }: World, { kind }: Fault): number {
  // All of it, where that node alone was at work; from a slow one it comes too late.
  if (AWAY.has(kind)) return 1;
  // Every other piece.
  if (kind === "flips") return 1 / 2;
  // The other side brings the rest for itself.
  if (kind === "partition") return 1;
  // A piece of each node: begun, and broken off; or fetched in the place of others by who waits.
  if (kind.startsWith("upstream")) return (nodes.length * geometry.pieceSize) / blob.bytes.length;
  return 0;
}

/** Without ranges, whatever breaks the one stream begins it anew: copies that this fault may cost so. */
function begunAnew(world: World, { kind, at, until }: Fault): number {
  if (kind === "crash") return 1;
  // As it begins, and as it ends: then two streams meet, or a coordinator is back that does not know the one there is.
  if (AWAY.has(kind) || kind === "partition") return 2;
  // As long as bodies end early, none that begins at the first byte gets any further.
  if (kind === "upstream cuts") return 1 + copiesIn(world, until - at);
  return kind.startsWith("upstream") ? 1 : 0;
}

/** Nobody believes what a liar has signed any more. */
function afterLies({ nodes }: World, faults: readonly Fault[], unranged: boolean): number {
  const liars = faults.filter(({ kind }) => kind === "lies").length;
  const honest = nodes.length - liars;
  if (liars === 0) return 0;
  // Each streams for itself, in the pull that fails and in the next one.
  if (unranged) return 2 * honest - 1;
  // Those that have signed share out once more who fetches what; after a second wrong blob each gets all for itself.
  return liars === 1 ? 1 : honest - 1;
}

/** All that upstream sends meanwhile may be what others have, in the whole crowd or on one side of a cut. */
function whileLeaderless(world: World, faults: readonly Fault[]): number {
  const away = new Set(faults.filter(({ kind }) => AWAY.has(kind)).map(({ victim }) => victim?.id));
  const leaders = world.closest(COORDINATORS).filter(({ id }) => !away.has(id));
  const sides = [false, true].filter((far) => world.nodes.some(({ id }) => world.far.has(id) === far));
  const leaderless = sides.filter((far) => leaders.every(({ id }) => world.far.has(id) !== far));
  return leaderless.length * copiesIn(world, LEADERLESS_MS);
}

const copiesIn = ({ options, blob }: World, ms: number): number =>
  ((ms / 1_000) * options.links.upstream) / blob.bytes.length;

/** Bytes out of upstream in copies of the blob, without what liars got for themselves. */
export function copiesUsed({ upstream, nodes, blob }: World): number {
  let bytes = upstream.sent;
  for (const { id, liesAbout } of nodes) if (liesAbout !== undefined) bytes -= upstream.sentTo.get(id) ?? 0;
  return bytes / blob.bytes.length;
}
