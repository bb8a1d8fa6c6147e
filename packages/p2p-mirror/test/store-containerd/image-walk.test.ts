import t from "tap";
import { digestOf, MEDIA_TYPES, type Descriptor, type Digest } from "@p2p-mirror/shared";
import { walkImage } from "../../src/store/containerd/image-walk.ts";
import { FakeContainerd } from "./support/fake-containerd.ts";
import { until } from "../../../../test/rig/until.ts";
import { kinds, startStore } from "./support/store.ts";

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const describe = (bytes: Uint8Array, mediaType: string): Descriptor => ({
  digest: digestOf(bytes),
  size: bytes.byteLength,
  mediaType,
});

function image(name: string): { manifest: Buffer; blobs: Buffer[] } {
  const blobs = [`config ${name}`, `layer 1 ${name}`, `layer 2 ${name}`].map((text) => Buffer.from(text));
  const [config, ...layers] = blobs.map((bytes) => describe(bytes, "application/octet-stream"));
  return { manifest: json({ mediaType: MEDIA_TYPES.ociManifest, config, layers }), blobs };
}

const index = (manifests: readonly Buffer[], mediaType: string = MEDIA_TYPES.ociManifest): Buffer =>
  json({ mediaType: MEDIA_TYPES.ociIndex, manifests: manifests.map((bytes) => describe(bytes, mediaType)) });

/** Walks over what is in memory; gives what was found, and everything that was asked for. */
async function walk(
  target: Buffer,
  held: readonly Buffer[],
): Promise<{ found: Set<Digest>; asked: Digest[] }> {
  const content = new Map(held.map((bytes) => [digestOf(bytes), bytes]));
  const found = new Set<Digest>();
  const asked: Digest[] = [];
  await walkImage(describe(target, MEDIA_TYPES.ociIndex), {
    isHeld: async (digest) => {
      asked.push(digest);
      if (content.has(digest)) found.add(digest);
      return content.has(digest);
    },
    readManifest: async ({ digest }) => content.get(digest),
  });
  return { found, asked };
}

await t.test("a walk finds what is held of each level, and asks for each digest once", async (t) => {
  const [own, other] = [image("own"), image("other")];
  const inner = index([own.manifest, other.manifest]);
  const outer = index([inner, inner], MEDIA_TYPES.ociIndex);
  const held = [outer, inner, own.manifest, ...own.blobs.slice(0, 2)];
  const { found, asked } = await walk(outer, held);
  t.strictSame([...found].toSorted(), held.map((bytes) => digestOf(bytes)).toSorted());
  t.equal(new Set(asked).size, asked.length);
  t.notOk(
    other.blobs.some((bytes) => asked.includes(digestOf(bytes))),
    "a manifest that is not held has no children",
  );
});

await t.test("content of another kind, and an index of a thousand and more, end the walk well", async (t) => {
  const junk = Buffer.from("not json");
  t.equal((await walk(junk, [junk])).found.size, 1);
  const many = Array.from({ length: 2_000 }, (_, at) => image(`m${at}`).manifest);
  const top = index(many);
  const { found } = await walk(top, [top, ...many]);
  t.equal(found.size, 1_000, "bounded");
});

await t.test("an image event makes its content known, even if one of its manifests is wrong", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  await using watched = await startStore({ socket: fake.socket, settleMs: 600_000 });
  await until("subscribed", () => fake.subscribers === 1);
  const [good, bad] = [image("good"), image("bad")];
  const top = index([bad.manifest, good.manifest]);
  for (const bytes of [top, good.manifest, ...good.blobs, ...bad.blobs]) fake.put(bytes);
  const wrong = Buffer.from(bad.manifest);
  wrong.write("X", 5);
  fake.blobs.set(digestOf(bad.manifest), { bytes: wrong });
  fake.images.set("reg.example.test/a:v1", digestOf(top));
  for (const topic of ["create", "update"]) {
    fake.publish(`/images/${topic}`, "containerd.services.images.v1.ImageCreate", {
      name: "reg.example.test/a:v1",
    });
  }
  const last = good.blobs.at(-1) ?? top;
  await until("the last layer is told", () =>
    watched.events.some((event) => event.kind === "added" && event.blob.digest === digestOf(last)),
  );
  t.equal(kinds(watched.events).filter((kind) => kind === "added").length, 6);
  t.same(
    watched.events.filter((event) => event.kind === "removed"),
    [{ kind: "removed", digest: digestOf(bad.manifest) }],
  );
});

await t.test(
  "what vanishes without an event is found after an image or a snapshot was removed, or by the clock",
  async (t) => {
    await using fake = await FakeContainerd.create();
    await fake.start();
    const digests = ["a", "b", "c"].map((text) => fake.put(Buffer.from(text)));
    await using watched = await startStore({ socket: fake.socket });
    await using ticking = await startStore({
      socket: fake.socket,
      settleMs: 600_000,
      reconcileIntervalMs: 20,
    });
    await until("subscribed", () => fake.subscribers === 2);
    await until(
      "the comparison after connecting is over",
      async () => (await watched.metric("p2p_mirror_containerd_reconciles_total")) === 2,
    );
    const triggers: [string, string, object][] = [
      ["/images/delete", "containerd.services.images.v1.ImageDelete", { name: "x" }],
      ["/snapshot/remove", "containerd.services.images.v1.ImageDelete", {}],
    ];
    for (const [at, [topic, type, payload]] of triggers.entries()) {
      const digest = digests[at] ?? "";
      fake.blobs.delete(digest);
      for (let burst = 0; burst < 5; burst += 1) fake.publish(topic, type, payload);
      await until("told", () =>
        watched.events.some((event) => event.kind === "removed" && event.digest === digest),
      );
      await until("by the clock", () =>
        ticking.events.some((event) => event.kind === "removed" && event.digest === digest),
      );
    }
    t.equal(await watched.metric("p2p_mirror_containerd_reconciles_total"), 4, "one for each burst");
    t.equal(await watched.metric("p2p_mirror_containerd_blobs"), 1);
  },
);
