import t from "tap";
import { InvalidInputError } from "@p2p-mirror/shared";
import { parseDistributionPath } from "../../src/http/distribution-path.ts";
import { OciError } from "../../src/http/oci-errors.ts";

const DIGEST = `sha256:${"0123456789abcdef".repeat(4)}`;
const SHA512 = `sha512:${"0123456789abcdef".repeat(8)}`;

await t.test(
  "reads every path of a pull, with the registry from ns or from the first component",
  async (t) => {
    const cases: [string, object][] = [
      ["/v2", { kind: "base" }],
      ["/v2/", { kind: "base" }],
      ["/v2/?ns=docker.io", { kind: "base" }],
      [
        "/v2/library/nginx/manifests/latest?ns=docker.io",
        { kind: "tag", registry: "docker.io", repository: "library/nginx", tag: "latest" },
      ],
      [
        `/v2/a/b/manifests/${DIGEST}?ns=ghcr.io`,
        { kind: "manifest", registry: "ghcr.io", repository: "a/b", digest: DIGEST },
      ],
      [
        `/v2/a/blobs/${SHA512}?ns=host%3A5000`,
        { kind: "blob", registry: "host:5000", repository: "a", digest: SHA512 },
      ],
      [
        `/v2/host:5000/a/blobs/${DIGEST}`,
        { kind: "blob", registry: "host:5000", repository: "a", digest: DIGEST },
      ],
      [
        `/v2/host%3A5000/a/blobs/${DIGEST.replace(":", "%3A")}`,
        { kind: "blob", registry: "host:5000", repository: "a", digest: DIGEST },
      ],
      [
        `/v2/[::1]:5000/a/blobs/${DIGEST}`,
        { kind: "blob", registry: "[::1]:5000", repository: "a", digest: DIGEST },
      ],
      [
        "/v2/localhost/a/tags/list?n=5&last=x",
        { kind: "tags", registry: "localhost", repository: "a", query: { n: 5, last: "x" } },
      ],
      [
        `/v2/ghcr.io/a/referrers/${DIGEST}?artifactType=text%2Fplain`,
        {
          kind: "referrers",
          registry: "ghcr.io",
          repository: "a",
          digest: DIGEST,
          query: { artifactType: "text/plain" },
        },
      ],
      // Names may hold the words of the API: the end of the path decides.
      [
        "/v2/ghcr.io/manifests/blobs/tags/manifests/list",
        { kind: "tag", registry: "ghcr.io", repository: "manifests/blobs/tags", tag: "list" },
      ],
      // With ns the whole path is the repository, dots in its first component included.
      [
        "/v2/quay.io/x/manifests/v1?ns=ghcr.io",
        { kind: "tag", registry: "ghcr.io", repository: "quay.io/x", tag: "v1" },
      ],
      [
        "http://127.0.0.1:24220/v2/x/y/manifests/v1?ns=ghcr.io",
        { kind: "tag", registry: "ghcr.io", repository: "x/y", tag: "v1" },
      ],
      ["/v2/x/manifests/v1?ns=GHCR.io", { kind: "tag", registry: "ghcr.io", repository: "x", tag: "v1" }],
    ];
    for (const [target, expected] of cases) t.match(parseDistributionPath(target), expected, target);
  },
);

await t.test("the names of Docker Hub become one, and its short names get library/", async (t) => {
  for (const registry of ["docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO"]) {
    const expected = { registry: "docker.io", repository: "library/nginx" };
    t.match(parseDistributionPath(`/v2/nginx/manifests/latest?ns=${registry}`), expected, `ns ${registry}`);
    t.match(parseDistributionPath(`/v2/${registry}/nginx/manifests/latest`), expected, `path ${registry}`);
  }
});

await t.test("what names no registry is told how to name one", async (t) => {
  for (const target of [
    "/v2/library/nginx/manifests/latest",
    "/v2/nginx/manifests/latest",
    "/v2/ghcr.io/manifests/latest",
  ]) {
    t.throws(
      () => parseDistributionPath(target),
      { name: "OciError", status: 404, code: "NAME_UNKNOWN", message: /\?ns=/ },
      target,
    );
  }
});

await t.test("everything else is refused with a 4xx, whatever it is", async (t) => {
  const refused: [string, string][] = [
    ["", "NAME_UNKNOWN"],
    ["/", "NAME_UNKNOWN"],
    ["*", "NAME_UNKNOWN"],
    ["/v1/x/manifests/y", "NAME_UNKNOWN"],
    ["/v2/_catalog", "NAME_UNKNOWN"],
    ["/v2//", "NAME_UNKNOWN"],
    ["/v2/x/blobs/uploads/", "NAME_UNKNOWN"],
    [`/v2/x/blobs/${DIGEST}/?ns=a.b`, "NAME_UNKNOWN"],
    ["/v2/x/tags/other?ns=a.b", "NAME_UNKNOWN"],
    ["/v2/x/blobs/latest?ns=a.b", "DIGEST_INVALID"],
    [`/v2/x/blobs/${DIGEST.toUpperCase()}?ns=a.b`, "DIGEST_INVALID"],
    ["/v2/x/manifests/md5:abc?ns=a.b", "DIGEST_INVALID"],
    ["/v2/x/manifests/.hidden?ns=a.b", "TAG_INVALID"],
    [`/v2/x/manifests/${"t".repeat(129)}?ns=a.b`, "TAG_INVALID"],
    ["/v2/x/manifests/?ns=a.b", "TAG_INVALID"],
    ["/v2/../etc/manifests/passwd?ns=a.b", "NAME_INVALID"],
    ["/v2/..%2F..%2Fetc/manifests/passwd?ns=a.b", "NAME_INVALID"],
    ["/v2/x%00y/manifests/v1?ns=a.b", "NAME_INVALID"],
    ["/v2/X/manifests/v1?ns=a.b", "NAME_INVALID"],
    ["/v2/x//y/manifests/v1?ns=a.b", "NAME_INVALID"],
    ["/v2//manifests/v1?ns=a.b", "NAME_INVALID"],
    [`/v2/${"x".repeat(256)}/manifests/v1?ns=a.b`, "NAME_INVALID"],
    ["/v2/%zz/manifests/v1?ns=a.b", "NAME_INVALID"],
    ["/v2/x/manifests/v1?ns=", "NAME_INVALID"],
    ["/v2/x/manifests/v1?ns=a.b%2Fc", "NAME_INVALID"],
    ["/v2/x/manifests/v1?ns=http://a.b", "NAME_INVALID"],
    ["/v2/x/manifests/v1?ns=user@a.b", "NAME_INVALID"],
    ["/v2/x/manifests/v1?ns=a.b%0d%0aX:y", "NAME_INVALID"],
    ["/v2/x/manifests/v1?ns=a.b&ns=c.d", "NAME_INVALID"],
    ["/v2/x/tags/list?ns=a.b&n=-1", "UNSUPPORTED"],
    ["/v2/x/tags/list?ns=a.b&n=1e9", "UNSUPPORTED"],
    [`/v2/x/tags/list?ns=a.b&last=${"l".repeat(1025)}`, "UNSUPPORTED"],
    [`/v2/x/manifests/v1?ns=${"a".repeat(5000)}`, "NAME_INVALID"],
  ];
  for (const [target, code] of refused) {
    try {
      parseDistributionPath(target);
      t.fail(`accepted ${target}`);
    } catch (error) {
      t.ok(error instanceof OciError || error instanceof InvalidInputError, `${target}: ${String(error)}`);
      t.equal(
        error instanceof OciError || error instanceof InvalidInputError ? error.code : "",
        code,
        target,
      );
    }
  }
});
