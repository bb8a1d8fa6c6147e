import { buffer } from "node:stream/consumers";
import { digestOf, NotFoundError, parseDigest, parseManifest } from "@p2p-mirror/shared";
import t from "tap";
import { setup } from "./rig.ts";

const ABSENT = parseDigest(`sha256:${"0".repeat(64)}`);

void t.test("an anonymous pull: tag, manifests, config and layers, byte for byte", async (t) => {
  const { upstream, image, repository, registry } = await setup(t, { platforms: ["amd64", "arm64"] });
  const resolved = await upstream.resolve(repository, "v1");
  t.equal(resolved.digest, image.digest);
  t.equal(resolved.mediaType, "application/vnd.oci.image.index.v1+json");

  const index = await upstream.manifest(repository, resolved.digest);
  t.same(index.descriptor, resolved, "HEAD and GET say the same");
  t.equal(digestOf(index.bytes), image.digest);
  for (const child of parseManifest(index.bytes).manifests) {
    const manifest = await upstream.manifest(repository, child.digest);
    t.same(manifest.descriptor, child, "the child is what the index says");
    for (const blob of parseManifest(manifest.bytes).blobs) {
      const { size, start, body } = await upstream.blob(repository, blob.digest, undefined);
      t.same([size, start], [blob.size, 0], "the whole blob is announced");
      t.equal(digestOf(await buffer(body)), blob.digest, "its bytes are right");
      t.equal(await upstream.blobSize(repository, blob.digest), blob.size, "HEAD knows its size");
    }
  }
  t.ok(
    registry.requests.every((request) => request.headers["accept-encoding"] === "identity"),
    "compressed transfer is never asked for",
  );
});

void t.test("a part of a blob is that part, also at its end and of one byte", async (t) => {
  const { upstream, image, repository } = await setup(t);
  const layer = image.layers[0];
  if (layer === undefined) throw new Error("no layer");
  const whole = await buffer((await upstream.blob(repository, layer.digest, undefined)).body);
  const ranges = [
    [0, 1],
    [0, layer.size],
    [1000, 200_000],
    [layer.size - 1, layer.size],
    [layer.size - 10, layer.size + 500],
  ] as const;
  for (const [start, end] of ranges) {
    const part = await upstream.blob(repository, layer.digest, { start, end });
    t.same([part.start, part.size], [start, layer.size], `${start}-${end}: announced`);
    t.ok((await buffer(part.body)).equals(whole.subarray(start, end)), `${start}-${end}: bytes`);
  }
});

void t.test("what is not there is a NotFoundError that says what", async (t) => {
  const { upstream, repository } = await setup(t);
  const elsewhere = { ...repository, repository: "no/such" };
  const cases: readonly (readonly [Promise<unknown>, string])[] = [
    [upstream.resolve(repository, "v2"), "MANIFEST_UNKNOWN"],
    [upstream.manifest(repository, ABSENT), "MANIFEST_UNKNOWN"],
    [upstream.manifest(elsewhere, "v1"), "NAME_UNKNOWN"],
    [upstream.blob(repository, ABSENT, undefined), "BLOB_UNKNOWN"],
    [upstream.blobSize(repository, ABSENT), "BLOB_UNKNOWN"],
    [upstream.tags(elsewhere, {}), "NAME_UNKNOWN"],
  ];
  for (const [asked, code] of cases) {
    await t.rejects(asked, { constructor: NotFoundError, code }, code);
  }
});

void t.test("tags come in pages, and the link names the next", async (t) => {
  const { upstream, image, repository, registry } = await setup(t);
  for (const tag of ["a", "b", "c"]) registry.content.tag("team/app", tag, image.digest);
  const first = await upstream.tags(repository, { n: 2 });
  t.same(JSON.parse(Buffer.from(first.body).toString()), { name: "team/app", tags: ["a", "b"] });
  t.equal(first.next, "/v2/team/app/tags/list?n=2&last=b");
  const second = await upstream.tags(repository, { n: 2, last: "b" });
  t.same(JSON.parse(Buffer.from(second.body).toString()), { name: "team/app", tags: ["c", "v1"] });
  t.equal(second.next, undefined);
});
