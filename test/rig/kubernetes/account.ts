import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { KubernetesApiClient } from "../../../packages/p2p-mirror/src/kubernetes/api-client.ts";

interface Kubeconfig {
  readonly clusters: readonly { cluster: { server: string; "certificate-authority-data": string } }[];
  readonly users: readonly { user: { token: string } }[];
}

/**
 * The mirror's own client of an API server, for whoever `token` is of. Default: the user of the kubeconfig.
 * @param accountDir made here, for `token` and `ca.crt`, as kubelet mounts them
 */
export async function accountOf(
  kubeconfig: string,
  accountDir: string,
  token?: string,
): Promise<KubernetesApiClient> {
  const { clusters, users } = JSON.parse(await readFile(kubeconfig, "utf8")) as Kubeconfig;
  const [cluster, user] = [clusters[0]?.cluster, users[0]?.user];
  if (cluster === undefined || user === undefined)
    throw new TypeError("a kubeconfig has a cluster and a user");
  await mkdir(accountDir, { recursive: true });
  await writeFile(join(accountDir, "token"), token ?? user.token, { mode: 0o600 });
  await writeFile(join(accountDir, "ca.crt"), Buffer.from(cluster["certificate-authority-data"], "base64"));
  const { hostname, port } = new URL(cluster.server);
  return new KubernetesApiClient({ host: hostname, port: port === "" ? 443 : Number(port), accountDir });
}
