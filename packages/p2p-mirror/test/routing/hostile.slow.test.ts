import type { Stream } from "@libp2p/interface";
import { multiaddr } from "@multiformats/multiaddr";
import { BlackHoleDatastore } from "datastore-core/black-hole";
import t from "tap";
import { keyHashOf } from "../../src/routing/key.ts";
import { createMeshNode, type MeshNode } from "../../src/routing/libp2p-node.ts";
import {
  encodeMessage,
  receiveFrom,
  RECORDS_PROTOCOL,
  sendOver,
} from "../../src/routing/records-protocol.ts";
import { clusterSecrets, type ClusterSecrets } from "../../src/trust/cluster-secret.ts";
import { newIdentity } from "../../src/trust/identity.ts";
import { findAll, keyOf } from "../conformance/router.ts";
import { until } from "../../../../test/rig/until.ts";
import { addressOf, Mesh, metric } from "./mesh.ts";

const SECRETS = clusterSecrets([Buffer.alloc(32, "mesh")]);

/** A libp2p node of its own, with the cluster's ways and whatever secret, that says what it likes. */
async function stranger(secrets: ClusterSecrets): Promise<MeshNode> {
  const node = await createMeshNode(
    { listen: { host: "127.0.0.1", port: 0 }, advertiseHost: "127.0.0.1", peerPort: 1 },
    { identity: await newIdentity(), secrets, providers: new BlackHoleDatastore() },
  );
  await node.start();
  return node;
}

/** What a node answers to a message: how many records it was about. */
async function countAfter(stream: Stream, message: Uint8Array): Promise<number | undefined> {
  await sendOver(stream, message, new AbortController().signal);
  for await (const answer of receiveFrom(stream, 100)) return Buffer.from(answer).readUInt32BE(0);
  return undefined;
}

const target = (address: string) => multiaddr(`/ip4/127.0.0.1/tcp/${address.split(":")[1]}`);

await t.test(
  "who does not have the secret cannot connect, not even with the same peer ID settings",
  async (t) => {
    const mesh = new Mesh();
    t.teardown(() => mesh.close());
    const victim = await mesh.start();
    for (const [name, secrets] of [
      ["another secret", clusterSecrets([Buffer.alloc(32, "other")])],
      ["no secret", clusterSecrets([])],
    ] as const) {
      const node = await stranger(secrets);
      await t.rejects(node.dial(target(addressOf(victim))), name);
      await node.stop();
    }
    const member = await stranger(SECRETS);
    await t.resolves(member.dial(target(addressOf(victim))), "with the secret it works");
    await member.stop();
  },
);

await t.test("a forged secret id gets as far as the handshake, and fails there", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const victim = await mesh.start();
  const forged = { ...clusterSecrets([Buffer.alloc(32, "other")]).first, id: SECRETS.first.id };
  const node = await stranger({ first: forged, accepted: [forged], open: false });
  t.teardown(() => node.stop());
  await t.rejects(node.dial(target(addressOf(victim))));
  t.strictSame(victim.router.peers(), []);
});

await t.test("messages that are none end their stream, are counted, and hurt nobody", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const [victim, friend] = await mesh.startMany(2);
  if (victim === undefined || friend === undefined) throw new Error("two nodes");
  await friend.router.advertise([keyOf("good")]);
  const member = await stranger(SECRETS);
  t.teardown(() => member.stop());
  const connection = await member.dial(target(addressOf(victim)));
  const refused = (): Promise<number> => metric(victim, "p2p_mirror_dht_rejected_messages_total");
  const open = (): Promise<Stream> => connection.newStream(RECORDS_PROTOCOL);

  const tooLong = Buffer.concat([Buffer.from([0, 0, 0x80, 2]), Buffer.alloc(1_000)]);
  const endless = Buffer.alloc(64, 0xff);
  const nonsense = Buffer.from([0, 0, 0, 3, 9, 9, 9]);
  const cut = Buffer.from([0, 0, 0, 33, 1, 1, 1, 1]);
  let expected = 0;
  for (const [name, bytes] of Object.entries({ tooLong, endless, nonsense })) {
    const stream = await open();
    stream.send(bytes);
    expected += 1;
    await until(`${name} is refused`, async () => (await refused()) === expected);
    await until(`${name}: the stream is over`, () => stream.status !== "open");
  }
  const half = await open();
  half.send(cut);
  await half.close();
  await until("a message that ends early is refused", async () => (await refused()) === expected + 1);

  t.match(await findAll(victim.router, keyOf("good")), [{ id: friend.identity.id }]);
  t.equal(connection.status, "open");
  const stream = await open();
  const announce = encodeMessage({ operation: "announce", keys: [keyHashOf(keyOf("fine"))] });
  t.equal(await countAfter(stream, announce), 1, "a good message still works");
});

await t.test("a peer that opens streams and says nothing is bounded, and cut off in time", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const victim = await mesh.start();
  const member = await stranger(SECRETS);
  t.teardown(() => member.stop());
  const connection = await member.dial(target(addressOf(victim)));
  const silent: Stream[] = [];
  let denied = 0;
  for (let i = 0; i < 64; i += 1) {
    try {
      silent.push(await connection.newStream(RECORDS_PROTOCOL, { maxOutboundStreams: 1_000 }));
    } catch {
      denied += 1;
    }
  }
  await until(
    "not all of them stay open",
    async () => denied > 0 || silent.some((stream) => stream.status !== "open"),
  );
  await until("all are cut off", () => silent.every((stream) => stream.status !== "open"), {
    timeoutMs: 15_000,
  });
  t.equal(silent.length + denied, 64);
  t.equal(connection.status, "open", "the connection is not");
  t.ok((await metric(victim, "p2p_mirror_dht_rejected_messages_total")) > 0);
});

await t.test("a peer speaks for itself only, and takes back its own records only", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const [victim, friend] = await mesh.startMany(2);
  if (victim === undefined || friend === undefined) throw new Error("two nodes");
  await friend.router.advertise([keyOf("the friend's")]);
  const member = await stranger(SECRETS);
  t.teardown(() => member.stop());
  const connection = await member.dial(target(addressOf(victim)));
  for (const operation of ["withdraw", "leave"] as const) {
    const stream = await connection.newStream(RECORDS_PROTOCOL);
    const keys = operation === "withdraw" ? [keyHashOf(keyOf("the friend's"))] : [];
    t.equal(await countAfter(stream, encodeMessage({ operation, keys })), 0, `${operation} did nothing`);
  }
  t.equal(await metric(victim, "p2p_mirror_dht_records_held"), 1);
});
