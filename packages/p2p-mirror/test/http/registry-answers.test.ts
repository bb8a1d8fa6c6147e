import { randomBytes } from "node:crypto";
import t from "tap";
import { request } from "undici";
import { digestOf, MEDIA_TYPES } from "@p2p-mirror/shared";
import type { AccessRequest } from "../../src/transfer/access.ts";
import { startEndpoint } from "./support/endpoint.ts";
import { imageManifest } from "./support/scripted-content.ts";

const HUB = "?ns=docker.io";

async function get(url: string, headers: Record<string, string> = {}, method: "GET" | "HEAD" = "GET") {
  const { statusCode, headers: answered, body } = await request(url, { method, headers });
  return { status: statusCode, headers: answered, body: Buffer.from(await body.arrayBuffer()) };
}

/** The OCI error form with one code. */
function errorOf(body: Buffer): { code: string; message: string } {
  const { errors } = JSON.parse(body.toString());
  return errors[0];
}

await t.test("/v2/ says that this is a registry", async (t) => {
  const { url, access } = await startEndpoint(t);
  for (const path of ["/v2/", "/v2"]) {
    const answer = await get(`${url}${path}`);
    t.match(answer, { status: 200, headers: { "docker-distribution-api-version": "registry/2.0" } });
  }
  t.equal(access.requests.length, 0);
});

await t.test(
  "rule 3.2: HEAD of a tag has the real media type, the digest and the length, and no body",
  async (t) => {
    const { url, content } = await startEndpoint(t);
    const digest = content.addManifest(imageManifest(), "v1");
    const answer = await get(`${url}/v2/a/b/manifests/v1?ns=ghcr.io`, {}, "HEAD");
    t.match(answer, {
      status: 200,
      headers: {
        "content-type": MEDIA_TYPES.ociManifest,
        "docker-content-digest": digest,
        "content-length": String(content.manifests.get(digest)?.bytes.byteLength),
      },
    });
    t.equal(answer.body.byteLength, 0);
    t.notOk(answer.headers["content-encoding"]);
    t.same(content.asked, ["tag ghcr.io/a/b:v1"], "a HEAD fetches no manifest");
  },
);

await t.test("manifests come whole and under their own type, by tag and by digest", async (t) => {
  const { url, content, metric } = await startEndpoint(t);
  for (const mediaType of [MEDIA_TYPES.ociIndex, MEDIA_TYPES.dockerManifest, MEDIA_TYPES.dockerList]) {
    const digest = content.addManifest({ ...imageManifest(), mediaType }, "v1", "upstream");
    for (const reference of ["v1", digest]) {
      const answer = await get(`${url}/v2/a/manifests/${reference}?ns=ghcr.io`, {
        accept: "application/vnd.oci.image.manifest.v1+json",
        range: "bytes=0-",
        "accept-encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5",
      });
      t.equal(answer.status, 200, mediaType);
      t.equal(answer.headers["content-type"], mediaType, "exactly, without a charset");
      t.equal(answer.headers["docker-content-digest"], digest);
      t.equal(answer.headers["content-length"], String(answer.body.byteLength));
      t.equal(digestOf(answer.body), digest);
      t.equal(answer.headers["content-encoding"], undefined);
    }
    const head = await get(`${url}/v2/a/manifests/${digest}?ns=ghcr.io`, {}, "HEAD");
    t.equal(head.headers["content-length"], String(content.manifests.get(digest)?.bytes.byteLength));
  }
  t.equal(await metric("p2p_mirror_http_requests_total", { kind: "manifest", source: "upstream" }), 6);
  t.equal(await metric("p2p_mirror_http_requests_total", { kind: "tag", status: "200" }), 3);
});

await t.test("If-None-Match with the ETag or the digest gets 304 for manifests", async (t) => {
  const { url, content } = await startEndpoint(t);
  const digest = content.addManifest(imageManifest(), "v1");
  for (const reference of ["v1", digest]) {
    for (const method of ["GET", "HEAD"] as const) {
      for (const condition of [`"${digest}"`, `W/"${digest}"`, digest, `"x", "${digest}"`, "*"]) {
        const answer = await get(
          `${url}/v2/a/manifests/${reference}?ns=ghcr.io`,
          { "if-none-match": condition },
          method,
        );
        t.equal(answer.status, 304, `${method} ${reference} ${condition}`);
        t.equal(answer.body.byteLength, 0);
        t.equal(answer.headers["etag"], `"${digest}"`);
      }
      const other = await get(
        `${url}/v2/a/manifests/${reference}?ns=ghcr.io`,
        { "if-none-match": '"x"' },
        method,
      );
      t.equal(other.status, 200);
    }
  }
});

