import { readFile } from "node:fs/promises";
import path from "node:path";
import { parse } from "yaml";
import { moduleFolder } from "../rig/go-module.ts";

/** Where the Prometheus operator keeps its kinds, of the release that is pinned here. */
const OPERATOR = {
  path: "github.com/prometheus-operator/prometheus-operator",
  version: "v0.85.0",
  sum: "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
};
const FOLDER = "example/prometheus-operator-crd";

/** The operator's own definitions of PodMonitor and PrometheusRule: an API server refuses fields that they do not have. */
export async function prometheusCrds(): Promise<object[]> {
  const folder = path.join(await moduleFolder(OPERATOR), FOLDER);
  return Promise.all(
    ["podmonitors", "prometheusrules"].map(async (plural): Promise<object> => {
      return parse(await readFile(path.join(folder, `monitoring.coreos.com_${plural}.yaml`), "utf8"));
    }),
  );
}
