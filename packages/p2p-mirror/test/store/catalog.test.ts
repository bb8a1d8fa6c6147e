import path from "node:path";
import t from "tap";
import { digestOf, MEDIA_TYPES, parseManifest, silentLogger, type Descriptor } from "@p2p-mirror/shared";
import { BlobIndex } from "../../src/store/cache/blob-index.ts";
import { IndexDb } from "../../src/store/cache/index-db.ts";
import { SqliteCatalog } from "../../src/store/cache/sqlite-catalog.ts";
import { seededBytes } from "../conformance/seeded.ts";
import { until } from "../../../../test/rig/until.ts";
import { readLayout } from "./layout-reader.ts";
import { describeBytes, HUB, runCache, store, temporaryDir, type RunningCache } from "./cache-fixture.ts";

const OTHER = { registry: "ghcr.io", repository: "org/app" };
const CONFIG = "application/vnd.oci.image.config.v1+json";
const LAYER = "application/vnd.oci.image.layer.v1.tar+zstd";

const layer = (name: string, size = 1000): Descriptor => describeBytes(seededBytes(name, size), LAYER);

function manifestOf(
  layers: readonly Descriptor[],
  more: object = {},
): { descriptor: Descriptor; bytes: Buffer } {
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociManifest,
      config: describeBytes(Buffer.from("{}"), CONFIG),
      layers,
      ...more,
    }),
  );
  return { descriptor: describeBytes(bytes, MEDIA_TYPES.ociManifest), bytes };
}

async function tagged(
  cache: RunningCache,
  tag: string,
  resolvedAt: number,
  repository = HUB,
): Promise<Descriptor> {
  const { descriptor, bytes } = manifestOf([layer(tag)]);
  await cache.store.put(descriptor, bytes, repository);
  cache.catalog.learnManifest(descriptor, parseManifest(bytes), repository);
  cache.catalog.rememberTag({ ...repository, tag, descriptor, resolvedAt });
  return descriptor;
}

await t.test("a manifest tells the size, type and parent of all it names, over a restart too", async (t) => {
  const before = await runCache(t);
  const { descriptor, bytes } = manifestOf([layer("one", 100), layer("two", 200)]);
  before.catalog.learnManifest(descriptor, parseManifest(bytes), HUB);
  for (const restarted of [false, true]) {
    const { catalog } = restarted ? await before.restart() : before;
    t.same(catalog.describe(descriptor.digest, OTHER), descriptor, "its bytes were here");
    t.same(catalog.describe(layer("two", 200).digest, HUB), layer("two", 200));
    t.same(catalog.describe(digestOf(Buffer.from("{}")), HUB), describeBytes(Buffer.from("{}"), CONFIG));
    t.same(catalog.parentsOf(layer("one", 100).digest), [descriptor.digest]);
    t.same(catalog.parentsOf(descriptor.digest), []);
    t.equal(catalog.describe(layer("unheard of").digest, HUB), undefined);
  }
});

await t.test(
  "a manifest that lies about a size is believed only until the bytes or another say otherwise",
  async (t) => {
    const cache = await runCache(t);
    const bytes = seededBytes("true", 500);
    const truth = describeBytes(bytes, LAYER);
    const liar = manifestOf([{ ...truth, size: 7, mediaType: "application/x-lie" }]);
    const honest = manifestOf([truth]);
    const learn = ({ descriptor, bytes }: typeof liar): void =>
      cache.catalog.learnManifest(descriptor, parseManifest(bytes), HUB);
    learn(liar);
    t.equal(cache.catalog.describe(truth.digest, HUB)?.size, 7);
    learn(honest);
    t.same(cache.catalog.describe(truth.digest, HUB), truth, "the last one counts");
    t.same(
      cache.catalog.parentsOf(truth.digest),
      [honest, liar].map(({ descriptor }) => descriptor.digest),
    );
    await cache.store.put(truth, bytes, HUB);
    learn(liar);
    t.same(cache.catalog.describe(truth.digest, HUB), truth, "bytes count more than words");
  },
);

await t.test("what a manifest says of a digest counts for its own repository only", async (t) => {
  const before = await runCache(t);
  const bytes = seededBytes("base layer", 700);
  const truth = describeBytes(bytes, LAYER);
  const honest = manifestOf([truth]);
  const foreign = manifestOf([{ ...truth, size: 7, mediaType: "application/x-lie" }]);
  for (const { descriptor, bytes } of [honest, foreign]) {
    const origin = descriptor === honest.descriptor ? HUB : OTHER;
    before.catalog.learnManifest(descriptor, parseManifest(bytes), origin);
  }
  for (const restarted of [false, true]) {
    const cache = restarted ? await before.restart() : before;
    t.same(cache.catalog.describe(truth.digest, HUB), truth);
    t.equal(cache.catalog.describe(truth.digest, OTHER)?.size, 7);
    t.equal(
      cache.catalog.describe(truth.digest, { ...HUB, repository: "library/third" }),
      undefined,
      "who has no word of its own about it finds out",
    );
    if (!restarted) continue;
    await cache.store.put(truth, bytes, HUB);
    t.same(cache.catalog.describe(truth.digest, OTHER), truth, "what the bytes prove counts for all");
  }
});

