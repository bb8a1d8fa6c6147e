import { SourceError } from "@p2p-mirror/shared";
import type { SimNode } from "./sim-node.ts";
import { UPSTREAM } from "./upstream-model.ts";
import type { World } from "./world.ts";

/** What may go wrong, each at a random time. */
export const FAULTS = [
  "crash",
  "restart",
  "stop",
  "slow",
  "flips",
  "lies",
  "partition",
  "upstream 500",
  "upstream 429",
  "upstream stalls",
  "upstream gone",
  "upstream cuts",
  "no ranges",
  "401 for some",
  "upstream lost",
] as const;
export type FaultKind = (typeof FAULTS)[number];

export interface Fault {
  readonly kind: FaultKind;
  /** Milliseconds after the beginning; and until when it lasts. */
  readonly at: number;
  readonly until: number;
  readonly victim: SimNode | undefined;
}

/** Kinds that concern one node, which others must survive. */
const OF_NODES: ReadonlySet<FaultKind> = new Set(["crash", "restart", "stop", "slow", "flips", "lies"]);
/** These are so from the beginning to the end. */
const ALWAYS: ReadonlySet<FaultKind> = new Set(["no ranges", "401 for some", "lies"]);
/** Of so many runs upstream goes and does not come back, whatever else happens. */
const SHARE_LOST = 1 / 8;

/** So often it is tried to find another fault that is possible beside those there are. */
const MAX_TRIES = 50;

/** `count` faults, fewer where `kinds` has no more, in the first `ms` milliseconds. Two nodes at least have none. */
export function planFaults(
  world: World,
  kinds: readonly FaultKind[],
  count: number,
  ms: number,
  random: () => number,
): Fault[] {
  const below = (limit: number): number => Math.floor(random() * limit);
  const among = kinds.filter((kind) => kind !== "upstream lost");
  const victims = [...world.nodes];
  const plan: Fault[] = [];
  for (let tries = 0; plan.length < count && tries < MAX_TRIES; tries += 1) {
    const kind = among[below(among.length)];
    if (kind === undefined) break;
    const ofNode = OF_NODES.has(kind);
    if (ofNode ? victims.length <= 2 : plan.some((fault) => fault.kind === kind)) continue;
    const [victim] = ofNode ? victims.splice(below(victims.length), 1) : [];
    const at = ALWAYS.has(kind) ? 0 : below(ms);
    plan.push({ kind, at, until: at + 500 + below(12_000), victim });
  }
  return plan;
}

/** Upstream is gone at a random time, for good; in most runs it is not. */
export function planLoss(kinds: readonly FaultKind[], ms: number, random: () => number): Fault[] {
  if (!kinds.includes("upstream lost") || random() < 1 - SHARE_LOST) return [];
  return [{ kind: "upstream lost", at: Math.floor(random() * ms), until: Infinity, victim: undefined }];
}

/** Makes it happen, and end, by the clock of the world. */
export function schedule(world: World, fault: Fault, revive: (node: SimNode) => void): void {
  const { kind, at, until, victim } = fault;
  const { faults } = world.upstream;
  const during = (begin: () => void, end: () => void): void => {
    world.clock.after(at, begin);
    world.clock.after(until, end);
  };
  switch (kind) {
    case "crash":
      world.clock.after(at, () => victim?.crash());
      break;
    case "restart":
      during(
        () => victim?.crash(),
        () => void victim?.boot().then(() => revive(victim)),
      );
      break;
    case "stop":
      during(
        () => victim?.stop(),
        () => victim?.cont(),
      );
      break;
    case "slow":
      during(
        () => rated(world, victim, 1 / 20),
        () => rated(world, victim, 1),
      );
      break;
    case "flips": {
      const odd = fault.at % 2;
      during(
        () => {
          if (victim !== undefined) victim.flips = (piece) => piece % 2 === odd;
        },
        () => {
          if (victim !== undefined) victim.flips = undefined;
        },
      );
      break;
    }
    case "lies":
      if (victim !== undefined) victim.liesAbout = (chunk) => changed(chunk);
      break;
    case "partition": {
      const far = new Set(world.nodes.filter(() => world.random() < 0.5).map(({ id }) => id));
      world.far = far;
      during(
        () => world.part((a, b) => far.has(a) !== far.has(b)),
        () => world.part(undefined),
      );
      break;
    }
    case "upstream 500":
    case "upstream 429":
    case "upstream gone": {
      const how = ({ "upstream 500": "500", "upstream 429": "429", "upstream gone": "gone" } as const)[kind];
      during(
        () => {
          faults.failing = how;
          faults.retryAfterMs = 1_000 * (1 + (at % 3));
          if (how === "gone") world.cut(UPSTREAM, new SourceError("CUT", UPSTREAM));
        },
        () => {
          faults.failing = undefined;
        },
      );
      break;
    }
    case "upstream stalls":
      during(
        () => {
          faults.stalled = true;
          world.waysChanged();
        },
        () => {
          faults.stalled = false;
          world.waysChanged();
        },
      );
      break;
    case "upstream cuts":
      during(
        () => {
          faults.cutAfter = 300_000 + (at % 7) * 200_000;
        },
        () => {
          faults.cutAfter = undefined;
        },
      );
      break;
    case "upstream lost":
      world.clock.after(at, () => {
        faults.lost = true;
        world.cut(UPSTREAM, new SourceError("CUT", UPSTREAM));
      });
      break;
    case "no ranges":
      faults.ranges = false;
      break;
    case "401 for some":
      for (const [nth, { id }] of world.nodes.entries()) if (nth % 3 !== 0) faults.denied.add(id);
      break;
  }
}

function rated(world: World, node: SimNode | undefined, share: number): void {
  const { links } = world.options;
  if (node === undefined) return;
  node.up.rate = links.egress * share;
  node.down.rate = links.ingress * share;
  world.flows.changed();
}

function changed(chunk: Buffer): Buffer {
  const copy = Buffer.from(chunk);
  const at = copy.length >> 1;
  copy[at] = (copy[at] ?? 0) ^ 0x55;
  return copy;
}
