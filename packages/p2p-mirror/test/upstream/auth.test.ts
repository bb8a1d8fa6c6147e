import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import t from "tap";
import { lookup, parseDockerConfig } from "../../src/upstream/docker-config.ts";
import { endpointOf, isSafeForLogins } from "../../src/upstream/registry-config.ts";
import { clientOf, NAME, passed, setup } from "./rig.ts";

const USERS = { robot: "s3cret:with:colons" };
const AUTH = Buffer.from("robot:s3cret:with:colons").toString("base64");
const configOf = (entry: object, key = NAME): string => JSON.stringify({ auths: { [key]: entry } });

void t.test("a token for nobody is fetched once, and used for everything of the repository", async (t) => {
  const { upstream, image, repository, registry } = await setup(t, { registry: { auth: { kind: "token" } } });
  const { digest } = await upstream.resolve(repository, "v1");
  await upstream.manifest(repository, digest);
  const all = await Promise.all(
    image.layers.map(async (layer) =>
      buffer((await upstream.blob(repository, layer.digest, undefined)).body),
    ),
  );
  t.same(
    all.map((bytes) => bytes.length),
    image.layers.map((layer) => layer.size),
  );
  const tokens = registry.requests.filter((request) => request.kind === "token");
  t.equal(tokens.length, 1);
  t.match(tokens[0]?.path, "service=oci-registry-of-the-rig&scope=repository%3Ateam%2Fapp%3Apull");
  t.equal(tokens[0]?.authorization, undefined, "asked for without a login");
  t.equal(registry.requests.filter((request) => request.status === 401).length, 1, "challenged once");
});

void t.test("a crowd without a token gets one by one request", async (t) => {
  const { upstream, image, repository, registry } = await setup(t, { registry: { auth: { kind: "token" } } });
  const resolved = await Promise.all(Array.from({ length: 30 }, () => upstream.resolve(repository, "v1")));
  t.ok(resolved.every((descriptor) => descriptor.digest === image.digest));
  t.equal(registry.requests.filter((request) => request.kind === "token").length, 1);
});

void t.test("a token is taken for its own repository only", async (t) => {
  const { upstream, image, repository, registry } = await setup(t, { registry: { auth: { kind: "token" } } });
  registry.push({ ...image, repository: "team/other" });
  await upstream.resolve(repository, "v1");
  await upstream.resolve({ ...repository, repository: "team/other" }, "v1");
  t.equal(registry.requests.filter((request) => request.kind === "token").length, 2);
});

void t.test("a token that the registry took back is renewed once", async (t) => {
  const { upstream, image, repository, registry } = await setup(t, { registry: { auth: { kind: "token" } } });
  await upstream.resolve(repository, "v1");
  registry.authenticator.revokeAll();
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  registry.faults.add({ match: { kind: "manifest" }, status: 401 });
  registry.forget();
  await t.rejects(upstream.resolve(repository, "v1"), { code: "DENIED", status: 401 });
  t.ok(registry.requests.length <= 3, `no loop: ${registry.requests.length} requests`);
});

void t.test("a token is renewed by itself when its time is up, without another 401", async (t) => {
  const { upstream, repository, registry } = await setup(t, {
    // Long enough for the one request that follows its issue.
    registry: { auth: { kind: "token", expiresIn: 1 } },
  });
  await upstream.resolve(repository, "v1");
  await passed(1_010);
  registry.forget();
  await upstream.resolve(repository, "v1");
  t.same(
    registry.requests.map((request) => [request.kind, request.status]),
    [
      ["token", 200],
      ["manifest", 200],
    ],
  );
});

void t.test("a login of the docker config gets the token, and goes to the token server only", async (t) => {
  const file = join(t.testdir({ "config.json": configOf({ auth: AUTH }) }), "config.json");
  const { upstream, image, repository, registry } = await setup(t, {
    registry: { auth: { kind: "token", users: USERS, isPublic: () => false } },
    upstream: { dockerConfigFile: file },
  });
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  const withLogin = registry.requests.filter((request) => request.authorization === `Basic ${AUTH}`);
  t.same(
    withLogin.map((request) => request.kind),
    ["token"],
  );
});