await t.test(
  "rule 3.2: blobs always have Content-Length, Content-Type, digest, ETag and Accept-Ranges",
  async (t) => {
    const { url, content } = await startEndpoint(t);
    const digest = content.addBlob(randomBytes(200_001));
    for (const method of ["GET", "HEAD"] as const) {
      const answer = await get(
        `${url}/v2/a/blobs/${digest}?ns=ghcr.io`,
        { "accept-encoding": "gzip, zstd" },
        method,
      );
      t.match(
        answer,
        {
          status: 200,
          headers: {
            "content-length": "200001",
            "content-type": "application/octet-stream",
            "docker-content-digest": digest,
            etag: `"${digest}"`,
            "accept-ranges": "bytes",
          },
        },
        method,
      );
      t.equal(answer.headers["content-encoding"], undefined);
      if (method === "GET") t.equal(digestOf(answer.body), digest);
      else t.equal(answer.body.byteLength, 0);
    }
    const empty = content.addBlob(Buffer.alloc(0));
    const answer = await get(`${url}/v2/a/blobs/${empty}?ns=ghcr.io`);
    t.match(answer, { status: 200, headers: { "content-length": "0" } });
  },
);

await t.test(
  "rule 3.5: closed, suffix and offset ranges get 206 with Content-Range; what is no range all",
  async (t) => {
    const { url, content } = await startEndpoint(t);
    const bytes = randomBytes(100_000);
    const digest = content.addBlob(bytes);
    const cases: [string, number, number, number][] = [
      ["bytes=0-0", 206, 0, 1],
      ["bytes=0-99999", 206, 0, 100_000],
      ["bytes=10-19", 206, 10, 20],
      ["bytes=65530-65541", 206, 65_530, 65_542],
      ["bytes=99999-", 206, 99_999, 100_000],
      ["bytes=50000-", 206, 50_000, 100_000],
      ["bytes=50000-999999999", 206, 50_000, 100_000],
      ["bytes=-1", 206, 99_999, 100_000],
      ["bytes=-300000", 206, 0, 100_000],
      ["bytes=0-", 200, 0, 100_000],
      ["bytes=5-3", 200, 0, 100_000],
      ["bytes=0-1,5-6", 200, 0, 100_000],
      ["lines=1-2", 200, 0, 100_000],
      ["bytes=abc", 200, 0, 100_000],
    ];
    for (const [range, status, start, end] of cases) {
      const answer = await get(`${url}/v2/a/blobs/${digest}?ns=ghcr.io`, { range });
      t.equal(answer.status, status, range);
      t.ok(answer.body.equals(bytes.subarray(start, end)), `${range}: the right bytes`);
      t.equal(answer.headers["content-length"], String(end - start), range);
      t.equal(
        answer.headers["content-range"],
        status === 206 ? `bytes ${start}-${end - 1}/100000` : undefined,
        range,
      );
    }
    for (const range of ["bytes=100000-", "bytes=100001-100002", "bytes=-0"]) {
      const answer = await get(`${url}/v2/a/blobs/${digest}?ns=ghcr.io`, { range });
      t.match(answer, { status: 416, headers: { "content-range": "bytes */100000" } }, range);
      t.equal(errorOf(answer.body).code, "RANGE_INVALID");
    }
    const condition = { range: "bytes=10-", "if-range": '"other"' };
    t.equal(
      (await get(`${url}/v2/a/blobs/${digest}?ns=ghcr.io`, condition)).status,
      200,
      "If-Range of another",
    );
    const same = { range: "bytes=10-", "if-range": `"${digest}"` };
    t.equal((await get(`${url}/v2/a/blobs/${digest}?ns=ghcr.io`, same)).status, 206, "If-Range of this one");
  },
);

