import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { findAll, keyOf } from "../conformance/router.ts";
import { until } from "../../../../test/rig/until.ts";
import { addressOf, allSeeEachOther, Mesh, metric } from "./mesh.ts";

await t.test("a node alone advertises, finds nothing, and closes, all at once", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const { router } = await mesh.start({ bootstrap: ["127.0.0.1:9", "no-such-host.invalid:24222"] });
  await router.advertise([keyOf("alone")]);
  t.strictSame(await findAll(router, keyOf("alone")), []);
  t.strictSame(await findAll(router, keyOf("not there")), []);
  t.strictSame(router.peers(), []);
});

await t.test("records said before anybody joined are found by those who join later", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const first = await mesh.start({ replication: 2 });
  const keys = Array.from({ length: 40 }, (_, nth) => keyOf(`early ${nth}`));
  await first.router.advertise(keys);
  const nodes = [first];
  for (let i = 0; i < 3; i += 1) nodes.push(await mesh.start({ replication: 2 }));
  await allSeeEachOther(nodes);
  await until(
    "records went out",
    async () => (await metric(first, "p2p_mirror_dht_records_sent_total")) >= 80,
  );
  for (const key of keys) {
    const peers = await findAll(nodes[3]?.router ?? first.router, key);
    t.strictSame(peers, [first.router.self]);
  }
});

await t.test(
  "a node that is killed is soon named by nobody, and the records it kept are kept elsewhere",
  async (t) => {
    const mesh = new Mesh();
    t.teardown(() => mesh.close());
    const nodes = await mesh.startMany(3, { replication: 1 });
    const [one, two] = nodes;
    if (one === undefined || two === undefined) throw new Error("three nodes");
    const dataDir = await mkdtemp(join(tmpdir(), "p2p-mirror-child-"));
    t.teardown(() => rm(dataDir, { recursive: true, force: true }));
    const child = spawn(
      process.execPath,
      [
        "--conditions=@p2p-mirror/source",
        fileURLToPath(new URL("./child-node.ts", import.meta.url)),
        addressOf(one),
        "of the killed",
        dataDir,
        "3",
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    t.teardown(() => child.kill("SIGKILL"));
    const [line] = await once(child.stdout, "data");
    const id = String(line).trim();
    await until("all see the child", () => nodes.every(({ router }) => router.peers().length === 3));
    t.match(await findAll(two.router, keyOf("of the killed")), [{ id, host: "127.0.0.1", port: 45_678 }]);

    // With one holder a key, about a quarter of these are kept by the child alone.
    const keys = Array.from({ length: 24 }, (_, nth) => keyOf(`kept ${nth}`));
    await one.router.advertise(keys);
    child.kill("SIGKILL");
    await once(child, "exit");
    await until(
      "nobody names the killed node",
      async () =>
        (await Promise.all(nodes.map(({ router }) => findAll(router, keyOf("of the killed"))))).flat()
          .length === 0,
    );
    await until("every record is found again", async () =>
      (await Promise.all(keys.map((key) => findAll(two.router, key)))).every((peers) => peers.length === 1),
    );
    t.ok(nodes.every(({ router }) => router.peers().length === 2));
  },
);

await t.test("a node that closes takes its records back before it is gone", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const [one, two] = await mesh.startMany(2);
  if (one === undefined || two === undefined) throw new Error("two nodes");
  await two.router.advertise([keyOf("a"), keyOf("b"), keyOf("c")]);
  t.equal(await metric(one, "p2p_mirror_dht_records_held"), 3);
  await two.close();
  t.equal(await metric(one, "p2p_mirror_dht_records_held"), 0);
  t.strictSame(await findAll(one.router, keyOf("a")), []);
});
