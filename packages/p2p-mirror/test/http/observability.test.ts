import { randomBytes } from "node:crypto";
import { AllSourcesFailedError, NotFoundError, SourceError } from "@p2p-mirror/shared";
import t from "tap";
import { request } from "undici";
import { until } from "../../../../test/rig/until.ts";
import { startEndpoint } from "./support/endpoint.ts";
import { imageManifest } from "./support/scripted-content.ts";

async function fetchAll(url: string, headers: Record<string, string> = {}): Promise<number> {
  const { statusCode, body } = await request(url, { headers });
  await body.dump({ limit: 1e9 });
  return statusCode;
}

await t.test("requests, bytes, first byte and duration are counted by kind, status and source", async (t) => {
  const { content, url, metric, registry } = await startEndpoint(t);
  const cached = content.addBlob(randomBytes(1000), "cache");
  const fetched = content.addBlob(randomBytes(2000), "upstream");
  const manifest = content.addManifest(imageManifest(), "v1", "peer");
  await fetchAll(`${url}/v2/a/blobs/${cached}?ns=a.b`);
  await fetchAll(`${url}/v2/a/blobs/${cached}?ns=a.b`, { range: "bytes=100-199" });
  await fetchAll(`${url}/v2/a/blobs/${fetched}?ns=a.b`);
  await fetchAll(`${url}/v2/a/manifests/${manifest}?ns=a.b`);
  await fetchAll(`${url}/v2/a/manifests/none?ns=a.b`);
  await fetchAll(`${url}/elsewhere`);
  const requests = (labels: Record<string, string>): Promise<number> =>
    metric("p2p_mirror_http_requests_total", labels);
  await until("all are counted", async () => (await requests({})) === 6);
  t.equal(await requests({ kind: "blob", status: "200", source: "cache", method: "GET" }), 1);
  t.equal(await requests({ kind: "blob", status: "206", source: "cache" }), 1);
  t.equal(await requests({ kind: "blob", status: "200", source: "upstream" }), 1);
  t.equal(await requests({ kind: "manifest", status: "200", source: "peer" }), 1);
  t.equal(await requests({ kind: "tag", status: "404", source: "none" }), 1);
  t.equal(await requests({ kind: "invalid", status: "404", source: "none" }), 1);
  const bytes = (source: string): Promise<number> => metric("p2p_mirror_http_sent_bytes_total", { source });
  t.equal(await bytes("cache"), 1100);
  t.equal(await bytes("upstream"), 2000);
  t.equal(await bytes("peer"), content.manifests.get(manifest)?.bytes.byteLength);
  t.equal(await metric("p2p_mirror_http_requests_in_flight"), 0);
  const text = await registry.metrics();
  t.match(text, /p2p_mirror_http_first_byte_seconds_count\{kind="blob",source="cache"\} 2/);
  t.match(text, /p2p_mirror_http_request_duration_seconds_count\{kind="blob"\} 3/);
});

await t.test("stale tags are counted and marked in the log", async (t) => {
  const { content, url, metric, log } = await startEndpoint(t);
  content.addManifest(imageManifest(), "v1");
  const resolved = content.tagged.get("v1");
  if (resolved !== undefined) content.tagged.set("v1", { ...resolved, stale: true });
  await fetchAll(`${url}/v2/a/manifests/v1?ns=a.b`);
  t.equal(await metric("p2p_mirror_http_stale_tags_total"), 1);
  await until("the line", () => log.at(20).length === 1);
  t.match(log.at(20)[0], { stale: true });
});

await t.test(
  "one line a request at debug, one line a completed image blob at info, no secret in any",
  async (t) => {
    const { content, url, log } = await startEndpoint(t);
    const digest = content.addBlob(randomBytes(5000), "peer");
    content.addManifest(imageManifest(), "v1");
    const secret = { authorization: "Bearer very-secret", cookie: "c=very-secret" };
    await fetchAll(`${url}/v2/team/app/manifests/v1?ns=ghcr.io&token=very-secret`, secret);
    await fetchAll(`${url}/v2/team/app/blobs/${digest}?ns=ghcr.io`, secret);
    await fetchAll(`${url}/v2/team/app/blobs/${digest}?ns=ghcr.io`, { ...secret, range: "bytes=0-99" });
    await until("all are logged", () => log.at(20).length === 3);
    t.match(log.at(20)[0], {
      msg: "request",
      method: "GET",
      kind: "tag",
      registry: "ghcr.io",
      repository: "team/app",
      tag: "v1",
      status: 200,
      ms: Number,
    });
    t.match(log.at(20)[1], { kind: "blob", digest, status: 200, source: "peer", bytes: 5000 });
    t.match(log.at(20)[2], { kind: "blob", digest, status: 206, source: "peer", bytes: 100 });
    t.equal(log.at(30).length, 1, "a part is no completed blob");
    t.match(log.at(30)[0], { msg: "blob served", digest, size: 5000, source: "peer", ms: Number });
    t.equal(new Set(log.at(20).map((line) => line["requestId"])).size, 3);
    t.notMatch(log.raw.join(""), /very-secret/);
  },
);

await t.test(
  "why something was declined is a label, in the request's line, and once a line at info",
  async (t) => {
    const { content, access, url, metric, log } = await startEndpoint(t);
    const digest = content.addBlob(randomBytes(100));
    const path = `${url}/v2/team/app/blobs/${digest}?ns=ghcr.io`;
    const failures: [string, Error][] = [
      ["not_found", new NotFoundError("BLOB_UNKNOWN", digest)],
      ["no_first_byte", new SourceError("NO_FIRST_BYTE", "a peer")],
      [
        "sources_failed",
        new AllSourcesFailedError(digest, [
          new SourceError("UNREACHABLE", "peer-1", { cause: new Error("connect ECONNREFUSED") }),
          new SourceError("STATUS", "upstream", { message: "see https://cdn.test/x?X-Amz-Signature=feed" }),
        ]),
      ],
    ];
    for (const [reason, error] of failures) {
      content.before = () => Promise.reject(error);
      for (let nth = 0; nth < 3; nth += 1) t.equal(await fetchAll(path), 404, reason);
    }
    content.before = () => Promise.resolve();
    access.answer = () => "decline";
    t.equal(await fetchAll(path), 404);
    access.answer = () => "allow";
    t.equal(await fetchAll(path), 200);
    t.equal(await fetchAll(`${url}/v2/team/app/blobs/sha256:nonsense?ns=ghcr.io`), 400);
    const all = (reason: string): Promise<number> => metric("p2p_mirror_http_requests_total", { reason });
    await until("all are counted", async () => (await metric("p2p_mirror_http_requests_total")) === 12);
    for (const [reason] of failures) t.equal(await all(reason), 3, reason);
    for (const reason of ["not_public", "none", "invalid"]) t.equal(await all(reason), 1, reason);
    const said = log.at(30).filter(({ msg }) => msg === "declined: the client asks its next host");
    t.same(
      said.map(({ reason }) => reason),
      ["not_found", "no_first_byte", "sources_failed", "not_public"],
      "one line for each reason, not for each request",
    );
    t.match(said[2], {
      registry: "ghcr.io",
      repository: "team/app",
      digest,
      err: { errors: ["peer-1: unreachable (connect ECONNREFUSED)", "upstream: see https://cdn.test/x?…"] },
    });
    t.equal(log.at(20).filter(({ reason }) => reason === "sources_failed").length, 3);
  },
);
