import { buffer } from "node:stream/consumers";
import { digestOf } from "@p2p-mirror/shared";
import t from "tap";
import { lifeOf } from "../../src/upstream/redirects.ts";
import { passed, setup, type Setup } from "./rig.ts";

const layerOf = ({ image }: Setup) => image.layers[0]?.digest ?? image.digest;
const kindsOf = ({ registry }: Setup): string[] => registry.requests.map((request) => request.kind);

async function read(rig: Setup, range?: { start: number; end: number }): Promise<Buffer> {
  return buffer((await rig.upstream.blob(rig.repository, layerOf(rig), range)).body);
}

void t.test("a blob's redirect is followed without credentials, and remembered for its life", async (t) => {
  const rig = await setup(t, { registry: { auth: { kind: "token" }, redirectBlobs: { lifeMs: 60_000 } } });
  t.equal(digestOf(await read(rig)), layerOf(rig));
  t.equal((await read(rig, { start: 10, end: 30 })).length, 20);
  t.equal((await read(rig, { start: 100, end: 130 })).length, 30);
  t.same(
    kindsOf(rig),
    ["blob", "token", "blob", "storage", "storage", "storage"],
    "straight there from then on",
  );
  for (const request of rig.registry.requests) {
    if (request.kind === "storage") t.equal(request.authorization, undefined, "without the token");
  }
});

void t.test("a remembered link that is refused is asked for again, once", async (t) => {
  const rig = await setup(t, { registry: { redirectBlobs: { lifeMs: 60_000 } } });
  await read(rig);
  rig.registry.storage?.expireAll();
  rig.registry.forget();
  t.equal(digestOf(await read(rig)), layerOf(rig));
  t.same(kindsOf(rig), ["storage", "blob", "storage"]);

  for (const status of [401, 403, 404, 410, 500]) {
    rig.registry.faults.set([{ match: { kind: "storage" }, status, times: 1 }]);
    t.equal(digestOf(await read(rig)), layerOf(rig), String(status));
  }
});

void t.test(
  "a storage that refuses fresh links is an error of the source, not a refusal of this node",
  async (t) => {
    const rig = await setup(t, { registry: { redirectBlobs: { lifeMs: 60_000 } } });
    rig.registry.faults.add({ match: { kind: "storage" }, status: 403 });
    await t.rejects(read(rig), { code: "STATUS", status: 403 });
    t.same(kindsOf(rig), ["blob", "storage"], "no circle");
  },
);

void t.test("a short life is kept: the link is not used after it", async (t) => {
  const rig = await setup(t, { registry: { redirectBlobs: { lifeMs: 1 } } });
  const { registry } = rig;
  registry.faults.add({ match: { kind: "storage" }, status: 200, body: "fake" });
  await buffer((await rig.upstream.blob(rig.repository, layerOf(rig), undefined)).body);
  await passed(1100);
  registry.forget();
  await buffer((await rig.upstream.blob(rig.repository, layerOf(rig), undefined)).body);
  t.equal(kindsOf(rig)[0], "blob", "the registry was asked for a new one");
});

void t.test("the size of a blob is found out also where HEAD ends at a link for GET only", async (t) => {
  const rig = await setup(t);
  const size = rig.image.layers[0]?.size;
  for (const status of [400, 405, 501]) {
    rig.registry.faults.set([{ match: { kind: "blob", method: "HEAD" }, status }]);
    t.equal(await rig.upstream.blobSize(rig.repository, layerOf(rig)), size, String(status));
  }
  rig.registry.faults.set([{ match: { kind: "blob", method: "HEAD" }, chunked: true }]);
  t.equal(await rig.upstream.blobSize(rig.repository, layerOf(rig)), size, "HEAD without a length");
});

void t.test("circles and dead ends of redirects are errors, after five steps at most", async (t) => {
  const rig = await setup(t);
  const { registry, upstream, repository } = rig;
  const places = ["/v2/team/app/manifests/v1", "http://", "javascript:alert(1)", "file:///etc/passwd", ""];
  for (const location of places) {
    registry.faults.set([{ match: { kind: "manifest" }, redirect: location }]);
    registry.forget();
    await t.rejects(upstream.resolve(repository, "v1"), { code: "STATUS" }, location);
    t.ok(registry.requests.length <= 6, `${location}: ${registry.requests.length} requests`);
  }
});

void t.test(
  "how long a link lives: what object stores write, relative to the registry's clock",
  async (t) => {
    const now = Date.parse("2026-01-01T00:00:00Z");
    const epoch = now / 1000;
    const cases = [
      ["X-Amz-Date=20260101T000000Z&X-Amz-Expires=1200", 1_200_000],
      ["X-Amz-Date=20251231T235000Z&X-Amz-Expires=1200", 600_000],
      ["x-amz-expires=100", 100_000],
      ["X-Goog-Date=20260101T000000Z&X-Goog-Expires=900", 900_000],
      ["sv=2021-08-06&se=2026-01-01T00%3A10%3A00Z&sig=abc", 600_000],
      [`Expires=${epoch + 300}&Signature=x&Key-Pair-Id=y`, 300_000],
      [`expires=${epoch + 20}&signature=x`, 20_000],
      [`verify=${epoch + 40}-abcdef`, 40_000],
      ["signature=x", 60_000],
      ["", 60_000],
      ["X-Amz-Expires=999999", 3_600_000],
      ["se=garbage", 60_000],
      [`Expires=${epoch - 5}`, 0],
    ] as const;
    for (const [query, life] of cases) {
      t.equal(Math.round(lifeOf(new URL(`https://s.test/b?${query}`), now) / 0.9), life, query);
    }
  },
);
