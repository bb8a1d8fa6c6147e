import { pino } from "pino";
import t from "tap";
import { silentLogger, systemClock, type Clock } from "@p2p-mirror/shared";
import { MemoryMesh } from "../../src/routing/memory-router.ts";
import type { Router, RoutingKey } from "../../src/routing/router.ts";
import { PublishedRecords } from "../../src/transfer/published-records.ts";
import { repositoryKey, tagKey, type Claim } from "../../src/transfer/records.ts";
import { republishRecords } from "../../src/transfer/republish.ts";
import { NodeContent } from "../../src/transfer/local-content.ts";
import { newIdentity } from "../../src/trust/identity.ts";
import { createRecordSigner } from "../../src/trust/record-signer.ts";
import { until } from "../../../../test/rig/until.ts";
import { MemoryContent } from "../peer/rig.ts";
import { APP, descriptorOf, manifestNaming, oneNode, OTHER } from "./one-node.ts";

const DAY_MS = 24 * 60 * 60_000;
const { signal } = new AbortController();
const { descriptor, bytes } = manifestNaming(descriptorOf(Buffer.from("layer")));
const asked = { ...APP, wants: { manifest: "v1" }, authorization: undefined };
const key = (nth: number): RoutingKey => tagKey(APP, `v${nth}`);

/** Records of a mesh of two: `known` are those that the other one finds. */
function published(max: number, clock: Clock = systemClock, wrap = (router: Router): Router => router) {
  const mesh = new MemoryMesh();
  const router = wrap(mesh.join({ id: "me", host: "127.0.0.1", port: 1 }));
  const other = mesh.join({ id: "other", host: "127.0.0.1", port: 2 });
  const finds = async (one: RoutingKey): Promise<boolean> => {
    for await (const { id } of other.find(one)) if (id === "me") return true;
    return false;
  };
  const records = new PublishedRecords({ router, clock, logger: silentLogger() }, max);
  return { records, finds };
}

await t.test("beyond the bound the record that was longest not said is withdrawn", async (t) => {
  const { records, finds } = published(3);
  for (const nth of [1, 2, 3]) t.ok(records.publish(key(nth)));
  await until("all are known", () => finds(key(3)));
  t.notOk(records.publish(key(1)), "said lately, and used");
  records.publish(key(4));
  await until(
    "the second made room for the fourth",
    async () => (await finds(key(4))) && !(await finds(key(2))),
  );
  for (const nth of [1, 3, 4]) t.ok(await finds(key(nth)));
});

await t.test("a record that comes back while it is being withdrawn is known in the end", async (t) => {
  const said: string[] = [];
  const { records, finds } = published(1, systemClock, (router) => ({
    ...router,
    withdraw: async (keys) => {
      await new Promise((resolve) => void setTimeout(resolve, 20));
      said.push("withdrawn");
      await router.withdraw(keys);
    },
    advertise: (keys) => {
      if (keys.includes(key(1))) said.push("advertised");
      return router.advertise(keys);
    },
  }));
  for (const nth of [1, 2, 1]) records.publish(key(nth));
  await until("all was said", () => said.length >= 3);
  t.same(said.slice(0, 3), ["advertised", "withdrawn", "advertised"]);
  t.ok(await finds(key(1)));
});

await t.test(
  "a record is said again when it changed, is due, failed, and after it was taken back",
  async (t) => {
    let now = 0;
    let fail = false;
    const { records, finds } = published(3, { ...systemClock, now: () => now }, (router) => ({
      ...router,
      advertise: (keys) => (fail ? Promise.reject(new Error("no network")) : router.advertise(keys)),
    }));
    t.ok(records.publish(key(1), "a"));
    t.notOk(records.publish(key(1), "a"));
    t.ok(records.publish(key(1), "b"));
    now += 10 * 60_000;
    t.ok(records.publish(key(1), "b"));
    records.takeBack(key(1));
    await until("it is withdrawn", async () => !(await finds(key(1))));
    fail = true;
    t.ok(records.publish(key(1), "b"));
    await until("it is due again after it failed", () => records.publish(key(1), "b"));
  },
);

await t.test("after a restart the newest records are said again, old verdicts are not", async (t) => {
  const node = await oneNode(t);
  await node.cache.store.put(descriptor, bytes, APP);
  for (const repository of [APP, OTHER]) {
    node.catalog.rememberTag({ ...repository, tag: "v1", descriptor, resolvedAt: 1 });
  }
  node.catalog.rememberPublic(APP, Date.now() - DAY_MS);
  node.catalog.rememberPublic(OTHER, Date.now() - 8 * DAY_MS);
  const { records, finds } = published(3);
  await republishRecords({ catalog: node.catalog, published: records, clock: systemClock }, signal);
  const all = [tagKey(APP, "v1"), repositoryKey(APP), tagKey(OTHER, "v1"), repositoryKey(OTHER)];
  t.same(await Promise.all(all.map(finds)), [true, true, true, false]);
});

