import type { DoctorReport, MirrorStatus } from "../../src/status.ts";

export const DIGEST = `sha256:${"ab".repeat(32)}`;

/** Something broken, and something that could be better; the first of which is said last. */
export const DOCTOR: DoctorReport = {
  checkedAt: "2026-01-01T00:00:00.000Z",
  skipped: [],
  findings: [
    {
      check: "disk",
      severity: "warning",
      what: "the disk is nearly full",
      why: "the cache gives up images sooner",
      fix: "give it room:\n    cache.max_size: 10GiB",
    },
    {
      check: "config-path",
      severity: "broken",
      what: "containerd has no config_path",
      why: "pulls go past the mirror",
      fix: "set it",
    },
  ],
};

/** Of a mirror that has something to say in each of its tables. */
export const STATUS: MirrorStatus = {
  node: {
    id: "12D3KooWexample",
    version: "0.1.0",
    startedAt: "2026-01-01T00:00:00.000Z",
    ready: true,
    advertised: "10.0.0.1:24221",
    access: "public",
    zone: "eu-2",
    containerd: "connected",
  },
  peers: [
    { id: "12D3KooWa", address: "10.0.0.2:24221", state: "up", zone: "eu-1", latencyMs: 3, version: "0.1.0" },
    { id: "12D3KooWb", address: "10.0.0.3:24221", state: "broken" },
  ],
  flights: [
    {
      digest: DIGEST,
      size: 2048,
      received: 1024,
      readers: 2,
      fromUpstream: 900,
      fromPeers: 300,
      sources: [
        { kind: "peer", id: "12D3KooWa" },
        { kind: "upstream", id: "docker.io/library/nginx" },
        { kind: "peer", id: "12D3KooWb" },
      ],
      swarm: {
        coordinator: { id: "12D3KooWexample", self: true, members: 3 },
        alone: false,
        fetchers: 3,
        neighbours: [
          { id: "12D3KooWa", zone: "", load: 0 },
          { id: "12D3KooWb", zone: "a", load: 0.5 },
        ],
        leases: [{ start: 1024, end: 1536 }],
      },
    },
  ],
  swarm: { banned: [] },
  limits: {},
  cache: { blobs: 7, bytes: 1024 ** 3, maxBytes: 20 * 1024 ** 3, freeBytes: 50 * 1024 ** 3 },
  images: [
    {
      reference: "docker.io/library/nginx:1.27",
      digest: DIGEST,
      mediaType: "application/vnd.oci.image.index.v1+json",
      size: 70 * 1024 ** 2,
      resolvedAt: "2026-01-01T00:00:00.000Z",
    },
    { reference: "ghcr.io/a/b:v1", digest: DIGEST, mediaType: "x", resolvedAt: "2026-01-01T00:00:00.000Z" },
  ],
  hosts: [
    {
      directory: "_default",
      inForce: true,
      managed: true,
      asks: ["http://127.0.0.1:24220", "the registry itself"],
    },
    {
      directory: "ghcr.io",
      inForce: false,
      managed: false,
      asks: ["https://a"],
      problem: "hosts.toml is no TOML",
    },
  ],
  upstreams: [
    { registry: "docker.io", state: "rate-limited", remaining: 0, retryAt: "2026-01-01T00:05:00.000Z" },
    { registry: "ghcr.io", state: "unreachable", error: "ENOTFOUND", retryAt: "2026-01-01T00:06:00.000Z" },
  ],
};
