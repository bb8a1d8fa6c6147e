import { CannotTell, type Check, type Subject } from "../../src/doctor/check.ts";
import type { ContainerdConfig } from "../../src/doctor/containerd-config.ts";
import { examine } from "../../src/doctor/examine.ts";
import { parseVersion } from "../../src/doctor/subject.ts";
import type { DoctorReport, MirrorStatus } from "../../src/status.ts";

export const MIRROR = "http://127.0.0.1:24220";

/** A node on which nothing is wrong. */
export const CONFIG: ContainerdConfig = {
  files: ["/etc/containerd/config.toml"],
  registryTable: 'plugins."io.containerd.cri.v1.images".registry',
  configPath: "/etc/containerd/certs.d",
  discardUnpackedLayers: false,
  localPull: [],
  deprecated: [],
  criDisabled: false,
};

export const STATUS: MirrorStatus = {
  node: {
    id: "12D3KooW",
    version: "1",
    startedAt: "2026-11-01T00:00:00.000Z",
    ready: true,
    advertised: "10.0.0.1:24221",
    access: "public",
    requests: 0,
    canaries: [],
  },
  peers: [],
  flights: [],
  swarm: { banned: [] },
  limits: {},
  cache: { blobs: 0, bytes: 0, maxBytes: 1, freeBytes: 1 },
  images: [],
  upstreams: [],
};

export interface Given {
  readonly settings?: Partial<Subject["settings"]>;
  readonly config?: Partial<ContainerdConfig>;
  readonly version?: string;
  /** `null`: no mirror runs. */
  readonly status?: Partial<MirrorStatus> | null;
  readonly images?: readonly { readonly name: string; readonly createdAt: number }[];
  readonly pull?: Subject["pull"];
}

export function subjectOf(given: Given): Subject {
  return {
    settings: {
      mirror: MIRROR,
      hostsDir: "/etc/containerd/certs.d",
      containerdSocket: "/none",
      containerdNamespace: "k8s.io",
      containerdConfig: "/none",
      dataDir: "/none",
      minFree: () => 0,
      listeners: [],
      knowsNobody: false,
      without: new Set(),
      told: new Set(),
      ...given.settings,
    },
    config: async () => ({ ...CONFIG, ...given.config }),
    version: async () => parseVersion(given.version ?? "2.4.2"),
    images: async () => given.images ?? [],
    pull: async (reference, signal) => {
      if (given.pull === undefined) throw new CannotTell("no containerd");
      await given.pull(reference, signal);
    },
    status: async () => (given.status === null ? undefined : { ...STATUS, ...given.status }),
  };
}

/** What one check says of a node. */
export const reportOf = (check: Check, given: Given): Promise<DoctorReport> =>
  examine([check], subjectOf(given), { signal: new AbortController().signal, now: () => Date.now() });
