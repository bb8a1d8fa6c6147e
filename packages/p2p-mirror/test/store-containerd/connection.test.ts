import t from "tap";
import { digestOf } from "@p2p-mirror/shared";
import { FakeContainerd } from "./support/fake-containerd.ts";
import { until } from "../../../../test/rig/until.ts";
import { kinds, listAll, readAll, startStore } from "./support/store.ts";

await t.test("without a containerd the store starts, holds nothing, and warns once", async (t) => {
  await using fake = await FakeContainerd.create();
  await using watched = await startStore({ socket: fake.socket });
  const { store, log } = watched;
  const digest = digestOf(Buffer.from("x"));
  t.equal(await store.stat(digest), undefined);
  t.equal(await store.read(digest, { start: 0, end: 1 }), undefined);
  t.same(await listAll(store), []);
  t.same(await store.originsOf(digest), []);
  t.equal(await watched.metric("p2p_mirror_containerd_up"), 0);

  await fake.start();
  fake.put(Buffer.from("x"));
  await until("it is found when it comes", async () => (await store.stat(digest)) !== undefined);
  await until("and told", () => kinds(watched.events).includes("reset"));
  t.equal(await watched.metric("p2p_mirror_containerd_up"), 1);
  t.equal(log.filter((line) => line.includes('"level":40')).length, 1, "one warn line for all attempts");
  t.strictSame([...fake.namespaces], ["k8s.io"], "every call names the namespace");
});

await t.test("a lost connection comes back by itself, with one reset and no false removals", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  const kept = fake.put(Buffer.from("kept"));
  const gone = fake.put(Buffer.from("gone"));
  await using watched = await startStore({ socket: fake.socket });
  t.same(kinds(watched.events), ["reset"]);
  for (const round of [2, 3]) {
    fake.stop();
    await until("the loss is seen", async () => (await watched.metric("p2p_mirror_containerd_up")) === 0);
    t.equal(await watched.store.stat(kept), undefined, "over gRPC, nothing can be had now");
    if (round === 2) fake.blobs.delete(gone);
    await fake.start();
    await until("reset", () => kinds(watched.events).length === round);
    t.ok(await watched.store.stat(kept));
  }
  t.same(kinds(watched.events), ["reset", "reset", "reset"]);
  t.equal(await watched.store.stat(gone), undefined);
  t.equal(await watched.metric("p2p_mirror_containerd_connects_total"), 3);
  await until("its return is told", () => watched.returns() === 2);
});

await t.test("a containerd that hangs costs one timeout, then counts as away until it answers", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  const digest = fake.put(Buffer.from("held"));
  await using watched = await startStore({ socket: fake.socket, timeoutMs: 1_000 });
  await until("connected", () => watched.store.connected);
  fake.frozen = true;
  const start = performance.now();
  t.equal(await watched.store.stat(digest), undefined);
  t.ok(performance.now() - start >= 950, "the first question waits");
  await until("away", async () => (await watched.metric("p2p_mirror_containerd_up")) === 0);
  const second = performance.now();
  t.equal(await watched.store.stat(digest), undefined);
  t.ok(performance.now() - second < 900, "the next ones do not");
  fake.frozen = false;
  await until("back", async () => (await watched.store.stat(digest)) !== undefined);
});

await t.test("a containerd that hangs from the start does not keep the store from starting", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  fake.frozen = true;
  const start = performance.now();
  await using watched = await startStore({ socket: fake.socket, timeoutMs: 200 });
  t.ok(performance.now() - start < 10_000);
  t.equal(await watched.store.stat(digestOf(Buffer.from("x"))), undefined);
});

await t.test("an aborted question rejects with the reason, and the connection stays", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  await using watched = await startStore({ socket: fake.socket, timeoutMs: 5_000 });
  fake.frozen = true;
  const controller = new AbortController();
  const reason = new Error("client left");
  const asked = watched.store.stat(digestOf(Buffer.from("x")), { signal: controller.signal });
  controller.abort(reason);
  await t.rejects(asked, reason);
  await t.rejects(watched.store.stat(digestOf(Buffer.from("x")), { signal: controller.signal }), reason);
  t.equal(await watched.metric("p2p_mirror_containerd_up"), 1);
});

await t.test("events are followed, those that cannot be read are passed over", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  await using watched = await startStore({ socket: fake.socket, settleMs: 600_000 });
  await until("subscribed", () => fake.subscribers === 1);
  fake.publish("/content/create", "containerd.events.ContentCreate", Buffer.from([0xff, 0xff, 0xff]));
  fake.publish("/content/create", "containerd.events.ContentCreate", { digest: "sha384:ab", size: 1 });
  fake.publish("/images/create", "containerd.services.images.v1.ImageCreate", { name: "not there" });
  fake.publish("/tasks/start", "containerd.events.ContentCreate", {});
  const digest = fake.put(Buffer.from("new"));
  fake.publish("/content/create", "containerd.events.ContentCreate", { digest, size: 3 });
  await until("added", () => kinds(watched.events).includes("added"));
  fake.publish("/content/delete", "containerd.events.ContentDelete", { digest });
  await until("removed", () => kinds(watched.events).includes("removed"));
  t.same(watched.events, [
    { kind: "reset" },
    { kind: "added", blob: { digest, size: 3 } },
    { kind: "removed", digest },
  ]);
});

await t.test("closing ends everything at once, also in the middle of a retry", async (t) => {
  await using fake = await FakeContainerd.create();
  const away = await startStore({ socket: fake.socket, backoffMs: { first: 60_000, most: 60_000 } });
  const start = performance.now();
  await away.store.close();
  await fake.start();
  const there = await startStore({ socket: fake.socket });
  await there.store.close();
  t.ok(performance.now() - start < 1_000);
  await until("the subscription is gone", () => fake.subscribers === 0);
});

await t.test("origins are what the labels say, without what is no repository", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  const digest = fake.put(Buffer.from("x"), {
    labels: {
      "containerd.io/distribution.source.ghcr.io": "a/b,c/d",
      "containerd.io/distribution.source.host.example": "UPPER/case,,ok",
      "containerd.io/distribution.source.bad host": "x/y",
      "containerd.io/gc.ref.content.0": "sha256:00",
    },
  });
  await using watched = await startStore({ socket: fake.socket });
  t.strictSame(await watched.store.originsOf(digest), [
    { registry: "ghcr.io", repository: "a/b" },
    { registry: "ghcr.io", repository: "c/d" },
    { registry: "host.example", repository: "ok" },
  ]);
  t.equal((await readAll(watched.store, digest, { start: 0, end: 1 }))?.toString(), "x");
});
