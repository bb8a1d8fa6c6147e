import t from "tap";
import { digestOf, type Digest } from "@p2p-mirror/shared";
import type { ContentEvent } from "../../src/store/content-store.ts";
import { KnownBlobs, type KnownBlob } from "../../src/store/containerd/known-blobs.ts";

const blob = (name: string, createdAt: string | undefined = "1"): KnownBlob => {
  const bytes = Buffer.from(name);
  return { digest: digestOf(bytes), size: bytes.length, createdAt };
};

/** A list that goes on when it is told to. */
async function* listOf(
  blobs: readonly KnownBlob[],
  midway: () => void = () => undefined,
): AsyncGenerator<KnownBlob> {
  for (const one of blobs) yield one;
  midway();
}

function watched(): { known: KnownBlobs; told: ContentEvent[]; gone: Digest[] } {
  const gone: Digest[] = [];
  const known = new KnownBlobs((digest) => gone.push(digest));
  const told: ContentEvent[] = [];
  known.watch((event) => told.push(event));
  return { known, told, gone };
}

await t.test("each change is told once", async (t) => {
  const { known, told } = watched();
  const [a, b] = [blob("a"), blob("b")];
  known.add(a);
  known.add(a);
  known.add({ ...a, createdAt: undefined });
  await known.reconcile(listOf([a, b]), false);
  known.remove(b.digest);
  known.remove(b.digest);
  t.same(told, [
    { kind: "added", blob: { digest: a.digest, size: 1 } },
    { kind: "added", blob: { digest: b.digest, size: 1 } },
    { kind: "removed", digest: b.digest },
  ]);
  t.equal(known.size, 1);
});

await t.test("what came or went while a list was on its way counts over the list", async (t) => {
  const { known, told } = watched();
  const [old, gone, fresh] = [blob("old"), blob("gone"), blob("fresh")];
  known.add(old);
  known.add(gone);
  told.length = 0;
  await known.reconcile(
    listOf([gone], () => {
      known.add(fresh);
      known.remove(gone.digest);
    }),
    false,
  );
  t.same(
    told.map((event) => event.kind),
    ["added", "removed", "removed"],
  );
  t.same(
    known.all().map(({ digest }) => digest),
    [fresh.digest],
  );
});

await t.test("a list that fails half-way removes nothing", async (t) => {
  const { known, told } = watched();
  known.add(blob("a"));
  const failing = listOf([blob("b")], () => {
    throw new Error("lost");
  });
  await t.rejects(known.reconcile(failing, false), { message: "lost" });
  t.equal(known.size, 1);
  t.equal(told.length, 1);
  await known.reconcile(listOf([]), false);
  t.equal(known.size, 0);
});

await t.test("a silent comparison tells the listeners nothing, but forgets what was verified", async (t) => {
  const { known, told, gone } = watched();
  const [a, b] = [blob("a"), blob("b")];
  known.add(a);
  told.length = 0;
  await known.reconcile(listOf([b]), true);
  t.same(told, []);
  t.same(gone, [a.digest]);
  t.equal(known.size, 1);
  known.add(a);
  t.equal(told.length, 1, "listeners are told again afterwards");
});

await t.test("a condemned blob is not held until it went, or shows another time of creation", async (t) => {
  const { known, told } = watched();
  const a = blob("a", "1");
  known.add(a);
  t.ok(known.condemn(a.digest));
  t.notOk(known.condemn(a.digest), "once");
  t.equal(known.get(a.digest), undefined);
  t.notOk(known.add(a));
  t.notOk(known.add({ ...a, createdAt: undefined }), "an event alone proves nothing");
  await known.reconcile(listOf([a]), false);
  t.equal(known.size, 0);
  t.ok(known.add({ ...a, createdAt: "2" }));
  known.condemn(a.digest);
  await known.reconcile(listOf([]), false);
  t.ok(known.add({ ...a, createdAt: "2" }), "it was gone in between");
  t.same(
    told.map(({ kind }) => kind),
    ["added", "removed", "added", "removed", "added"],
  );
});

await t.test(
  "condemned before its time of creation was known, the first time seen is the bad one",
  async (t) => {
    const { known } = watched();
    const a = { ...blob("a"), createdAt: undefined };
    known.add(a);
    known.condemn(a.digest);
    t.notOk(known.add({ ...a, createdAt: "7" }));
    t.notOk(known.add({ ...a, createdAt: "7" }));
    t.ok(known.add({ ...a, createdAt: "8" }));
  },
);

await t.test(
  "a blob that went and came back unseen is the same to listeners, but verified no more",
  async (t) => {
    const { known, told, gone } = watched();
    const a = blob("a", "1");
    known.add(a);
    known.add({ ...a, createdAt: "2" });
    t.same(gone, [a.digest]);
    t.equal(told.length, 1);
  },
);

await t.test("each registration ends by itself", async (t) => {
  const known = new KnownBlobs();
  let calls = 0;
  const listener = (): void => void (calls += 1);
  const first = known.watch(listener);
  known.watch(listener);
  first();
  first();
  known.reset();
  t.equal(calls, 1);
});
