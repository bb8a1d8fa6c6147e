import type { Test } from "tap";
import { digestOf } from "@p2p-mirror/shared";
import type { Peer, Router, RoutingKey } from "../../src/routing/router.ts";
import { until } from "../../../../test/rig/until.ts";

/** Nodes that know each other, at least four. */
export interface RouterFixture {
  readonly routers: readonly Router[];
  close(): Promise<void>;
}

export const keyOf = (text: string): RoutingKey => digestOf(Buffer.from(text));

export async function findAll(router: Router, key: RoutingKey): Promise<Peer[]> {
  const peers: Peer[] = [];
  for await (const peer of router.find(key)) peers.push(peer);
  return peers;
}

const ids = (peers: readonly Peer[]): string[] => peers.map((peer) => peer.id).toSorted();

/** What every router does, whatever it is made of. */
export async function routerConformance(t: Test, create: () => Promise<RouterFixture>): Promise<void> {
  const fixture = await create();
  t.teardown(() => fixture.close());
  const [one, two, three, four] = fixture.routers;
  if (one === undefined || two === undefined || three === undefined || four === undefined) {
    throw new Error("the fixture has fewer than four routers");
  }

  await t.test("every node sees all others, and knows itself", (t) => {
    for (const router of fixture.routers) {
      const others = fixture.routers.filter((other) => other !== router).map((other) => other.self);
      t.strictSame(ids(router.peers()), ids(others));
    }
    t.end();
  });

  await t.test("all nodes agree who is closest to a key, themselves among them", (t) => {
    const firsts = new Set<string>();
    for (let nth = 0; nth < 50; nth += 1) {
      const key = keyOf(`somewhere ${nth}`);
      const [order, ...others] = fixture.routers.map((router) =>
        router.closest(key, 100).map(({ id }) => id),
      );
      for (const other of others) t.strictSame(other, order);
      t.strictSame(order?.toSorted(), ids(fixture.routers.map((router) => router.self)));
      t.strictSame(
        one.closest(key, 2).map(({ id }) => id),
        order?.slice(0, 2),
      );
      firsts.add(order?.[0] ?? "");
    }
    t.ok(firsts.size > 1, "not always the same");
    t.end();
  });

  await t.test("what one node advertises, all others find, with the address of its data plane", async (t) => {
    const key = keyOf("advertised by one");
    await one.advertise([key]);
    for (const router of [two, three, four]) t.strictSame(await findAll(router, key), [one.self]);
  });

  await t.test("a node is not found by itself", async (t) => {
    const key = keyOf("advertised by itself");
    await one.advertise([key]);
    t.strictSame(await findAll(one, key), []);
  });

  await t.test("what nobody has is found nowhere, without an error", async (t) => {
    t.strictSame(await findAll(two, keyOf("nobody has this")), []);
  });

  await t.test("several nodes that have it are all found, each once", async (t) => {
    const key = keyOf("advertised by three");
    await Promise.all([one, two, three].map((router) => router.advertise([key, key])));
    await one.advertise([key]);
    t.strictSame(ids(await findAll(four, key)), ids([one.self, two.self, three.self]));
    t.strictSame(ids(await findAll(one, key)), ids([two.self, three.self]));
  });

  await t.test("tags and repositories are keys like digests", async (t) => {
    const keys: RoutingKey[] = ["tag:registry.test/a/b:v1", "repository:registry.test/a/b"];
    await two.advertise(keys);
    for (const key of keys) t.strictSame(await findAll(three, key), [two.self]);
    t.strictSame(await findAll(three, "tag:registry.test/a/b:v2"), []);
  });

  await t.test("many keys in one call are all found", async (t) => {
    const keys = Array.from({ length: 300 }, (_, nth) => keyOf(`one of many ${nth}`));
    await three.advertise(keys);
    for (const key of keys.filter((_, nth) => nth % 30 === 0)) {
      t.strictSame(await findAll(one, key), [three.self]);
    }
  });

  await t.test("what was withdrawn is not found any more; what others have still is", async (t) => {
    const [gone, kept] = [keyOf("withdrawn"), keyOf("still there")];
    await Promise.all([one.advertise([gone, kept]), two.advertise([gone])]);
    t.strictSame(ids(await findAll(four, gone)), ids([one.self, two.self]));
    await one.withdraw([gone]);
    await until(
      "only the other node is left",
      async () => ids(await findAll(four, gone)).join() === two.self.id,
    );
    t.strictSame(await findAll(four, kept), [one.self]);
  });

  await t.test("advertised again after a withdrawal, it is found again", async (t) => {
    const key = keyOf("withdrawn and back");
    await one.advertise([key]);
    await one.withdraw([key]);
    await one.advertise([key]);
    t.strictSame(await findAll(two, key), [one.self]);
  });

  await t.test("withdrawing what was never advertised does nothing", async (t) => {
    await t.resolves(one.withdraw([keyOf("never advertised")]));
  });

  await t.test(
    "a peer that turned out not to have it is not named again at once, for this key only",
    async (t) => {
      const [wrong, right] = [keyOf("a wrong record"), keyOf("a right record")];
      await one.advertise([wrong, right]);
      t.strictSame(await findAll(two, wrong), [one.self]);
      two.forget(wrong, one.self);
      t.strictSame(await findAll(two, wrong), []);
      t.strictSame(await findAll(two, right), [one.self]);
    },
  );

  await t.test("a caller may stop after the first peer, or abort", async (t) => {
    const key = keyOf("more than one needs");
    await Promise.all([one, two, three].map((router) => router.advertise([key])));
    let first: Peer | undefined;
    for await (const peer of four.find(key)) {
      first = peer;
      break;
    }
    t.ok(first);
    const aborted: Peer[] = [];
    for await (const peer of four.find(key, { signal: AbortSignal.abort() })) aborted.push(peer);
    t.ok(aborted.length <= 3, "ends, whatever it yielded");
  });
}
