import { buffer } from "node:stream/consumers";
import { digestOf } from "@p2p-mirror/shared";
import t from "tap";
import { startShapedLink } from "../../../../test/rig/shaped-link.ts";
import { clientOf, NAME, passed, setup, SHORT } from "./rig.ts";

void t.test("the page of a captive portal is not what a tag means", async (t) => {
  const { upstream, image, repository, registry } = await setup(t);
  registry.faults.set([
    { status: 200, body: "<html>please log in</html>", headers: { "content-type": "text/html" } },
  ]);
  await t.rejects(upstream.resolve(repository, "v1"), { name: "SourceError", code: "STATUS", status: 200 });
  await t.rejects(upstream.manifest(repository, image.digest), { code: "DIGEST_MISMATCH" });
});

void t.test("an artifact of an unknown type keeps its type, by tag and by digest", async (t) => {
  const { upstream, repository, registry } = await setup(t);
  const bytes = Buffer.from('{"schemaVersion":2,"anything":true}');
  const digest = registry.content.putManifest("team/app", "application/vnd.test.thing+json", bytes);
  registry.content.tag("team/app", "thing", digest);
  for (const reference of ["thing", digest]) {
    const { descriptor } = await upstream.manifest(repository, reference);
    t.same(descriptor, {
      digest: digestOf(bytes),
      size: bytes.length,
      mediaType: "application/vnd.test.thing+json",
    });
  }
  t.equal((await upstream.resolve(repository, "thing")).digest, digest);
});

void t.test("idle connections that die together are one failure, and the pull goes on", async (t) => {
  const { registry, image, upstream, repository } = await setup(t);
  const crowd = () => Promise.all(Array.from({ length: 12 }, () => upstream.resolve(repository, "v1")));
  await crowd();
  registry.faults.set([{ resetAfter: 0, times: 12 }]);
  const again = await crowd();
  t.ok(again.every((one) => one.digest === image.digest));
  t.equal(upstream.reachable(NAME), true);
});

void t.test("a token server that moved is found by the next challenge", async (t) => {
  const origin = await setup(t);
  const link = await startShapedLink({ target: { host: "127.0.0.1", port: origin.registry.port } });
  t.teardown(() => link.close());
  const old = `http://127.0.0.1:${link.port}/token`;
  const { registry, upstream, repository, image } = await setup(t, {
    registry: { auth: { kind: "token", realm: old } },
  });
  registry.faults.set([
    {
      match: { kind: "manifest" },
      status: 401,
      headers: { "www-authenticate": `Bearer realm="${old}"` },
      times: 1,
    },
  ]);
  await link.kill();
  await t.rejects(upstream.resolve(repository, "v1"), { code: "UNREACHABLE" }, "the old one is gone");
  registry.faults.set([
    {
      match: { kind: "manifest" },
      status: 401,
      headers: { "www-authenticate": `Bearer realm="${registry.url}/token"` },
      times: 1,
    },
  ]);
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest, "the new one is asked");
});

void t.test("a name that no URL can have is the client's mistake", async (t) => {
  const { upstream } = clientOf(t, {});
  for (const registry of ["host:99999", "1.2.3.4.5", "a.256"]) {
    await t.rejects(
      upstream.resolve({ registry, repository: "a" }, "v1"),
      { code: "NAME_INVALID" },
      registry,
    );
    t.equal(upstream.reachable(registry), true);
  }
  t.same(upstream.status(), []);
});

void t.test("a stall after the reader had paused for long is still noticed", async (t) => {
  const { upstream, image, repository, registry } = await setup(t, {
    layerSizes: [20_000_000],
    upstream: { timeouts: { ...SHORT, idleMs: 150 } },
  });
  registry.faults.add({ match: { kind: "blob" }, stallAfter: 15_000_000 });
  const { body } = await upstream.blob(repository, image.layers[0]?.digest ?? image.digest, undefined);
  body.read();
  await passed(1200);
  await t.rejects(buffer(body), { code: "STALLED" });
});
