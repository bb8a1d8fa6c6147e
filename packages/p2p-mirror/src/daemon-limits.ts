import { RateLimit } from "@p2p-mirror/shared";
import { Gauge, type Registry } from "prom-client";
import type { MirrorConfig } from "./config/mirror-config.ts";
import type { LimitsStatus } from "./status.ts";

/** The limits of this node, as far as there are any; each of all bodies of its kind together. */
export interface DaemonLimits {
  /** Bytes from registries. */
  readonly upstream: RateLimit | undefined;
  /** Bytes from peers. */
  readonly in: RateLimit | undefined;
  /** Bytes to peers. */
  readonly out: RateLimit | undefined;
}

const limitOf = (rate: number | undefined): RateLimit | undefined =>
  rate === undefined ? undefined : new RateLimit(rate);

export function daemonLimits(config: MirrorConfig, metrics: Registry): DaemonLimits {
  const limits: DaemonLimits = {
    upstream: limitOf(config.limitUpstream),
    in: limitOf(config.limitIn),
    out: limitOf(config.limitOut),
  };
  const registers = [metrics];
  const labelNames = ["direction"] as const;
  const rates = new Gauge({
    name: "p2p_mirror_limit_bytes_per_second",
    help: "Configured limits, by direction (upstream, in, out)",
    labelNames,
    registers,
  });
  const held = new Gauge({
    name: "p2p_mirror_limit_held_bodies",
    help: "Bodies that wait for their turn under a limit, by direction (upstream, in, out)",
    labelNames,
    registers,
    collect: () => {
      for (const [direction, limit] of given(limits)) held.set({ direction }, limit.held);
    },
  });
  for (const [direction, limit] of given(limits)) rates.set({ direction }, limit.bytesPerSecond);
  return limits;
}

export function limitsStatus(limits: DaemonLimits): LimitsStatus {
  return Object.fromEntries(
    given(limits).map(([direction, { bytesPerSecond, held }]) => [direction, { bytesPerSecond, held }]),
  );
}

/** Bytes that one socket may give at once, so that what comes in keeps to the limits. */
export const partBytes = (limits: DaemonLimits): number | undefined => {
  const quanta = [limits.upstream, limits.in].flatMap((limit) => limit?.quantum ?? []);
  return quanta.length === 0 ? undefined : Math.min(...quanta);
};

const given = (limits: DaemonLimits): [keyof LimitsStatus, RateLimit][] =>
  (["upstream", "in", "out"] as const).flatMap((direction): [keyof LimitsStatus, RateLimit][] => {
    const limit = limits[direction];
    return limit === undefined ? [] : [[direction, limit]];
  });