/** A peer's record of it, signed by its clock at the time of the claim. */
async function recordOf(claim: Claim): Promise<MemoryContent> {
  const local = new MemoryContent();
  const of = claim.kind === "tag" ? tagKey(claim, claim.tag) : repositoryKey(claim);
  local.records.set(of, createRecordSigner(await newIdentity()).sign(claim));
  return local;
}

await t.test("while upstream is down, public is what it said in the last seven days", async (t) => {
  for (const [days, decision] of [
    [6.9, "allow"],
    [7.1, "decline"],
  ] as const) {
    const time = Math.round(Date.now() - days * DAY_MS);
    const own = await oneNode(t);
    own.catalog.rememberPublic(APP, time);
    await own.registry.kill();
    t.equal(await own.access.decide(asked, { signal }), decision, `it was told ${days} days ago`);

    const told = await oneNode(t);
    await told.registry.kill();
    await told.peer(await recordOf({ kind: "repository", ...APP, time }), [repositoryKey(APP)]);
    t.equal(await told.access.decide(asked, { signal }), decision, `another was told ${days} days ago`);
  }
});

await t.test(
  "what a node heard during an outage it can say when the one that was told is gone",
  async (t) => {
    const told = new MemoryContent();
    const time = Date.now() - DAY_MS;
    const keys = [tagKey(APP, "v1"), repositoryKey(APP)] as const;
    for (const claim of [
      { kind: "tag", ...APP, tag: "v1", descriptor, time },
      { kind: "repository", ...APP, time },
    ] as const) {
      for (const [of, record] of (await recordOf(claim)).records) told.records.set(of, record);
    }
    const heardOf = async (local: MemoryContent): Promise<MemoryContent> => {
      const node = await oneNode(t);
      await node.registry.kill();
      await node.peer(local, keys);
      t.equal(await node.access.decide(asked, { signal }), "allow");
      t.same(await node.tags.resolve(APP, "v1", { signal }), { descriptor, stale: true });
      const records = createRecordSigner(await newIdentity());
      const given = new NodeContent({ stores: [], catalog: node.catalog, records });
      const said = new MemoryContent();
      for (const of of keys) {
        t.equal(given.record(of), told.records.get(of), "word for word, signed by the one that was told");
        said.records.set(of, given.record(of) ?? "");
        t.notOk(
          node.published.publish(of, of === keys[0] ? descriptor.digest : "heard"),
          "the cluster was told",
        );
      }
      return said;
    };
    await heardOf(await heardOf(told));
  },
);

await t.test("what a node heard does not stand against what upstream tells it", async (t) => {
  const node = await oneNode(t);
  const heard = (await recordOf({ kind: "tag", ...APP, tag: "v1", descriptor, time: Date.now() })).records;
  const record = heard.get(tagKey(APP, "v1"));
  node.catalog.rememberTag({ ...APP, tag: "v1", descriptor, resolvedAt: Date.now(), heard: record });
  const newer = manifestNaming(descriptorOf(Buffer.from("newer")));
  node.registry.push({
    repository: APP.repository,
    blobs: [],
    manifests: [{ bytes: newer.bytes, mediaType: newer.descriptor.mediaType, tags: ["v1"] }],
  });
  t.match(await node.tags.resolve(APP, "v1", { signal }), { descriptor: newer.descriptor, stale: false });
  t.match(node.catalog.tag(APP, "v1"), { descriptor: newer.descriptor, heard: undefined });
});

await t.test("a repository that upstream does not give to anybody any more is withdrawn", async (t) => {
  const node = await oneNode(t);
  node.published.publish(repositoryKey(APP));
  node.catalog.rememberPublic(APP, Date.now());
  node.registry.faults.add({ status: 401 });
  t.equal(await node.access.decide(asked, { signal }), "decline");
  t.equal(node.catalog.publicSince(APP), undefined);
  t.ok(node.published.publish(repositoryKey(APP)), "it is not known as published");
});

await t.test("while upstream is down a tag of any age counts, and its age is in the log", async (t) => {
  const lines: string[] = [];
  const logger = pino({ level: "warn" }, { write: (line: string) => void lines.push(line) });
  const node = await oneNode(t, { logger });
  await node.registry.kill();
  const time = Date.now() - 400 * DAY_MS;
  await node.peer(await recordOf({ kind: "tag", ...APP, tag: "v1", descriptor, time }), [tagKey(APP, "v1")]);
  node.catalog.rememberTag({ ...APP, tag: "v1", descriptor: descriptorOf(Buffer.from("x")), resolvedAt: 0 });
  t.same(await node.tags.resolve(APP, "v1", { signal }), { descriptor, stale: true });
  t.match(JSON.parse(lines[0] ?? "{}"), { ageSeconds: Number, digest: descriptor.digest });
  t.match(lines[0], /"ageSeconds":345600\d\d,/);
});
