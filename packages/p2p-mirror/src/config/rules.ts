import {
  formatHostPort,
  isLoopback,
  settingError,
  type HostPort,
  type ListenAddress,
  type Resolved,
} from "@p2p-mirror/shared/config";
import { checkDockerConfig, originOf } from "./files.ts";
import type { MirrorConfig, MirrorSettings } from "./mirror-config.ts";
import { readRegistries } from "./registries.ts";

export interface RuleInputs {
  /** The host that means all addresses of this machine: `0.0.0.0`, or `::` on one without IPv4. */
  readonly allAddresses: string;
}

const LOOPBACK = "127.0.0.1";

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
  const fix =
    "beyond loopback whoever connects is a peer: add --cluster-secret-file FILE, or --insecure-open-mesh to allow that";
  throw settingError(originOf(resolved, key), [key], formatHostPort(address), fix);
}

/** Two listeners of one process cannot share an address; port 0 is a new one each time. */
function refuseSharedAddress(
  resolved: Resolved<MirrorSettings>,
  listeners: Readonly<Record<string, HostPort>>,
): void {
  const seen = new Map<string, string>();
  for (const [key, address] of Object.entries(listeners)) {
    if (address.port === 0) continue;
    const text = formatHostPort(address);
    const other = seen.get(text);
    if (other !== undefined) {
      const origin = originOf(resolved, key);
      throw settingError(origin, [key], text, `${other} has the same address; give each its own port`);
    }
    seen.set(text, key);
  }
}

/** Who is to ask the Kubernetes API must know where it is. */
function needKubernetesApi(resolved: Resolved<MirrorSettings>): void {
  const { bootstrapService: service, nodeCondition, kubernetesApi } = resolved.values;
  if (kubernetesApi !== undefined) return;
  const refuse = (key: string, value: string | undefined): void => {
    if (value === undefined) return;
    const fix = "the Kubernetes API is needed for that: add --kubernetes-api HOST:PORT";
    throw settingError(originOf(resolved, key), [key], value, fix);
  };
  refuse("bootstrap_service", service && `${service.namespace}/${service.name}`);
  refuse("node_condition", nodeCondition);
}

/** Applies the rules between settings. @throws ConfigError for the first that is broken. */
export async function applyRules(
  resolved: Resolved<MirrorSettings>,
  inputs: RuleInputs,
): Promise<MirrorConfig> {
  const { upstream: _upstream, clusterSecretFile: clusterSecretFiles, ...settings } = resolved.values;
  const listeners = {
    registryListen: withHost(settings.registryListen, LOOPBACK),
    peerListen: meshListen(resolved, "peer_listen", settings.peerListen, inputs),
    p2pListen: meshListen(resolved, "p2p_listen", settings.p2pListen, inputs),
    adminListen: withHost(settings.adminListen, LOOPBACK),
    metricsListen: settings.metricsListen && withHost(settings.metricsListen, inputs.allAddresses),
  };
  refuseSharedAddress(resolved, {
    registry_listen: listeners.registryListen,
    peer_listen: listeners.peerListen,
    p2p_listen: listeners.p2pListen,
    admin_listen: listeners.adminListen,
    ...(listeners.metricsListen && { metrics_listen: listeners.metricsListen }),
  });
  needKubernetesApi(resolved);
  await checkDockerConfig(resolved);
  return Object.freeze({
    ...settings,
    ...listeners,
    clusterSecretFiles,
    registries: await readRegistries(resolved),
  });
}
