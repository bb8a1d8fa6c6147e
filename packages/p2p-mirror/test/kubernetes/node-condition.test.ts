import { createLogger, SourceError, VirtualClock } from "@p2p-mirror/shared";
import t from "tap";
import type { ApiRequest, KubernetesApi } from "../../src/kubernetes/api-client.ts";
import { NodeCondition } from "../../src/kubernetes/node-condition.ts";
import type { DoctorReport, Finding } from "../../src/status.ts";

const finding = (check: string, severity: Finding["severity"] = "broken"): Finding => ({
  check,
  severity,
  what: `${check} is wrong`,
  why: "because",
  fix: "mend it",
});
const reportOf = (...findings: Finding[]): DoctorReport => ({ checkedAt: "", findings, skipped: [] });

const at = (request: ApiRequest | undefined): string => JSON.stringify(request?.body);

/** An API server's double: takes down what it is asked, and has the Node's UID. */
function recorded(): { api: KubernetesApi; asked: ApiRequest[]; down: boolean } {
  const state = {
    asked: [] as ApiRequest[],
    down: false,
    api: {
      ask: async (request: ApiRequest): Promise<unknown> => {
        if (state.down) throw new SourceError("UNREACHABLE", "the Kubernetes API");
        state.asked.push(request);
        return { metadata: { uid: "the-uid" } };
      },
    },
  };
  return state;
}

/** The condition of one Node, what the API server is asked for it, and what the log says. */
async function scene() {
  const clock = new VirtualClock();
  const lines: string[] = [];
  const logger = createLogger("info", { write: (line) => void lines.push(line) });
  const kubernetes = recorded();
  const condition = new NodeCondition("node-1", { api: kubernetes.api, clock, logger });
  await condition.start();
  return { clock, lines, kubernetes, asked: kubernetes.asked, condition };
}

await t.test("what the doctor finds is the Node's condition, and an Event when it turns", async (t) => {
  const { lines, asked, condition } = await scene();
  const tell = async (...findings: Finding[]): Promise<ApiRequest[]> => {
    await condition.tell(reportOf(...findings));
    return asked.splice(0);
  };

  t.match(await tell(finding("disk", "warning")), [
    {
      method: "PATCH",
      path: "/api/v1/nodes/node-1/status",
      contentType: "application/strategic-merge-patch+json",
      body: {
        status: {
          conditions: [{ type: "ImageMirrorInForce", status: "True", reason: "NothingBroken" }],
        },
      },
    },
  ]);

  const turned = await tell(finding("config-path"), finding("canary"));
  t.match(turned, [
    {
      body: {
        status: {
          conditions: [
            {
              status: "False",
              reason: "ConfigPath",
              message: "config-path is wrong; what to do: mend it (and 1 more: p2p-mirror doctor)",
              lastTransitionTime: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/,
            },
          ],
        },
      },
    },
    {
      method: "POST",
      path: "/api/v1/namespaces/default/events",
      body: {
        type: "Warning",
        reason: "ImageMirrorNotInForce",
        involvedObject: { kind: "Node", name: "node-1", uid: "the-uid" },
        message: /^ConfigPath: config-path is wrong/,
      },
    },
  ]);

  t.match(await tell(), [
    { body: { status: { conditions: [{ status: "True" }] } } },
    { body: { type: "Normal", reason: "ImageMirrorInForce" } },
  ]);

  await condition.close();
  t.match(asked, [{ body: { status: { conditions: [{ type: "ImageMirrorInForce", $patch: "delete" }] } } }]);
  t.same(lines, []);
});

await t.test("the same is not said again before five minutes; what was not taken is", async (t) => {
  const { clock, lines, kubernetes, asked, condition } = await scene();

  kubernetes.down = true;
  await condition.tell(reportOf());
  t.equal(lines.length, 1);
  kubernetes.down = false;
  await condition.tell(reportOf());
  t.equal(asked.length, 1);
  const first = at(asked[0]);

  await clock.run(299_000);
  await condition.tell(reportOf());
  t.equal(asked.length, 1, "the same");
  await clock.run(1_000);
  await condition.tell(reportOf());
  t.equal(asked.length, 2);
  const times = /"lastTransitionTime":"([^"]*)"/;
  t.equal(times.exec(at(asked[1]))?.[1], times.exec(first)?.[1], "since when it is so");
  t.not(at(asked[1]), first, "the heartbeat is new");

  kubernetes.down = true;
  await condition.close();
  t.match(lines.at(-1), /keeps the condition/, "a mirror ends also without the API server");
});

await t.test("a mirror that has said nothing takes nothing back", async (t) => {
  const kubernetes = recorded();
  const logger = createLogger("silent", { write: () => undefined });
  const condition = new NodeCondition("node-1", { api: kubernetes.api, clock: new VirtualClock(), logger });
  await condition.start();
  await condition.close();
  await condition.tell(reportOf());
  t.same(kubernetes.asked, []);
});
