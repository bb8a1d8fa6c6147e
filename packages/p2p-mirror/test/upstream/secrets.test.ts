import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { inspect } from "node:util";
import { BlockPool, createLogger, parseDigest } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import t from "tap";
import { createUpstreamMetrics } from "../../src/upstream/metrics.ts";
import { createUpstream } from "../../src/upstream/registry-client.ts";
import { NAME, setup, SHORT } from "./rig.ts";

const PASSWORD = "correct-horse-battery";
const ABSENT = parseDigest(`sha256:${"0".repeat(64)}`);

void t.test(
  "no login, token, key or presigned link in logs, errors or metrics, whatever goes wrong",
  async (t) => {
    const auth = Buffer.from(`robot:${PASSWORD}`).toString("base64");
    const dir = t.testdir({ "config.json": JSON.stringify({ auths: { [NAME]: { auth } } }) });
    const { registry, image, repository } = await setup(t, {
      registry: { auth: { kind: "token", users: { robot: PASSWORD } }, redirectBlobs: { lifeMs: 60_000 } },
      layerSizes: [2_000_000],
    });
    const lines: string[] = [];
    const prom = new Registry();
    const upstream = createUpstream(
      {
        registries: new Map([[NAME, { url: registry.url, headers: { "private-token": "admin-key" } }]]),
        dockerConfigFile: join(dir, "config.json"),
        timeouts: SHORT,
        retry: { delayMs: 1 },
        breaker: { failures: 1000 },
      },
      {
        logger: createLogger("trace", { write: (line) => void lines.push(line) }),
        metrics: createUpstreamMetrics(prom),
        blocks: new BlockPool(),
      },
    );
    t.teardown(() => upstream.close());
    const layer = image.layers[0]?.digest ?? image.digest;
    const failures: unknown[] = [];
    const keep = (error: unknown): void => void failures.push(error);
    await buffer((await upstream.blob(repository, layer, undefined)).body);
    for (const fault of [
      { match: { kind: "storage" }, cutAfter: 1000 },
      { match: { kind: "storage" }, status: 403 },
      { match: { kind: "storage" }, resetAfter: 0 },
      { match: { kind: "storage" }, silent: true },
      { match: { kind: "token" }, status: 403 },
      { match: { kind: "token" }, status: 200, body: '{"token":"bad token"}' },
      { match: { kind: "manifest" }, status: 500 },
      {
        match: { kind: "blob" },
        redirect: "http://robot:correct-horse-battery@127.0.0.1:1/x?X-Amz-Signature=feed",
      },
      { match: { kind: "blob" }, redirect: "ftp://127.0.0.1/x?X-Amz-Signature=feed" },
    ] as const) {
      registry.faults.set([fault]);
      registry.authenticator.revokeAll();
      await upstream.blob(repository, layer, undefined).then(({ body }) => buffer(body).catch(keep), keep);
      await upstream.resolve(repository, "v1").catch(keep);
      await upstream.blob(repository, ABSENT, undefined).catch(keep);
    }
    t.ok(failures.length > 10, `${failures.length} failures`);
    t.ok(lines.length > 5, `${lines.length} lines of log`);
    const seen = [
      lines.join(""),
      inspect(failures, { depth: 20, maxArrayLength: null, maxStringLength: null, showHidden: true }),
      await prom.metrics(),
    ];
    const tokens = registry.requests.flatMap((request) => request.authorization?.split(" ")[1] ?? []);
    const signatures = registry.requests.flatMap(
      (request) => /Signature=(\w+)/.exec(request.path)?.[1] ?? [],
    );
    t.ok(tokens.length > 0 && signatures.length > 0, "there was something to find");
    for (const secret of new Set([PASSWORD, auth, "admin-key", "feed", ...tokens, ...signatures])) {
      for (const [at, text] of seen.entries())
        t.notOk(text.includes(secret), `${secret.slice(0, 8)}… in ${at}`);
    }
  },
);

void t.test("clients may name any number of registries: labels of metrics stay few", async (t) => {
  const prom = new Registry();
  const metrics = createUpstreamMetrics(prom);
  const labels = new Set(Array.from({ length: 1000 }, (_, at) => metrics.label(`r${at}.test`)));
  t.equal(labels.size, 65);
  t.ok(labels.has("other"));
});
