import t from "tap";
import { digestOf, isManifestType, MAX_MANIFEST_BYTES, MEDIA_TYPES, parseManifest } from "@p2p-mirror/shared";

const bytes = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));
const descriptor = (name: string, size = name.length, mediaType = "application/x") => ({
  mediaType,
  digest: digestOf(Buffer.from(name)),
  size,
});

await t.test("an image manifest names its config first, then its layers in order", async (t) => {
  const manifest = parseManifest(
    bytes({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociManifest,
      config: descriptor("config"),
      layers: [descriptor("one"), descriptor("two")],
      annotations: { a: "b", n: 1 },
    }),
  );
  t.equal(manifest.mediaType, MEDIA_TYPES.ociManifest);
  t.same(manifest.blobs, [descriptor("config"), descriptor("one"), descriptor("two")]);
  t.same(manifest.manifests, []);
  t.same(manifest.annotations, { a: "b" }, "what is no text is no annotation");
});

await t.test("an index and a docker list name manifests", async (t) => {
  for (const mediaType of [MEDIA_TYPES.ociIndex, MEDIA_TYPES.dockerList]) {
    const manifest = parseManifest(
      bytes({ mediaType, manifests: [descriptor("amd64"), descriptor("arm64")] }),
    );
    t.equal(manifest.mediaType, mediaType);
    t.same(manifest.manifests, [descriptor("amd64"), descriptor("arm64")]);
    t.same(manifest.blobs, []);
  }
});

await t.test("without a mediaType the shape decides (OCI allows it to be missing)", async (t) => {
  t.equal(parseManifest(bytes({ manifests: [] })).mediaType, MEDIA_TYPES.ociIndex);
  t.equal(parseManifest(bytes({ config: descriptor("c"), layers: [] })).mediaType, MEDIA_TYPES.ociManifest);
});

await t.test("an artifact has its type, its blobs and what it is attached to", async (t) => {
  const manifest = parseManifest(
    bytes({ artifactType: "application/sbom", blobs: [descriptor("sbom")], subject: descriptor("image") }),
  );
  t.equal(manifest.artifactType, "application/sbom");
  t.same(manifest.subject, descriptor("image"));
  t.same(manifest.blobs, [descriptor("sbom")]);
});

await t.test("children that are no descriptors are left out", async (t) => {
  const good = descriptor("good");
  const bad = [
    null,
    "text",
    [],
    {},
    { ...good, digest: "sha256:../../etc/passwd" },
    { ...good, digest: 5 },
    { ...good, size: -1 },
    { ...good, size: 1.5 },
    { ...good, size: "10" },
    { ...good, size: 2 ** 53 },
  ];
  const manifest = parseManifest(bytes({ config: bad[3], layers: [...bad, good], manifests: "no list" }));
  t.same(manifest.blobs, [good]);
  t.same(manifest.manifests, []);
});

await t.test("a child without a media type is bytes", async (t) => {
  const { digest, size } = descriptor("x");
  t.equal(parseManifest(bytes({ layers: [{ digest, size }] })).blobs[0]?.mediaType, MEDIA_TYPES.octetStream);
});

await t.test("what is no manifest is refused", async (t) => {
  const wrong: [string, Uint8Array][] = [
    ["no JSON", Buffer.from("<html>")],
    ["empty", new Uint8Array()],
    ["cut", Buffer.from('{"layers": [')],
    ["a list", bytes([])],
    ["null", bytes(null)],
    ["a text", bytes("x")],
    ["no UTF-8", Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
    ["too long", Buffer.alloc(MAX_MANIFEST_BYTES + 1, " ")],
  ];
  for (const [what, input] of wrong) t.throws(() => parseManifest(input), { code: "MANIFEST_INVALID" }, what);
});

await t.test("4 MiB exactly is still read (containerd's limit)", async (t) => {
  const text = JSON.stringify({ layers: [] });
  const padded = Buffer.from(text.padEnd(MAX_MANIFEST_BYTES, " "));
  t.equal(parseManifest(padded).mediaType, MEDIA_TYPES.ociManifest);
});

await t.test("the four manifest types are known, others are not", async (t) => {
  for (const type of ["ociManifest", "ociIndex", "dockerManifest", "dockerList"] as const) {
    t.ok(isManifestType(MEDIA_TYPES[type]), type);
  }
  t.notOk(isManifestType(MEDIA_TYPES.octetStream));
  t.notOk(isManifestType(`${MEDIA_TYPES.ociManifest}; charset=utf-8`));
});
