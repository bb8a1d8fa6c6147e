import { isIP } from "node:net";
import { SourceError } from "@p2p-mirror/shared";
import type { KubernetesApi } from "./api-client.ts";

/** A Service, by namespace and name. */
export interface ServiceName {
  readonly namespace: string;
  readonly name: string;
}

/** A slice has at most 100 endpoints by default. Whoever knows some hundred nodes finds the others by them. */
const MAX_SLICES = 5;
/** The name of the Service's port that leads to `p2p_listen`. */
const PORT_NAME = "p2p";

/**
 * Addresses of all nodes behind a Service, ready or not, as its EndpointSlices have them: node addresses, since the mirror
 * has the host's network. The cluster's DNS is not asked for them: on the host's network a Pod has the node's name servers,
 * which do not know the cluster's names, and with the cluster's name servers every registry's name would depend on them.
 * @throws SourceError
 */
export async function endpointsOf(
  api: KubernetesApi,
  { namespace, name }: ServiceName,
  signal: AbortSignal,
): Promise<{ readonly host: string; readonly port: number }[]> {
  const query = new URLSearchParams({
    labelSelector: `kubernetes.io/service-name=${name}`,
    limit: String(MAX_SLICES),
  });
  const path = `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices?${query.toString()}`;
  const answer = await api.ask({ method: "GET", path }, signal);
  const items = listOf(answer, "items");
  if (items === undefined) {
    throw new SourceError("STATUS", "the Kubernetes API", { message: "answers no list of EndpointSlices" });
  }
  return items.flatMap((slice) => {
    const port = portOf(slice);
    if (port === undefined) return [];
    return (listOf(slice, "endpoints") ?? [])
      .flatMap((endpoint) => listOf(endpoint, "addresses") ?? [])
      .flatMap((host) => (typeof host === "string" && isIP(host) !== 0 ? [{ host, port }] : []));
  });
}

function portOf(slice: unknown): number | undefined {
  const ports = listOf(slice, "ports") ?? [];
  const named = ports.find((one) => fieldOf(one, "name") === PORT_NAME);
  const port = fieldOf(named, "port");
  return typeof port === "number" && Number.isInteger(port) && port > 0 && port < 65_536 ? port : undefined;
}

const fieldOf = (value: unknown, key: string): unknown =>
  typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined;

function listOf(value: unknown, key: string): readonly unknown[] | undefined {
  const found = fieldOf(value, key);
  return Array.isArray(found) ? found : undefined;
}