void t.test("Basic: a login where the registry asks for one, and at once the next time", async (t) => {
  const file = join(
    t.testdir({ "config.json": configOf({ username: "robot", password: USERS.robot }) }),
    "config.json",
  );
  const { upstream, image, repository, registry } = await setup(t, {
    registry: { auth: { kind: "basic", users: USERS } },
    upstream: { dockerConfigFile: file },
  });
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  await upstream.manifest(repository, image.digest);
  t.same(
    registry.requests.map((request) => request.status),
    [401, 200, 200],
  );
});

void t.test("a wrong login is DENIED after one try", async (t) => {
  const wrong = Buffer.from("robot:wrong").toString("base64");
  const file = join(t.testdir({ "config.json": configOf({ auth: wrong }) }), "config.json");
  for (const auth of [
    { kind: "basic", users: USERS },
    { kind: "token", users: USERS },
  ] as const) {
    const { upstream, repository, registry } = await setup(t, {
      registry: { auth },
      upstream: { dockerConfigFile: file },
    });
    await t.rejects(upstream.resolve(repository, "v1"), { code: "DENIED", temporary: false }, auth.kind);
    t.equal(registry.requests.length, 2, `${auth.kind}: no hammering`);
  }
});

void t.test("an identity token is exchanged by POST", async (t) => {
  const file = join(t.testdir({ "config.json": configOf({ identitytoken: "refresh-me" }) }), "config.json");
  const { upstream, image, repository, registry } = await setup(t, {
    registry: {
      auth: { kind: "token", identityTokens: { "refresh-me": "robot" }, isPublic: () => false },
    },
    upstream: { dockerConfigFile: file },
  });
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  const token = registry.requests.find((request) => request.kind === "token");
  t.same([token?.method, token?.path], ["POST", "/token"], "the secret is in the body, not in a URL");
});

void t.test("without a login, what is private is DENIED, whoever says so", async (t) => {
  for (const deniedBy of ["registry", "token"] as const) {
    const { upstream, repository } = await setup(t, {
      registry: { auth: { kind: "token", isPublic: () => false, deniedBy } },
    });
    await t.rejects(upstream.resolve(repository, "v1"), { code: "DENIED" }, deniedBy);
  }
});

void t.test(
  "a realm without TLS is not asked for a registry with TLS, nor one with a login in it",
  async (t) => {
    const { registry, upstream, repository } = await setup(t, {
      registry: { auth: { kind: "token", realm: "ftp://token.test/" } },
    });
    await t.rejects(upstream.resolve(repository, "v1"), { code: "DENIED" });
    t.equal(registry.requests.length, 1);
    const inside = await setup(t, {
      registry: { auth: { kind: "token", realm: "http://user:pass@127.0.0.1:1/" } },
    });
    await t.rejects(inside.upstream.resolve(inside.repository, "v1"), { code: "DENIED" });
  },
);

void t.test("a token server that gives nonsense is an error of the source, not a crash", async (t) => {
  const { registry, upstream, repository } = await setup(t, { registry: { auth: { kind: "token" } } });
  const answers = ["", "[]", "null", "{}", '{"token":5}', '{"token":"a\\r\\nx: y"}', "x".repeat(200_000)];
  for (const body of answers) {
    registry.faults.set([{ match: { kind: "token" }, status: 200, body }]);
    await t.rejects(upstream.resolve(repository, "v1"), { code: "STATUS" }, body.slice(0, 30));
  }
});

void t.test("a docker config that changes is read again; one that breaks means no login", async (t) => {
  const dir = t.testdir({ "config.json": "{}" });
  const file = join(dir, "config.json");
  const { upstream, image, repository, registry } = await setup(t, {
    registry: { auth: { kind: "basic", users: USERS } },
    upstream: { dockerConfigFile: file },
  });
  await t.rejects(upstream.resolve(repository, "v1"), { code: "DENIED" });
  await writeFile(file, configOf({ auth: AUTH }, new URL(registry.url).host));
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  await writeFile(file, "{ not json at all");
  await t.rejects(upstream.resolve(repository, "v1"), { code: "DENIED" });
});

