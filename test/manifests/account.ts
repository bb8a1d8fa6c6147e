import { join } from "node:path";
import type { KubernetesApiClient } from "../../packages/p2p-mirror/src/kubernetes/api-client.ts";
import { accountOf } from "../rig/kubernetes/account.ts";
import type { Cluster } from "../rig/kubernetes/cluster.ts";

const NAMESPACE = "p2p-mirror";
const podOn = (node: string): string => `mirror-on-${node}`;

/** Where {@link mirrorOn} has put the token, as kubelet does. */
export const tokenFileOf = (node: string, folder: string): string => join(folder, podOn(node), "token");

/** A Node as kubelet would have made it, without a kubelet. */
export const nodeNamed = (name: string): object => ({
  apiVersion: "v1",
  kind: "Node",
  metadata: { name },
  spec: {},
});

/**
 * What the mirror of a node has of the API server: a Pod of its ServiceAccount, bound to that node, and the Pod's token. It is
 * what kubelet mounts into the real Pod.
 * @param folder empty; for `token` and `ca.crt`
 */
export async function mirrorOn(
  cluster: Pick<Cluster, "kubectl" | "kubeconfig">,
  node: string,
  folder: string,
): Promise<KubernetesApiClient> {
  const { kubectl, kubeconfig } = cluster;
  const pod = podOn(node);
  await kubectl.apply({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: pod, namespace: NAMESPACE },
    spec: {
      serviceAccountName: "p2p-mirror",
      nodeName: node,
      containers: [{ name: "mirror", image: "nothing.example.test/nothing" }],
    },
  });
  const bound = ["--bound-object-kind=Pod", `--bound-object-name=${pod}`];
  const token = await kubectl.run(["create", "token", "p2p-mirror", `--namespace=${NAMESPACE}`, ...bound]);
  return accountOf(kubeconfig, join(folder, pod), token);
}
