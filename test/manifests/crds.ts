/** The kinds of the Prometheus operator, as far as an API server must know them to take objects of them. */
export const PROMETHEUS_CRDS: readonly object[] = [
  ["PodMonitor", "podmonitors"],
  ["PrometheusRule", "prometheusrules"],
].map(([kind, plural]) => ({
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: `${plural}.monitoring.coreos.com` },
  spec: {
    group: "monitoring.coreos.com",
    names: { kind, plural, singular: kind?.toLowerCase() },
    scope: "Namespaced",
    versions: [
      {
        name: "v1",
        served: true,
        storage: true,
        schema: {
          openAPIV3Schema: {
            type: "object",
            properties: { spec: { type: "object", "x-kubernetes-preserve-unknown-fields": true } },
          },
        },
      },
    ],
  },
}));
