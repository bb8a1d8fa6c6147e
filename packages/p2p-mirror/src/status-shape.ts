import type { MirrorStatus } from "./status.ts";

type Check = (value: unknown) => boolean;

const string: Check = (value) => typeof value === "string";
const number: Check = (value) => typeof value === "number";
const boolean: Check = (value) => typeof value === "boolean";

const record =
  (fields: Readonly<Record<string, Check>>): Check =>
  (value) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
    const all: Readonly<Record<string, unknown>> = { ...value };
    return Object.entries(fields).every(([name, check]) => check(all[name]));
  };
const listOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check);
const maybe =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);

const flightSwarm = record({
  coordinator: maybe(record({ id: string, self: boolean, members: maybe(number) })),
  alone: boolean,
  fetchers: number,
  neighbours: listOf(record({ id: string, zone: string, load: number })),
  leases: listOf(record({ start: number, end: number })),
});

const finding = record({ check: string, severity: string, what: string, why: string, fix: string });

const limit = maybe(record({ bytesPerSecond: number, held: number }));

const FIELDS: Readonly<Record<keyof MirrorStatus, Check>> = {
  node: record({
    id: string,
    version: string,
    startedAt: string,
    ready: boolean,
    advertised: string,
    zone: maybe(string),
    requests: maybe(number),
    canaries: maybe(listOf(string)),
  }),
  peers: listOf(
    record({
      id: string,
      address: string,
      state: string,
      version: maybe(string),
      zone: maybe(string),
      latencyMs: maybe(number),
      faults: maybe(number),
    }),
  ),
  hosts: maybe(
    listOf(
      record({
        directory: string,
        inForce: boolean,
        managed: boolean,
        asks: listOf(string),
        problem: maybe(string),
        notUnderstood: maybe(string),
      }),
    ),
  ),
  bootstrap: maybe(listOf(record({ address: string, reason: string }))),
  doctor: maybe(
    record({
      checkedAt: string,
      findings: listOf(finding),
      skipped: listOf(record({ check: string, why: string })),
    }),
  ),
  flights: listOf(
    record({
      digest: string,
      size: number,
      received: number,
      readers: number,
      fromUpstream: number,
      fromPeers: number,
      sources: listOf(record({ kind: string, id: string })),
      swarm: maybe(flightSwarm),
    }),
  ),
  limits: record({ upstream: limit, in: limit, out: limit }),
  swarm: record({ banned: listOf(string) }),
  cache: record({ blobs: number, bytes: number, maxBytes: number, freeBytes: number }),
  images: listOf(record({ reference: string, digest: string, mediaType: string, resolvedAt: string })),
  upstreams: listOf(
    record({
      registry: string,
      host: maybe(string),
      state: string,
      error: maybe(string),
      skewSeconds: maybe(number),
    }),
  ),
};

const isStatus = record(FIELDS);

/** True for an answer with everything the commands show: whatever listens on that port need not be a mirror. */
export function isMirrorStatus(value: unknown): value is MirrorStatus {
  return isStatus(value);
}
