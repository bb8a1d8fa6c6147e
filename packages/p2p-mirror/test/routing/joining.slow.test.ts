import { readFile } from "node:fs/promises";
import { join } from "node:path";
import t from "tap";
import type { HostPort } from "../../src/routing/addresses.ts";
import type { Directory } from "../../src/routing/bootstrapper.ts";
import { clusterSecrets } from "../../src/trust/cluster-secret.ts";
import { findAll, keyOf } from "../conformance/router.ts";
import { until } from "../../../../test/rig/until.ts";
import { addressOf, allSeeEachOther, Mesh, metric } from "./mesh.ts";

const [OLD, NEW] = [Buffer.alloc(32, "old"), Buffer.alloc(32, "new")];

await t.test("names in the bootstrap are resolved, all their addresses tried", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const one = await mesh.start();
  const two = await mesh.start({ bootstrap: [`localhost:${one.router.libp2pAddress.port}`] });
  await allSeeEachOther([one, two]);
  t.match(two.router.peers(), [{ id: one.identity.id }]);
});

await t.test("nodes that start in the wrong order, or at once, find each other", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const first = await mesh.start();
  const { port } = first.router.libp2pAddress;
  await first.close();
  // Its address answers nobody now; two ask it again and again until it is back.
  const waiting = await mesh.start({ bootstrap: [`127.0.0.1:${port}`] });
  const back = await mesh.start({ bootstrap: [], listen: { host: "127.0.0.1", port } });
  await allSeeEachOther([waiting, back]);
  t.match(waiting.router.peers(), [{ id: back.identity.id }]);
});

await t.test("a directory of nodes is asked for the cluster, and seldom again", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const one = await mesh.start();
  let asked = 0;
  let known: HostPort[] | undefined;
  const directory: Directory = {
    name: "Service a/b",
    find: async () => {
      asked += 1;
      if (known === undefined) throw new Error("away");
      return known;
    },
  };
  const two = await mesh.start({ bootstrap: [], directory });
  await until("it was asked", () => asked > 0);
  await until("and did not know", () => two.router.bootstrapFailures.length > 0);
  t.same(two.router.bootstrapFailures, [{ address: "Service a/b", reason: "no-list" }]);
  known = [two.router.libp2pAddress, one.router.libp2pAddress];
  await allSeeEachOther([one, two]);
  const before = asked;
  await until("a round ended well", () => two.router.bootstrapFailures.length === 0);
  t.ok(before < 20, `asked ${before} times`);
  t.equal(asked, before, "a node that is connected does not ask again for minutes");
});

await t.test("peers are remembered over a restart, without any bootstrap", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const [one, two] = await mesh.startMany(2);
  if (one === undefined || two === undefined) throw new Error("two nodes");
  await two.close();
  const again = await mesh.start({ bootstrap: [], dataDir: two.dataDir, identity: two.identity });
  await until(
    "they see each other",
    () => again.router.peers().length === 1 && one.router.peers().length === 1,
  );
  t.equal(again.router.self.id, two.identity.id);
  await again.router.advertise([keyOf("after the restart")]);
  t.match(await findAll(one.router, keyOf("after the restart")), [{ id: two.identity.id }]);
});

await t.test(
  "who is known is written down within seconds: a node that is killed finds its cluster again",
  async (t) => {
    const mesh = new Mesh();
    t.teardown(() => mesh.close());
    const [one, two] = await mesh.startMany(2);
    if (one === undefined || two === undefined) throw new Error("two nodes");
    const written = async (): Promise<string> =>
      readFile(join(two.dataDir, "peers.json"), "utf8").catch(() => "");
    await until("the other node is in the file", async () => (await written()).includes(one.identity.id), {
      timeoutMs: 30_000,
    });
    await one.close();
    await until("it is alone", () => two.router.peers().length === 0);
    t.match(await written(), one.identity.id, "those who went stay there");
  },
);

await t.test("libp2p listens at the address of a name", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const { router } = await mesh.start({ listen: { host: "localhost", port: 0 } });
  t.match(router.libp2pAddress.host, /^(?:127\.0\.0\.1|::1)$/);
  t.equal(router.self.host, router.libp2pAddress.host);
});

await t.test("a secret is changed node by node, and the mesh stays one", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const one = await mesh.start({ secrets: clusterSecrets([OLD]) });
  const both = await mesh.start({ secrets: clusterSecrets([OLD, NEW]) });
  const turned = await mesh.start({ secrets: clusterSecrets([NEW, OLD]) });
  await allSeeEachOther([one, both, turned]);
  const last = await mesh.start({ secrets: clusterSecrets([NEW]), bootstrap: [addressOf(both)] });
  await until(
    "the node with the new secret alone sees those that accept it",
    () => last.router.peers().length === 2,
  );
  t.strictSame(
    last.router
      .peers()
      .map(({ id }) => id)
      .toSorted(),
    [both.identity.id, turned.identity.id].toSorted(),
  );
  await last.router.advertise([keyOf("by the new secret")]);
  t.match(await findAll(both.router, keyOf("by the new secret")), [{ id: last.identity.id }]);
});

await t.test(
  "records that are not said again expire; those of a running node are said again in time",
  async (t) => {
    const mesh = new Mesh();
    t.teardown(() => mesh.close());
    const clock = { skip: 0 };
    const now = (): number => performance.now() + clock.skip;
    const one = await mesh.start({ now });
    const two = await mesh.start({ recordValidityMs: 2_000 });
    await allSeeEachOther([one, two]);
    await two.router.advertise([keyOf("kept alive")]);
    t.match(await findAll(one.router, keyOf("kept alive")), [{ id: two.identity.id }]);
    const sent = await metric(two, "p2p_mirror_dht_records_sent_total");
    await until(
      "said again twice",
      async () => (await metric(two, "p2p_mirror_dht_records_sent_total")) >= sent + 2,
    );

    // Past the validity by this node's clock: the record is out until it is said again (within 0.8 s here).
    clock.skip += 21 * 60_000;
    await until(
      "said again after the clock jumped",
      async () => (await metric(two, "p2p_mirror_dht_records_sent_total")) > sent + 3,
    );
    t.match(await findAll(one.router, keyOf("kept alive")), [{ id: two.identity.id }]);
  },
);

await t.test(
  "an address that cannot be listened on is a mistake in the configuration, and leaves nothing open",
  async (t) => {
    const mesh = new Mesh();
    t.teardown(() => mesh.close());
    const { router } = await mesh.start();
    for (const listen of [router.libp2pAddress, { host: "192.0.2.77", port: 0 }]) {
      await t.rejects(mesh.start({ listen }), {
        name: "ConfigError",
        field: "p2p-listen",
        value: `${listen.host}:${listen.port}`,
      });
    }
  },
);
