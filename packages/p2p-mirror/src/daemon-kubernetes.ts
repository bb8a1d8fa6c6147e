import type { Clock, Logger } from "@p2p-mirror/shared";
import type { MirrorConfig } from "./config/mirror-config.ts";
import { KubernetesApiClient } from "./kubernetes/api-client.ts";
import { endpointsOf } from "./kubernetes/endpoint-slices.ts";
import { NodeCondition } from "./kubernetes/node-condition.ts";
import type { Directory } from "./routing/bootstrapper.ts";

/** What this node has to do with Kubernetes; nothing, where no `kubernetes_api` is set. */
export interface DaemonKubernetes {
  readonly directory?: Directory | undefined;
  readonly condition?: NodeCondition | undefined;
}

export function daemonKubernetes(
  config: MirrorConfig,
  deps: { readonly clock: Clock; readonly logger: Logger },
): DaemonKubernetes {
  const { kubernetesApi, kubernetesAccount, bootstrapService, nodeCondition } = config;
  if (kubernetesApi === undefined) return {};
  const api = new KubernetesApiClient({ ...kubernetesApi, accountDir: kubernetesAccount });
  return {
    directory: bootstrapService && {
      name: `Service ${bootstrapService.namespace}/${bootstrapService.name}`,
      find: async (signal) => endpointsOf(api, bootstrapService, signal),
    },
    condition: nodeCondition === undefined ? undefined : new NodeCondition(nodeCondition, { api, ...deps }),
  };
}
