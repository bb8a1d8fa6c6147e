import {
  ConfigError,
  fieldOf,
  formatHostPort,
  isLoopback,
  type HostPort,
  type ListenAddress,
  type Origin,
  type Resolved,
} from "@p2p-mirror/shared/config";
import type { MirrorConfig, MirrorSettings, RegistryConfig } from "./mirror-config.ts";

export interface RuleInputs {
  /** The host that means all addresses of this machine: `0.0.0.0`, or `::` on one without IPv4. */
  readonly allAddresses: string;
}

const LOOPBACK = "127.0.0.1";

const UNCHANGED_REGISTRY: RegistryConfig = Object.freeze({
  url: undefined,
  ca: Object.freeze([]),
  skipVerify: false,
  headers: new Map(),
  overridePath: false,
  size: undefined,
  ttl: undefined,
  off: false,
});

function withHost(address: ListenAddress, host: string): HostPort {
  return Object.freeze({ host: address.host ?? host, port: address.port });
}

/**
 * The listeners of the mesh: all addresses with a cluster secret, loopback without; beyond loopback without a secret only
 * when `insecure_open_mesh` says so.
 */
function meshListen(
  resolved: Resolved<MirrorSettings>,
  key: "peer_listen" | "p2p_listen",
  given: ListenAddress,
  inputs: RuleInputs,
): HostPort {
  const hasSecret = resolved.values.clusterSecretFile.length > 0;
  const address = withHost(given, hasSecret ? inputs.allAddresses : LOOPBACK);
  if (hasSecret || isLoopback(address.host) || resolved.values.insecureOpenMesh) return address;
  throw new ConfigError(
    fieldOf(resolved.origins.get(key) ?? { kind: "default" }, [key]),
    formatHostPort(address),
    "beyond loopback whoever connects is a peer: add --cluster-secret-file FILE, or --insecure-open-mesh to allow that",
  );
}

/** The first lifetime that was given counts; `off` is one that never ends. */
function lifetime(...given: readonly (number | "off" | undefined)[]): number | undefined {
  const ttl = given.find((one) => one !== undefined);
  return ttl === "off" ? undefined : ttl;
}

function mergeRegistries(settings: MirrorSettings): ReadonlyMap<string, RegistryConfig> {
  const registries = new Map<string, RegistryConfig>();
  for (const [name, registry] of settings.registries) {
    registries.set(name, Object.freeze({ ...registry, ttl: lifetime(registry.ttl, settings.cacheTtl) }));
  }
  for (const { registry, url } of settings.upstream) {
    const before = registries.get(registry) ?? { ...UNCHANGED_REGISTRY, ttl: lifetime(settings.cacheTtl) };
    registries.set(registry, Object.freeze({ ...before, url }));
  }
  return registries;
}

function refuseTwice(settings: MirrorSettings, origin: Origin): void {
  const seen = new Set<string>();
  for (const { registry } of settings.upstream) {
    if (seen.has(registry)) {
      throw new ConfigError(fieldOf(origin, ["upstream"]), registry, "it is given twice; leave one");
    }
    seen.add(registry);
  }
}

/** Applies the rules between settings. @throws ConfigError for the first that is broken. */
export function applyRules(resolved: Resolved<MirrorSettings>, inputs: RuleInputs): MirrorConfig {
  const { values: settings, origins } = resolved;
  refuseTwice(settings, origins.get("upstream") ?? { kind: "default" });
  const { upstream: _upstream, clusterSecretFile: clusterSecretFiles, ...rest } = settings;
  return Object.freeze({
    ...rest,
    clusterSecretFiles,
    cacheTtl: lifetime(settings.cacheTtl),
    registryListen: withHost(settings.registryListen, LOOPBACK),
    adminListen: withHost(settings.adminListen, LOOPBACK),
    peerListen: meshListen(resolved, "peer_listen", settings.peerListen, inputs),
    p2pListen: meshListen(resolved, "p2p_listen", settings.p2pListen, inputs),
    registries: mergeRegistries(settings),
  });
}