await t.test("the size of an image is what is held of all that its manifests name", async (t) => {
  const cache = await runCache(t);
  const shared = seededBytes("shared", 1_000);
  const own = seededBytes("own", 10);
  const one = manifestOf([describeBytes(shared, LAYER), describeBytes(own, LAYER), layer("not held", 100)]);
  const two = manifestOf([describeBytes(shared, LAYER)]);
  const index = manifestOf([], { manifests: [one.descriptor, two.descriptor] });
  for (const { descriptor, bytes } of [one, two, index]) {
    cache.catalog.learnManifest(descriptor, parseManifest(bytes), HUB);
    await cache.store.put(descriptor, bytes, HUB);
  }
  await store(cache, shared);
  await store(cache, own);
  t.equal(cache.catalog.heldSize(one.descriptor.digest), one.bytes.length + 1_010);
  t.equal(cache.catalog.heldSize(two.descriptor.digest), two.bytes.length + 1_000);
  const manifests = one.bytes.length + two.bytes.length + index.bytes.length;
  t.equal(cache.catalog.heldSize(index.descriptor.digest), manifests + 1_010, "a layer of both counts once");
  t.equal(cache.catalog.heldSize(layer("unknown").digest), 0);
});

await t.test("a blob held without a word about its type is described by its size", async (t) => {
  const cache = await runCache(t);
  const bytes = seededBytes("silent", 300);
  await store(cache, bytes);
  t.same(cache.catalog.describe(digestOf(bytes), HUB), describeBytes(bytes));
  const { descriptor, bytes: manifest } = manifestOf([describeBytes(bytes, LAYER)]);
  cache.catalog.learnManifest(descriptor, parseManifest(manifest), HUB);
  t.same(
    cache.catalog.describe(digestOf(bytes), HUB),
    describeBytes(bytes, LAYER),
    "its type comes with a manifest",
  );
});

await t.test("tags belong to their repository, move, and are listed in order", async (t) => {
  const before = await runCache(t);
  const first = await tagged(before, "v1", 1);
  await tagged(before, "latest", 2);
  const moved = await tagged(before, "v2", 3);
  before.catalog.rememberTag({ ...HUB, tag: "v1", descriptor: moved, resolvedAt: 4 });
  before.catalog.rememberTag({ ...OTHER, tag: "v1", descriptor: first, resolvedAt: 5 });
  for (const restarted of [false, true]) {
    const { catalog } = restarted ? await before.restart() : before;
    t.same(catalog.tag(HUB, "v1"), { ...HUB, tag: "v1", descriptor: moved, resolvedAt: 4 });
    t.same(catalog.tag(OTHER, "v1")?.descriptor, first);
    t.equal(catalog.tag(OTHER, "v2"), undefined);
    t.same(catalog.tagsOf(HUB), ["latest", "v1", "v2"]);
    t.same(
      catalog.images().map(({ registry, tag, resolvedAt }) => [registry, tag, resolvedAt]),
      [
        ["ghcr.io", "v1", 5],
        ["docker.io", "v1", 4],
        ["docker.io", "v2", 3],
        ["docker.io", "latest", 2],
      ],
      "newest first",
    );
    t.same(catalog.images(2), catalog.images().slice(0, 2));
  }
});

await t.test("a tag whose manifest was evicted is no image any more, but still known", async (t) => {
  const cache = await runCache(t, { size: 10_000 });
  await tagged(cache, "old", 1);
  await store(cache, seededBytes("big", 9_900));
  t.same(cache.catalog.images(), []);
  t.ok(cache.catalog.tag(HUB, "old"), "other nodes may hold it");
});

await t.test("referrers are listed by subject and repository", async (t) => {
  const cache = await runCache(t);
  const subject = await tagged(cache, "v1", 1);
  const signature = manifestOf([layer("sig")], {
    artifactType: "application/vnd.example.signature",
    subject,
    annotations: { "org.example.by": "somebody" },
  });
  const sbom = manifestOf([layer("sbom")], { subject });
  for (const { descriptor, bytes } of [signature, sbom, sbom]) {
    cache.catalog.learnManifest(descriptor, parseManifest(bytes), HUB);
  }
  t.same(
    cache.catalog.referrersOf(HUB, subject.digest).toSorted((a, b) => b.size - a.size),
    [
      {
        ...signature.descriptor,
        artifactType: "application/vnd.example.signature",
        annotations: { "org.example.by": "somebody" },
      },
      { ...sbom.descriptor, artifactType: CONFIG, annotations: undefined },
    ],
    "without an artifactType the type is that of the config",
  );
  t.same(cache.catalog.referrersOf(OTHER, subject.digest), []);
  t.same(cache.catalog.referrersOf(HUB, sbom.descriptor.digest), []);
});