void t.test(
  "headers of the administrator go to the registry, not to where it redirects or gets tokens",
  async (t) => {
    const { upstream, image, repository, registry } = await setup(t, {
      registry: { auth: { kind: "token" }, redirectBlobs: { lifeMs: 60_000 } },
      config: { headers: { "X-Node-Key": "abc", "X-Several": ["1", "2"] } },
    });
    const layer = image.layers[0]?.digest ?? image.digest;
    await buffer((await upstream.blob(repository, layer, undefined)).body);
    for (const request of registry.requests) {
      const wanted = request.kind === "storage" || request.kind === "token" ? undefined : "abc";
      t.equal(request.headers["x-node-key"], wanted, request.kind);
    }
    t.equal(registry.requests[0]?.headers["x-several"], "1, 2");
  },
);

void t.test("logins are found by the names docker and Kubernetes write", async (t) => {
  const cases = [
    ["https://index.docker.io/v1/", "docker.io", true],
    ["docker.io", "docker.io", true],
    ["https://registry.test", "registry.test", true],
    ["registry.test/v2/", "registry.test", true],
    ["registry.test/team", "registry.test", true],
    ["registry.test/te", "registry.test", false],
    ["other.test", "registry.test", false],
    ["REGISTRY.test", "registry.test", true],
  ] as const;
  for (const [key, registry, works] of cases) {
    const { auths } = parseDockerConfig(configOf({ auth: AUTH }, key));
    const found = lookup(auths, { registry, repository: "team/app" });
    t.equal(found?.kind, works ? "basic" : undefined, key);
  }
});

void t.test("a registry's login never goes to the host that is put in its place", async (t) => {
  for (const kind of ["basic", "token"] as const) {
    const { registry, image } = await setup(t, { registry: { auth: { kind, users: USERS } } });
    const { host } = new URL(registry.url);
    for (const [key, works] of [
      [NAME, false],
      [host, true],
      [`${host}/team`, true],
    ] as const) {
      const file = join(t.testdir({ "config.json": configOf({ auth: AUTH }, key) }), "config.json");
      const { upstream } = clientOf(t, { [NAME]: { url: registry.url } }, { dockerConfigFile: file });
      registry.forget();
      const resolved = upstream.resolve({ registry: NAME, repository: "team/app" }, "v1");
      if (works || kind === "token") t.equal((await resolved).digest, image.digest, `${kind}: ${key}`);
      else await t.rejects(resolved, { code: "DENIED" }, `${kind}: ${key}`);
      const sent = registry.requests.some(({ authorization }) => authorization?.startsWith("Basic"));
      t.equal(sent, works, `${kind}: whether a login was sent to the host`);
    }
  }
});

void t.test("a login is the registry's own at its own host only, and never goes in clear text", async (t) => {
  t.equal(endpointOf("docker.io").loginAs, "docker.io");
  t.equal(endpointOf("docker.io", { url: "https://registry-1.docker.io" }).loginAs, "docker.io");
  t.equal(endpointOf("docker.io", { url: "https://mirror.test/hub" }).loginAs, "mirror.test");
  t.equal(endpointOf("ghcr.io:443", { url: "https://ghcr.io" }).loginAs, "ghcr.io:443");
  t.equal(endpointOf("ghcr.io", { url: "https://ghcr.io:8443" }).loginAs, "ghcr.io:8443");
  for (const [url, safe] of [
    ["https://registry.test/token", true],
    ["http://127.0.0.1:5000", true],
    ["http://localhost:5000", true],
    ["http://[::1]:5000", true],
    ["http://registry.test", false],
    ["http://10.0.0.1:5000", false],
    ["http://127.0.0.1.evil.test", false],
  ] as const) {
    t.equal(isSafeForLogins(new URL(url)), safe, url);
  }
});
