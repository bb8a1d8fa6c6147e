import t from "tap";
import {
  digestOf,
  formatReference,
  isRegistry,
  isRepository,
  isTag,
  looksLikeRegistry,
  parseReference,
  parseRepository,
  parseTagOrDigest,
} from "@p2p-mirror/shared";

const DIGEST = digestOf(Buffer.from("reference"));

await t.test("what people write, spelled out", async (t) => {
  const cases: [string, string][] = [
    ["nginx", "docker.io/library/nginx:latest"],
    ["nginx:1.27", "docker.io/library/nginx:1.27"],
    ["bitnami/redis", "docker.io/bitnami/redis:latest"],
    ["docker.io/nginx", "docker.io/library/nginx:latest"],
    ["docker.io/library/nginx:1", "docker.io/library/nginx:1"],
    ["ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"],
    ["localhost/x", "localhost/x:latest"],
    ["localhost:5000/x:y", "localhost:5000/x:y"],
    ["host:5000/x", "host:5000/x:latest"],
    ["GHCR.io/a/b", "ghcr.io/a/b:latest"],
    ["[fd00::1]:5000/x", "[fd00::1]:5000/x:latest"],
    [`nginx@${DIGEST}`, `docker.io/library/nginx@${DIGEST}`],
    [`ghcr.io/a/b:v1@${DIGEST}`, `ghcr.io/a/b:v1@${DIGEST}`],
    [`host:5000/x@${DIGEST}`, `host:5000/x@${DIGEST}`],
  ];
  for (const [text, full] of cases) {
    t.equal(formatReference(parseReference(text)), full, text);
    t.equal(formatReference(parseReference(full)), full, `${full} is its own full form`);
  }
});

await t.test("a digest alone sets no tag", async (t) => {
  t.match(parseReference(`nginx@${DIGEST}`), { tag: undefined, digest: DIGEST });
  t.match(parseReference("nginx"), { tag: "latest", digest: undefined });
});

await t.test("what is no reference says which part is wrong", async (t) => {
  const cases: [string, string][] = [
    ["", "NAME_INVALID"],
    ["Nginx", "NAME_INVALID"],
    ["a//b", "NAME_INVALID"],
    ["a/../b", "NAME_INVALID"],
    ["ghcr.io/", "NAME_INVALID"],
    ["nginx:", "TAG_INVALID"],
    ["nginx:a b", "TAG_INVALID"],
    [`nginx:${"x".repeat(129)}`, "TAG_INVALID"],
    ["nginx:-x", "TAG_INVALID"],
    ["nginx@sha256:abc", "DIGEST_INVALID"],
    [`nginx@${DIGEST}@${DIGEST}`, "DIGEST_INVALID"],
  ];
  for (const [text, code] of cases) t.throws(() => parseReference(text), { code }, JSON.stringify(text));
});

await t.test("repository names follow the distribution spec", async (t) => {
  for (const name of ["a", "a/b", "a.b", "a_b", "a__b", "a-b", "a---b", "0/1", `a/${"b".repeat(250)}`]) {
    t.ok(isRepository(name), name);
  }
  for (const name of [
    "",
    "A",
    "/a",
    "a/",
    "a//b",
    ".a",
    "a.",
    "a..b",
    "a___b",
    "a b",
    "a%2fb",
    "a".repeat(256),
  ]) {
    t.notOk(isRepository(name), name);
  }
});

await t.test("a hostile name is refused in no time", async (t) => {
  const started = performance.now();
  for (const name of [`${"a-".repeat(100_000)}!`, `${"a/".repeat(100_000)}!`, `${"a".repeat(200)}-!`]) {
    t.notOk(isRepository(name));
    t.notOk(isRegistry(name));
  }
  t.ok(performance.now() - started < 1000, "no catastrophic backtracking");
});

await t.test("tags, registries and the rule that tells a registry from a path component", async (t) => {
  for (const tag of ["latest", "V1.2_3-x", "_", "x".repeat(128)]) t.ok(isTag(tag), tag);
  for (const tag of ["", ".x", "-x", "a/b", "a:b", "x".repeat(129)]) t.notOk(isTag(tag), tag);
  for (const name of ["docker.io", "localhost:5000", "a", "[::1]:80", "xn--bcher-kva.example"])
    t.ok(isRegistry(name), name);
  for (const name of ["", "a..b", "-a.b", "a:b", "a/b", "a:123456", "user@host", "[::g]"])
    t.notOk(isRegistry(name), name);
  for (const name of ["localhost", "a.b", "a:5000"]) t.ok(looksLikeRegistry(name), name);
  for (const name of ["library", "a_b.c", ""]) t.notOk(looksLikeRegistry(name), name);
});

await t.test("registries are compared in lower case, repositories as they are", async (t) => {
  t.same(parseRepository("GHCR.IO", "a/b"), { registry: "ghcr.io", repository: "a/b" });
  t.throws(() => parseRepository("ghcr.io", "A/b"), { code: "NAME_INVALID", field: "repository" });
  t.throws(() => parseRepository("gh cr.io", "a/b"), { code: "NAME_INVALID", field: "registry" });
});

await t.test("the last part of a manifest's path is a tag or a digest, never a bit of both", async (t) => {
  t.same(parseTagOrDigest("v1"), { tag: "v1" });
  t.same(parseTagOrDigest(DIGEST), { digest: DIGEST });
  t.throws(() => parseTagOrDigest("sha256:zz"), { code: "DIGEST_INVALID" });
  t.throws(() => parseTagOrDigest("a/b"), { code: "TAG_INVALID" });
});
