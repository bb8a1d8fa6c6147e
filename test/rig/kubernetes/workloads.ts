/** Objects as a user would apply them, of images that `busyboxImage` makes. */

export interface PodSpec {
  readonly image: string;
  /** Default: what the image says. */
  readonly command?: readonly string[];
  /** The node to run on, whatever the scheduler thinks. */
  readonly node?: string;
  readonly more?: Readonly<Record<string, unknown>>;
  /** Of its one container. */
  readonly container?: Readonly<Record<string, unknown>>;
}

/** What a Pod has in its `spec`; it goes at once when it is deleted. */
const specOf = ({ image, command, node, more, container }: PodSpec): object => ({
  terminationGracePeriodSeconds: 0,
  ...(node === undefined ? {} : { nodeName: node }),
  containers: [{ name: "main", image, ...(command === undefined ? {} : { command }), ...container }],
  ...more,
});

export const podOf = (name: string, spec: PodSpec): object => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name },
  spec: { restartPolicy: "Never", ...specOf(spec) },
});

const controllerOf = (kind: string, name: string, spec: PodSpec, more: object): object => ({
  apiVersion: "apps/v1",
  kind,
  metadata: { name },
  spec: {
    selector: { matchLabels: { app: name } },
    template: { metadata: { labels: { app: name } }, spec: specOf(spec) },
    ...more,
  },
});

export const daemonSetOf = (name: string, spec: PodSpec): object => controllerOf("DaemonSet", name, spec, {});

/** One Pod on each node, as long as there are as many nodes. */
export const deploymentOf = (name: string, replicas: number, spec: PodSpec): object => {
  const term = { labelSelector: { matchLabels: { app: name } }, topologyKey: "kubernetes.io/hostname" };
  const affinity = { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term] } };
  return controllerOf("Deployment", name, { ...spec, more: { affinity, ...spec.more } }, { replicas });
};
