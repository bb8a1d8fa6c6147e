import { join } from "node:path";
import { parseDigest } from "@p2p-mirror/shared";
import t from "tap";
import { NAME, passed, setup } from "./rig.ts";

const ABSENT = parseDigest(`sha256:${"0".repeat(64)}`);
const USERS = { robot: "pw" };
const LOGIN = JSON.stringify({
  auths: { [NAME]: { auth: Buffer.from("robot:pw").toString("base64") } },
});
const ANYTHING = [{ manifest: "v1" }, undefined] as const;

void t.test(
  "public: what upstream gives to a request without credentials, with and without tokens",
  async (t) => {
    for (const auth of [{ kind: "none" }, { kind: "token" }] as const) {
      for (const probe of ANYTHING) {
        const { upstream, repository } = await setup(t, { registry: { auth } });
        t.equal(
          await upstream.isPublic(repository, { probe }),
          true,
          `${auth.kind} ${JSON.stringify(probe)}`,
        );
      }
    }
  },
);

void t.test("private: refused by the registry, the token server, or for want of a login", async (t) => {
  const kinds = [
    { kind: "token", isPublic: () => false, deniedBy: "registry" },
    { kind: "token", isPublic: () => false, deniedBy: "token" },
    { kind: "basic", users: USERS },
  ] as const;
  for (const auth of kinds) {
    for (const probe of ANYTHING) {
      const { upstream, repository } = await setup(t, { registry: { auth } });
      t.equal(await upstream.isPublic(repository, { probe }), false, `${auth.kind} ${JSON.stringify(probe)}`);
    }
  }
});

void t.test("this node's own login never makes a repository public", async (t) => {
  const dir = t.testdir({ "config.json": LOGIN });
  for (const auth of [
    { kind: "basic", users: USERS },
    { kind: "token", users: USERS, isPublic: () => false },
  ] as const) {
    const { upstream, repository, image, registry } = await setup(t, {
      registry: { auth },
      upstream: { dockerConfigFile: join(dir, "config.json") },
    });
    t.equal((await upstream.resolve(repository, "v1")).digest, image.digest, "the node itself may pull");
    registry.forget();
    t.equal(await upstream.isPublic(repository, { probe: { manifest: "v1" } }), false, auth.kind);
    t.notOk(
      registry.requests.some((request) => request.authorization?.startsWith("Basic") === true),
      "asked as nobody",
    );
  }
});

void t.test("nor do headers of the administrator's, which may be keys", async (t) => {
  const { upstream, repository, registry } = await setup(t, {
    config: { headers: { "private-token": "x" } },
  });
  await upstream.resolve(repository, "v1");
  registry.forget();
  t.equal(await upstream.isPublic(repository, { probe: { manifest: "v1" } }), true);
  t.equal(registry.requests.length, 1, "what came with the key was no proof, so it was asked");
  t.equal(registry.requests[0]?.headers["private-token"], undefined);
});

void t.test(
  "a pull without any credentials is proof enough: the verdict then costs no request",
  async (t) => {
    const { upstream, repository, registry } = await setup(t, { registry: { auth: { kind: "token" } } });
    await upstream.resolve(repository, "v1");
    registry.forget();
    t.equal(await upstream.isPublic(repository, { probe: { manifest: "v1" } }), true);
    t.equal(registry.requests.length, 0);
  },
);

void t.test("a cold tag costs one HEAD for verdict and digest together, and one token", async (t) => {
  const { upstream, repository, registry, image } = await setup(t, { registry: { auth: { kind: "token" } } });
  t.equal(await upstream.isPublic(repository, { probe: { manifest: "v1" } }), true);
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  t.equal((await upstream.manifest(repository, image.digest)).descriptor.digest, image.digest);
  t.same(
    registry.requests.map((request) => `${request.method} ${request.kind} ${request.status}`),
    ["HEAD manifest 401", "GET token 200", "HEAD manifest 200", "GET manifest 200"],
  );
  await upstream.resolve(repository, "v1");
  t.equal(registry.requests.length, 5, "the digest is given on once; after that upstream is asked");
});

void t.test("a refusal takes a verdict back", async (t) => {
  const { upstream, repository, registry } = await setup(t);
  await upstream.resolve(repository, "v1");
  registry.faults.set([{ status: 403 }]);
  await t.rejects(upstream.resolve(repository, "v1"), { code: "DENIED" });
  t.equal(await upstream.isPublic(repository, { probe: { manifest: "v1" } }), false);
});

void t.test("a tag that is not there says nothing; the list of tags does", async (t) => {
  const open = await setup(t, { registry: { auth: { kind: "token" } } });
  t.equal(await open.upstream.isPublic(open.repository, { probe: { manifest: "gone" } }), true);
  t.equal(await open.upstream.isPublic(open.repository, { probe: { blob: ABSENT } }), true);
  const nowhere = { ...open.repository, repository: "no/such" };
  t.equal(await open.upstream.isPublic(nowhere, { probe: { manifest: "v1" } }), false);
});

void t.test("a registry that hides what it refuses behind a 404 keeps it private", async (t) => {
  const { upstream, repository, registry } = await setup(t);
  registry.faults.add({ status: 404 });
  t.equal(await upstream.isPublic(repository, { probe: { manifest: "v1" } }), false);
});

void t.test("a registry that lists tags to nobody is still public by what it gives", async (t) => {
  const { upstream, repository, registry, image } = await setup(t, { upstream: { verdicts: { yesMs: 1 } } });
  registry.faults.add({ match: { kind: "tags" }, status: 401 });
  t.equal(await upstream.isPublic(repository, { probe: { blob: image.config.digest } }), true);
  await passed(10);
  t.equal(await upstream.isPublic(repository), true, "what was given before is tried again");
});

void t.test("many ask at once: one request; and the verdict is remembered", async (t) => {
  const { upstream, repository, registry } = await setup(t);
  const verdicts = await Promise.all(
    Array.from({ length: 20 }, () => upstream.isPublic(repository, { probe: { manifest: "v1" } })),
  );
  t.ok(verdicts.every(Boolean));
  await upstream.isPublic(repository);
  t.equal(registry.requests.length, 1);
});

void t.test("when upstream cannot say, it throws, and the next request asks again", async (t) => {
  const { upstream, repository, registry } = await setup(t);
  registry.faults.set([{ status: 500 }]);
  await t.rejects(upstream.isPublic(repository, { probe: { manifest: "v1" } }), {
    name: "SourceError",
    code: "STATUS",
    temporary: true,
  });
  registry.faults.clear();
  t.equal(await upstream.isPublic(repository, { probe: { manifest: "v1" } }), true);
  registry.faults.set([{ silent: true }]);
  await t.rejects(upstream.isPublic({ ...repository, repository: "x/y" }), { code: "NO_FIRST_BYTE" });
});

void t.test("one who leaves does not end the asking of the others", async (t) => {
  const { upstream, repository, registry } = await setup(t);
  registry.faults.add({ delayMs: 50 });
  const leaving = new AbortController();
  const first = upstream.isPublic(repository, { probe: { manifest: "v1" }, signal: leaving.signal });
  const second = upstream.isPublic(repository, { probe: { manifest: "v1" } });
  leaving.abort(new Error("left"));
  await t.rejects(first, { message: "left" });
  t.equal(await second, true);
});