await t.test(
  "rule 0.10: bytes=0- gets 200 and the whole, so that chunked mode takes one stream",
  async (t) => {
    const { url, content } = await startEndpoint(t);
    const digest = content.addBlob(randomBytes(70_000));
    const answer = await get(`${url}/v2/a/blobs/${digest}${HUB}`, { range: "bytes=0-" });
    t.equal(answer.status, 200);
    t.equal(answer.headers["content-range"], undefined);
    t.equal(digestOf(answer.body), digest);
  },
);

await t.test("tags/list and referrers are handed through, and the next page is at this mirror", async (t) => {
  const { url, content } = await startEndpoint(t);
  content.lists.set("tags", {
    contentType: "application/json",
    body: Buffer.from('{"name":"a","tags":["x"]}'),
    next: "/v2/upstream-name/tags/list?last=x&n=1&ns=evil",
    filtersApplied: undefined,
  });
  const byNs = await get(`${url}/v2/a/tags/list?ns=ghcr.io&n=1`);
  t.match(byNs, { status: 200, headers: { "content-type": "application/json" } });
  t.equal(byNs.headers["link"], '</v2/a/tags/list?last=x&n=1&ns=ghcr.io>; rel="next"');
  const byPath = await get(`${url}/v2/ghcr.io/a/tags/list?n=1&last=w`);
  t.equal(byPath.headers["link"], '</v2/ghcr.io/a/tags/list?last=x&n=1>; rel="next"');
  t.same(content.queries, [{ n: 1 }, { n: 1, last: "w" }]);

  const subject = content.addManifest(imageManifest());
  content.lists.set("referrers", {
    contentType: MEDIA_TYPES.ociIndex,
    body: Buffer.from('{"schemaVersion":2,"manifests":[]}'),
    next: undefined,
    filtersApplied: "artifactType",
  });
  const referrers = await get(`${url}/v2/a/referrers/${subject}?ns=ghcr.io&artifactType=a%2Fb`);
  t.match(referrers, {
    status: 200,
    headers: { "content-type": MEDIA_TYPES.ociIndex, "oci-filters-applied": "artifactType" },
  });
  t.same(content.queries.at(-1), { artifactType: "a/b" });
  t.same(JSON.parse(referrers.body.toString()).manifests, []);
});

await t.test("rule 3.1: ns form and path form ask for the same thing", async (t) => {
  const { url, content } = await startEndpoint(t);
  const digest = content.addBlob();
  await get(`${url}/v2/library/nginx/blobs/${digest}?ns=docker.io`);
  await get(`${url}/v2/docker.io/library/nginx/blobs/${digest}`);
  await get(`${url}/v2/index.docker.io/nginx/blobs/${digest}`);
  t.same(
    new Set(content.asked),
    new Set([`blob docker.io/library/nginx@${digest}`]),
    "one spelling behind the endpoint",
  );
});

await t.test(
  "rule 3.4: every request passes access once, and a decline is a 404 that challenges nobody",
  async (t) => {
    const { url, content, access, log } = await startEndpoint(t);
    const blob = content.addBlob();
    const manifest = content.addManifest(imageManifest(), "v1");
    access.answer = () => "decline";
    const secret = `Basic ${Buffer.from("user:hunter2").toString("base64")}`;
    const paths: [string, string, AccessRequest["wants"]][] = [
      ["manifests/v1", "MANIFEST_UNKNOWN", { manifest: "v1" }],
      [`manifests/${manifest}`, "MANIFEST_UNKNOWN", { manifest }],
      [`blobs/${blob}`, "BLOB_UNKNOWN", { blob }],
      ["tags/list", "NAME_UNKNOWN", undefined],
      [`referrers/${manifest}`, "MANIFEST_UNKNOWN", undefined],
    ];
    for (const [path, code] of paths) {
      const answer = await get(`${url}/v2/a/b/${path}?ns=ghcr.io`, { authorization: secret });
      t.equal(answer.status, 404, path);
      t.equal(errorOf(answer.body).code, code, path);
      t.equal(answer.headers["www-authenticate"], undefined, path);
    }
    t.same(content.asked, [], "nothing is asked for the declined");
    t.same(
      access.requests,
      paths.map(([, , wants]) => ({ registry: "ghcr.io", repository: "a/b", authorization: secret, wants })),
    );
    t.notOk(
      log.raw.join("").includes("hunter2") || log.raw.join("").includes(secret),
      "no credential in the log",
    );
  },
);
