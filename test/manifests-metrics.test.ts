import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parser } from "@prometheus-io/lezer-promql";
import t from "tap";
import { parse } from "yaml";
import { loneMirror, readyUrls, startChild } from "../packages/p2p-mirror/test/cli/child.ts";
import { MANIFESTS } from "./manifests/kustomize.ts";
import { until } from "./rig/until.ts";

interface Dashboard {
  readonly panels: readonly {
    readonly title: string;
    readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
    readonly targets: readonly { readonly expr: string }[];
  }[];
}

interface Rules {
  readonly spec: {
    readonly groups: readonly {
      readonly rules: readonly { readonly alert: string; readonly expr: string }[];
    }[];
  };
}

const dashboard: Dashboard = JSON.parse(
  await readFile(join(MANIFESTS, "components/grafana/p2p-mirror.json"), "utf8"),
);
const rules: Rules = parse(await readFile(join(MANIFESTS, "components/prometheus/rules.yaml"), "utf8"));
const alerts = rules.spec.groups.flatMap((group) => group.rules);

const exprs = [
  ...dashboard.panels.flatMap(({ title, targets }) => targets.map(({ expr }) => ({ of: title, expr }))),
  ...alerts.map(({ alert, expr }) => ({ of: alert, expr })),
];

const operations = (): Promise<string> => readFile(join(MANIFESTS, "../docs/operations.md"), "utf8");

/** Names that are followed by neither `(` nor are a label: those of metrics here all have a prefix. */
const metricsIn = (expr: string): string[] => expr.match(/\b(?:p2p_mirror|process)_[a-z0-9_]+/g) ?? [];

await t.test("every metric of dashboard, alerts and operations.md is one that a mirror has", async (t) => {
  const dir = t.testdir({ certs: {} });
  const args = [...loneMirror(join(dir, "data")), "--hosts-dir", join(dir, "certs")];
  // There is no containerd, but a mirror that looks for one.
  const mirror = startChild(t, [...args, "--containerd-socket", join(dir, "none.sock")]);
  const { admin } = await readyUrls(mirror);
  const metrics = async (): Promise<string> => (await fetch(`${admin}/metrics`)).text();
  const names = async (): Promise<Set<string>> => new Set((await metrics()).match(/(?<=^# TYPE )\S+/gm));
  await until("the doctor has looked", async () => (await names()).has("p2p_mirror_in_force"), {
    timeoutMs: 60_000,
  });
  const [known, text] = [await names(), await metrics()];
  const isKnown = (name: string): boolean =>
    known.has(name.replace(/_(?:bucket|sum|count)$/, "")) || known.has(name);
  for (const { of, expr } of exprs) {
    const used = metricsIn(expr);
    t.ok(used.length > 0 || expr.startsWith("up{"), `${of} looks at a metric`);
    for (const name of used) t.ok(isKnown(name), `${of}: ${name}`);
  }
  const onPage = metricsIn(await operations());
  t.ok(onPage.length > 0);
  for (const name of onPage) t.ok(isKnown(name), `docs/operations.md: ${name}`);
  // A series that an alert names, with its labels, is there from the start, else its first increase would be missed.
  for (const { alert, expr } of alerts) {
    for (const [series, name, labels] of expr.matchAll(/(p2p_mirror_\w+)\{([^}]*)\}/g)) {
      const isIt = (line: string): boolean => line.startsWith(`${name}{`) && line.includes(labels ?? "?");
      t.ok(text.split("\n").some(isIt), `${alert}: ${series}`);
    }
  }
});

await t.test("every expression is PromQL", async (t) => {
  t.ok(exprs.length > 40);
  for (const { of, expr } of exprs) {
    // As Grafana fills them in.
    const text = expr.replaceAll("$__rate_interval", "5m").replaceAll("$__range", "1h");
    const errors: number[] = [];
    parser.parse(text).iterate({
      enter: ({ type, from }) => {
        if (type.isError) errors.push(from);
      },
    });
    t.same(errors, [], `${of}: ${text}`);
  }
});

await t.test("every alert is explained", async (t) => {
  const explained = new Set((await operations()).match(/(?<=^\| `)P2pMirror\w+/gm));
  t.same(explained, new Set(alerts.map(({ alert }) => alert)));
});

await t.test("no panel of the dashboard lies over another, or beside the page", async (t) => {
  const { panels } = dashboard;
  const overlaps = panels.flatMap((one, index) =>
    panels.slice(index + 1).flatMap((other) => {
      const [a, b] = [one.gridPos, other.gridPos];
      const apart = a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y;
      return apart ? [] : `${one.title} and ${other.title}`;
    }),
  );
  t.same(overlaps, []);
  t.same(
    panels.filter(({ gridPos: { x, w } }) => x + w > 24),
    [],
  );
});
