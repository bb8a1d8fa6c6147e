import type { KubernetesObject } from "./kustomize.ts";

export interface Container {
  readonly name: string;
  readonly image: string;
  readonly args: readonly string[];
  readonly terminationMessagePolicy?: string;
  readonly env?: readonly { readonly name: string; readonly value?: string; readonly valueFrom?: unknown }[];
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string }[];
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly resources?: {
    readonly requests: Readonly<Record<string, string>>;
    readonly limits: Readonly<Record<string, string>>;
  };
  readonly startupProbe?: { readonly httpGet: { readonly port: number } };
  readonly readinessProbe?: { readonly httpGet: { readonly port: number } };
  readonly livenessProbe?: { readonly httpGet: { readonly port: number } };
}

export interface PodSpec {
  readonly containers: readonly Container[];
  readonly initContainers: readonly Container[];
  readonly nodeSelector?: Readonly<Record<string, string>>;
  readonly volumes: readonly {
    readonly name: string;
    readonly hostPath?: { readonly path: string };
    readonly configMap?: { readonly name: string };
    readonly secret?: { readonly secretName: string };
  }[];
}

/** The one DaemonSet's. */
export function podOf(objects: readonly KubernetesObject[]): PodSpec {
  const [daemonSet, ...others] = objects.filter(({ kind }) => kind === "DaemonSet");
  if (daemonSet === undefined || others.length > 0) throw new Error("there is not one DaemonSet");
  return (daemonSet.spec as { template: { spec: PodSpec } }).template.spec;
}

/** What stands in for what kubelet fills in. */
const FILLED_IN: Readonly<Record<string, string>> = {
  NAMESPACE: "p2p-mirror",
  P2P_MIRROR_ADVERTISE_ADDRESS: "10.0.0.1",
  P2P_MIRROR_ZONE: "",
  P2P_MIRROR_NODE_CONDITION: "node-1",
  KUBERNETES_SERVICE_HOST: "fd00::1",
  KUBERNETES_SERVICE_PORT: "443",
};

/** A container's environment as kubelet makes it: `$(NAME)` of variables before it, and of Services. */
export function environmentOf(container: Container): Record<string, string> {
  const known: Record<string, string> = { ...FILLED_IN };
  const result: Record<string, string> = {};
  for (const { name, value, valueFrom } of container.env ?? []) {
    const text = valueFrom === undefined ? (value ?? "") : FILLED_IN[name];
    if (text === undefined) throw new Error(`what does kubelet fill in for ${name}?`);
    result[name] = text.replaceAll(/\$\((\w+)\)/g, (reference, of: string) => known[of] ?? reference);
    known[name] = result[name];
  }
  return result;
}
