/** A node of a version that does not exist yet, which speaks this one's protocols as well, in a mesh with one of today. */
import type { Stream } from "@libp2p/interface";
import { digestOf, silentLogger, systemClock } from "@p2p-mirror/shared";
import { multiaddr } from "@multiformats/multiaddr";
import { MemoryDatastore } from "datastore-core";
import t, { type Test } from "tap";
import { until } from "../../../../test/rig/until.ts";
import { createMeshNode, type MeshNode } from "../../src/routing/libp2p-node.ts";
import { decodePeers } from "../../src/routing/peer-list.ts";
import {
  createRecordsHandler,
  encodeMessage,
  receiveFrom,
  RECORDS_PROTOCOL,
  sendOver,
} from "../../src/routing/records-protocol.ts";
import { createSwarmCodec } from "../../src/swarm/codec.ts";
import { createLibp2pWire } from "../../src/swarm/libp2p-wire.ts";
import { SWARM_PROTOCOL, type Channel } from "../../src/swarm/wire.ts";
import { clusterSecrets } from "../../src/trust/cluster-secret.ts";
import { newIdentity } from "../../src/trust/identity.ts";
import { addressOf, Mesh } from "./mesh.ts";

/** The newest first, as whoever has two of them offers them. */
const SWARMS = ["/p2p-mirror/swarm/2.0.0", SWARM_PROTOCOL];
const RECORDS = ["/p2p-mirror/records/2.0.0", RECORDS_PROTOCOL];
const VERSION = "99.0.0";

const secrets = clusterSecrets([Buffer.alloc(32, "of all versions")]);

interface NextNode {
  readonly node: MeshNode;
  /** Protocols of the swarm's streams that others opened. */
  readonly opened: string[];
}

async function startNext(t: Test, peerPort: number): Promise<NextNode> {
  const node = await createMeshNode(
    {
      listen: { host: "127.0.0.1", port: 0 },
      advertiseHost: "127.0.0.1",
      peerPort,
      agent: `p2p-mirror/${VERSION}`,
    },
    { identity: await newIdentity(), secrets, providers: new MemoryDatastore() },
  );
  const opened: string[] = [];
  await node.handle(SWARMS, (stream: Stream) => void opened.push(stream.protocol));
  const nobody = {
    answer: async () => new Uint8Array(0),
    onRefused: () => undefined,
    onUnanswered: () => undefined,
  };
  await node.handle(RECORDS, createRecordsHandler(nobody));
  await node.start();
  t.teardown(() => node.stop());
  return { node, opened };
}

const idOf = ({ node }: NextNode): string => node.peerId.toString();

await t.test("it and a node of today agree on what both speak; two of it on what is newer", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const today = await mesh.start({ secrets });
  const wire = createLibp2pWire({
    streams: today.router.streams,
    codec: createSwarmCodec(),
    clock: systemClock,
    logger: silentLogger(),
  });
  const channels: Channel[] = [];
  await wire.handle(SWARM_PROTOCOL, (channel) => void channels.push(channel));
  const [next, another] = [await startNext(t, 41_000), await startNext(t, 41_001)];
  await next.node.dial(multiaddr(`/ip4/127.0.0.1/tcp/${addressOf(today).split(":")[1]}`));

  const known = await until("today's node knows it", () =>
    today.router.peers().find(({ id }) => id === idOf(next)),
  );
  t.equal(known.port, 41_000, "where its data plane is, too");
  await until("and that it is newer", () => today.router.about(known).version === VERSION);

  const { signal } = new AbortController();
  const toToday = await next.node.dialProtocol(today.identity.peerId, SWARMS, { signal });
  const merge = { kind: "merge", digest: digestOf(Buffer.from("a blob")), size: 6 } as const;
  const bytes = createSwarmCodec().encode(merge);
  toToday.send(Buffer.from([bytes.byteLength, ...bytes]));
  await until("its stream is there", () => channels.length === 1);
  for await (const message of channels[0]?.messages ?? []) {
    t.same(message, merge);
    break;
  }
  t.equal(toToday.protocol, SWARM_PROTOCOL, "what it opens to today's node is of today");

  const asked = await next.node.dialProtocol(today.identity.peerId, RECORDS, { signal });
  await sendOver(asked, encodeMessage({ operation: "meet", keys: [] }), signal);
  const answer = await receiveFrom(asked, 32 * 1024).next();
  const met = decodePeers(answer.value ?? new Uint8Array(), 10);
  t.equal(asked.protocol, RECORDS_PROTOCOL);
  t.same(
    met.map(({ peerId }) => peerId.toString()),
    [idOf(next)],
    "an answer that it understands",
  );

  const address = next.node.getMultiaddrs().find((one) => !one.toString().includes("/tls/"));
  const port = Number(address?.getComponents().find(({ name }) => name === "tcp")?.value);
  const channel = await wire.open({ id: idOf(next), host: "127.0.0.1", port }, SWARM_PROTOCOL, signal);
  channel.send(merge);
  await until("today's stream has come to it", () => next.opened.length === 1);
  t.same(next.opened, [SWARM_PROTOCOL]);
  channel.close();

  await another.node.dial(next.node.getMultiaddrs());
  const newer = await another.node.dialProtocol(next.node.peerId, SWARMS, { signal });
  t.equal(newer.protocol, SWARMS[0]);
});