await t.test("that a repository is public is remembered and taken back", async (t) => {
  const before = await runCache(t);
  before.catalog.rememberPublic(HUB, 1_000);
  before.catalog.rememberPublic(HUB, 2_000);
  before.catalog.rememberPublic(OTHER, 3_000);
  before.catalog.rememberPublic(OTHER, undefined);
  const { catalog } = await before.restart();
  t.equal(catalog.publicSince(HUB), 2_000);
  t.equal(catalog.publicHeard(HUB), undefined);
  t.equal(catalog.publicSince(OTHER), undefined);
});

await t.test("what another node was told stays its word, until upstream tells this one", async (t) => {
  const before = await runCache(t);
  const heard = '{"claim":"…","peer":"…","signature":"…"}';
  const descriptor = await tagged(before, "v0", 1);
  const entry = { ...HUB, tag: "v1", descriptor, resolvedAt: 2 };
  before.catalog.rememberTag({ ...entry, heard });
  before.catalog.rememberPublic(HUB, 2_000, heard);
  const after = await before.restart();
  t.same(after.catalog.tag(HUB, "v1"), { ...entry, heard });
  t.match(after.catalog.images()[0], { tag: "v1", heard });
  t.equal(after.catalog.publicSince(HUB), 2_000);
  t.equal(after.catalog.publicHeard(HUB), heard);
  after.catalog.rememberTag({ ...entry, resolvedAt: 3 });
  after.catalog.rememberPublic(HUB, 3_000);
  t.same(after.catalog.tag(HUB, "v1"), { ...entry, resolvedAt: 3 });
  t.equal(after.catalog.publicSince(HUB), 3_000);
  t.equal(after.catalog.publicHeard(HUB), undefined);
});

await t.test("a manifest of ten thousand children is learned in part, and holds nothing up", async (t) => {
  const cache = await runCache(t);
  const children = Array.from({ length: 10_000 }, (_, nth) => layer(`child ${nth}`, 8));
  const { descriptor, bytes } = manifestOf(children);
  const started = performance.now();
  cache.catalog.learnManifest(descriptor, parseManifest(bytes), HUB);
  t.comment(`learned in ${(performance.now() - started).toFixed(0)} ms`);
  t.ok(cache.catalog.describe(layer("child 0", 8).digest, HUB));
  t.equal(cache.catalog.describe(layer("child 9999", 8).digest, HUB), undefined);
});

await t.test(
  "what is known is bounded: the longest unseen is forgotten first, what is held never",
  async (t) => {
    const db = new IndexDb(path.join(await temporaryDir(t), "index.db"), {
      logger: silentLogger(),
      onError: (error) => t.fail("the database failed", { error }),
    });
    t.teardown(() => db.close());
    await db.open({ diskFull: false });
    let clock = 0;
    const index = new BlobIndex(db);
    const catalog = new SqliteCatalog({ db, index, now: () => clock, onChange: () => undefined });
    const manifests = Array.from({ length: 10 }, (_, nth) => manifestOf([layer(`layer ${nth}`)]));
    for (const [nth, { descriptor, bytes }] of manifests.entries()) {
      clock = nth;
      catalog.learnManifest(descriptor, parseManifest(bytes), HUB);
      catalog.rememberTag({ ...HUB, tag: `t${nth}`, descriptor, resolvedAt: nth });
      catalog.rememberPublic({ registry: HUB.registry, repository: `r${nth}` }, nth);
      if (nth === 0) index.add(descriptor.digest, descriptor.size, HUB, 0);
    }
    catalog.prune({ descriptors: 5, named: 10, names: 4 });
    t.same(catalog.tagsOf(HUB), ["t0", "t7", "t8", "t9"], "t0 is held");
    t.equal(catalog.publicSince({ registry: HUB.registry, repository: "r5" }), undefined);
    t.equal(catalog.publicSince({ registry: HUB.registry, repository: "r6" }), 6);
    const known = manifests.map(({ descriptor }) => catalog.describe(descriptor.digest, HUB) !== undefined);
    t.same(known, [true, false, false, false, false, false, true, true, true, true]);
    t.equal(catalog.describe(layer("layer 4").digest, HUB), undefined);
    t.ok(catalog.describe(layer("layer 5").digest, HUB));
  },
);

await t.test("the directory is an OCI image layout that names every held image", async (t) => {
  const cache = await runCache(t);
  const [one, two] = [await tagged(cache, "v1", 1), await tagged(cache, "v2", 2, OTHER)];
  await until(
    "index.json follows by itself",
    async () => (await readLayout(cache.dir)).manifests.length === 2,
  );
  await cache.close();
  const { manifests, blobs } = await readLayout(cache.dir);
  t.same(manifests, [
    { name: "ghcr.io/org/app:v2", ...two },
    { name: "docker.io/library/test:v1", ...one },
  ]);
  t.ok(blobs.has(one.digest) && blobs.has(two.digest));
});
