import type { Fault, FaultKind } from "./faults.ts";
import type { World } from "./world.ts";

/**
 * Copies of the blob that a fault may cost at upstream beside the one: what was only there where it struck, what was on
 * its way then, what others fetch again because they cannot know. In an undisturbed crowd of so few pieces, late comers
 * and leases that are cut cost up to `UNDISTURBED`.
 */
const COPIES: Readonly<Record<FaultKind, number>> = {
  crash: 1,
  restart: 1,
  stop: 1,
  slow: 0.5,
  flips: 1,
  // After a second wrong blob (several liars) each node gets what it lacks for itself. By node, see below.
  lies: 0,
  // Each side is a swarm of its own, and knows of what it has in common with the other later. By node, see below.
  partition: 2,
  "upstream 500": 1,
  "upstream 429": 1,
  "upstream stalls": 1,
  "upstream gone": 1,
  "upstream cuts": 1,
  // Whatever breaks the one stream begins it anew. By fault, see below.
  "no ranges": 1,
  "401 for some": 0.25,
  "upstream lost": 1,
};
const UNDISTURBED = 1.25;
/** Nodes that may coordinate: without both, everybody works alone. */
const COORDINATORS = 2;
const AWAY: ReadonlySet<FaultKind> = new Set(["crash", "restart", "stop", "slow"]);

/** What may have left upstream for others than liars, in copies of the blob. */
export function copiesAllowed(world: World, faults: readonly Fault[]): number {
  const { nodes } = world;
  const away = new Set(faults.filter(({ kind }) => AWAY.has(kind)).map(({ victim }) => victim?.id));
  const leaderless = world.closest(COORDINATORS).every(({ id }) => away.has(id));
  let copies = UNDISTURBED + (leaderless ? nodes.length : 0);
  const unranged = faults.some(({ kind }) => kind === "no ranges");
  for (const { kind, at, until } of faults) {
    copies += COPIES[kind];
    // As long as bodies end early, none that begins at the first byte gets any further.
    if (kind === "upstream cuts" && unranged)
      copies += ((until - at) / 1_000) * (world.options.links.upstream / world.blob.bytes.length);
    // A side that has neither the coordinator nor the stand-in works alone, each node for itself.
    if (kind === "partition") copies += nodes.length / 2;
    if (kind === "lies") copies += nodes.length;
    if (kind === "no ranges") copies += faults.length;
  }
  return copies;
}

/** Bytes out of upstream in copies of the blob, without what liars got for themselves. */
export function copiesUsed({ upstream, nodes, blob }: World): number {
  let bytes = upstream.sent;
  for (const { id, liesAbout } of nodes) if (liesAbout !== undefined) bytes -= upstream.sentTo.get(id) ?? 0;
  return bytes / blob.bytes.length;
}
