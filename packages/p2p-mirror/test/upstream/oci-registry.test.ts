import { buffer } from "node:stream/consumers";
import { digestOf, isDigest, MEDIA_TYPES, parseManifest } from "@p2p-mirror/shared";
import t from "tap";
import { seededBytes } from "../../../../test/rig/oci-registry/image.ts";
import { startOciRegistry } from "../../../../test/rig/oci-registry.ts";
import { startShapedLink } from "../../../../test/rig/shaped-link.ts";
import { clientOf, NAME, setup } from "./rig.ts";

const describe = (bytes: Uint8Array) => ({
  mediaType: "application/octet-stream",
  digest: digestOf(bytes),
  size: bytes.byteLength,
});

/* The rig's registry and link stand for the real ones in many tests: what they must do themselves is tested here. */

void t.test("push by every way of the upload protocol, and pull what was pushed", async (t) => {
  const registry = await startOciRegistry();
  t.teardown(() => registry.close());
  const { upstream } = clientOf(t, { [NAME]: { url: registry.url } });
  const repository = { registry: NAME, repository: "pushed/by/hand" };
  const base = `${registry.url}/v2/pushed/by/hand`;
  const blobs = [1, 2, 3].map((at) => seededBytes(`blob ${at}`, at * 1000));
  const at = (location: string | null): string => `${registry.url}${location ?? ""}`;

  const [one, two, three] = blobs;
  if (one === undefined || two === undefined || three === undefined) throw new Error("no blobs");
  const single = await fetch(`${base}/blobs/uploads/?digest=${digestOf(one)}`, { method: "POST", body: one });
  t.equal(single.status, 201, "POST with everything");

  const begun = await fetch(`${base}/blobs/uploads/`, { method: "POST" });
  t.equal(begun.status, 202);
  const put = `${at(begun.headers.get("location"))}?digest=${digestOf(two)}`;
  t.equal((await fetch(put, { method: "PUT", body: two })).status, 201, "POST, then PUT");

  const chunked = at((await fetch(`${base}/blobs/uploads/`, { method: "POST" })).headers.get("location"));
  for (const part of [three.subarray(0, 1000), three.subarray(1000)]) {
    t.equal((await fetch(chunked, { method: "PATCH", body: part })).status, 202, "PATCH");
  }
  t.equal((await fetch(`${chunked}?digest=${digestOf(three)}`, { method: "PUT" })).status, 201, "in parts");

  const wrong = await fetch(`${base}/blobs/uploads/?digest=${digestOf(one)}`, { method: "POST", body: two });
  t.equal(wrong.status, 400, "bytes that do not fit their digest");
  const mounted = await fetch(
    `${registry.url}/v2/other/blobs/uploads/?mount=${digestOf(one)}&from=pushed/by/hand`,
    { method: "POST" },
  );
  t.equal(mounted.status, 201, "mounted from another repository");

  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociManifest,
      config: describe(one),
      layers: [describe(two), describe(three)],
    }),
  );
  const pushed = await fetch(`${base}/manifests/v1`, {
    method: "PUT",
    body: manifest,
    headers: { "content-type": MEDIA_TYPES.ociManifest },
  });
  t.same([pushed.status, pushed.headers.get("docker-content-digest")], [201, digestOf(manifest)]);

  const pulled = await upstream.manifest(repository, "v1");
  t.equal(pulled.descriptor.digest, digestOf(manifest));
  for (const blob of parseManifest(pulled.bytes).blobs) {
    const { body } = await upstream.blob(repository, blob.digest, undefined);
    t.equal(digestOf(await buffer(body)), blob.digest, "pulled back");
  }
  t.equal((await fetch(`${base}/manifests/v1`, { method: "DELETE" })).status, 202);
  await t.rejects(upstream.resolve(repository, "v1"), { code: "MANIFEST_UNKNOWN" }, "deleted");
});

void t.test("If-None-Match on a manifest", async (t) => {
  const { registry, image } = await setup(t);
  const url = `${registry.url}/v2/team/app/manifests/v1`;
  const etag = `"${image.digest}"`;
  t.equal((await fetch(url, { headers: { "if-none-match": etag } })).status, 304);
  t.equal((await fetch(url, { headers: { "if-none-match": '"other"' } })).status, 200);
});

void t.test("images are the same for the same seed, others for another", async (t) => {
  const first = await setup(t);
  const second = await setup(t);
  t.equal(first.image.digest, second.image.digest);
  const other = await setup(t, { layerSizes: [300_001, 100] });
  t.not(other.image.digest, first.image.digest);
  t.ok(isDigest(first.image.digest));
});

void t.test(
  "a shaped link is as fast as it says, over all connections together, and counts its bytes",
  async (t) => {
    const { registry, image, repository } = await setup(t, { layerSizes: [1_000_000] });
    const link = await startShapedLink({
      target: { host: "127.0.0.1", port: registry.port },
      downRate: 4_000_000,
    });
    t.teardown(() => link.close());
    const { upstream } = clientOf(t, { [NAME]: { url: `http://127.0.0.1:${link.port}` } });
    const layer = image.layers[0]?.digest ?? image.digest;
    const before = performance.now();
    await Promise.all(
      Array.from({ length: 4 }, async () => buffer((await upstream.blob(repository, layer, undefined)).body)),
    );
    const seconds = (performance.now() - before) / 1000;
    t.ok(link.bytes.down > 4_000_000 && link.bytes.down < 4_020_000, `${link.bytes.down} bytes`);
    t.ok(seconds > 0.95, `not faster: ${seconds.toFixed(2)} s for one second's worth`);
    t.ok(seconds < 3, `nor much slower: ${seconds.toFixed(2)} s`);
  },
);

void t.test(
  "a link that is killed refuses, one that is frozen says nothing, both can be restored",
  async (t) => {
    const { registry, image, repository } = await setup(t);
    const link = await startShapedLink({
      target: { host: "127.0.0.1", port: registry.port },
      latencyMs: 5,
      jitterMs: 5,
    });
    t.teardown(() => link.close());
    const config = { [NAME]: { url: `http://127.0.0.1:${link.port}` } };
    const ask = async () => clientOf(t, config).upstream.resolve(repository, "v1");
    t.equal((await ask()).digest, image.digest);
    await link.kill();
    await t.rejects(ask(), { code: "UNREACHABLE" });
    await link.restore();
    t.equal((await ask()).digest, image.digest);
    link.freeze();
    await t.rejects(ask(), { code: "NO_FIRST_BYTE" });
    await link.restore();
    t.equal((await ask()).digest, image.digest);
  },
);
