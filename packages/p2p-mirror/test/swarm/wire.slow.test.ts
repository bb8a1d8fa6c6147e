import { peerIdFromString } from "@libp2p/peer-id";
import type { Stream } from "@libp2p/interface";
import { silentLogger, systemClock, VirtualClock } from "@p2p-mirror/shared";
import t from "tap";
import { createSwarmCodec } from "../../src/swarm/codec.ts";
import { createLibp2pWire } from "../../src/swarm/libp2p-wire.ts";
import { MemoryNetwork } from "../../src/swarm/memory-wire.ts";
import type { Channel } from "../../src/swarm/wire.ts";
import { SWARM_PROTOCOL } from "../../src/swarm/wire.ts";
import { until } from "../../../../test/rig/until.ts";
import { wireConformance, type WireNode } from "../conformance/wire.ts";
import { Mesh, type Node } from "../routing/mesh.ts";

await t.test("the memory double, on a virtual clock", async (t) => {
  const clock = new VirtualClock();
  await wireConformance(t, {
    create: () => {
      const network = new MemoryNetwork({ clock, latency: () => 3, codec: createSwarmCodec() });
      const node = (id: string): WireNode => ({
        wire: network.node(id),
        contact: { id, host: "10.0.0.1", port: 24222 },
        kill: () => Promise.resolve(network.kill(id)),
      });
      return Promise.resolve([node("one"), node("two")]);
    },
    settle: async (promise) => {
      let done = false;
      const over = (): void => {
        done = true;
      };
      promise.then(over, over);
      await clock.run(10_000, () => done);
      return promise;
    },
  });
});

const contactOf = ({ identity, router }: Node): WireNode["contact"] => ({
  id: identity.id,
  ...router.libp2pAddress,
});

const wireNode = (node: Node): WireNode => ({
  wire: createLibp2pWire({
    streams: node.router.streams,
    codec: createSwarmCodec(),
    clock: systemClock,
    logger: silentLogger(),
  }),
  contact: contactOf(node),
  kill: () => node.close(),
});

await t.test("libp2p, over TCP", async (t) => {
  const meshes: Mesh[] = [];
  t.teardown(() => Promise.all(meshes.map((mesh) => mesh.close())));
  await wireConformance(t, {
    create: async () => {
      const mesh = new Mesh();
      meshes.push(mesh);
      const [one, two] = await mesh.startMany(2);
      if (one === undefined || two === undefined) throw new Error("two nodes");
      return [wireNode(one), wireNode(two)];
    },
    settle: (promise) => promise,
  });
});

await t.test("what a hostile peer sends ends its channel and nothing else", async (t) => {
  const mesh = new Mesh();
  t.teardown(() => mesh.close());
  const [good, bad] = await mesh.startMany(2);
  if (good === undefined || bad === undefined) throw new Error("two nodes");
  const wire = createLibp2pWire({
    streams: good.router.streams,
    codec: createSwarmCodec(),
    clock: systemClock,
    logger: silentLogger(),
  });
  const channels: Channel[] = [];
  await wire.handle(SWARM_PROTOCOL, (channel) => channels.push(channel));
  const raw = async (): Promise<Stream> =>
    bad.router.streams.openStream(contactOf(good), SWARM_PROTOCOL, AbortSignal.timeout(5_000));
  const faults: Record<string, Uint8Array> = {
    "a length that never ends": Buffer.alloc(64, 0xff),
    "a length of 64 KiB and one": Buffer.from([0x81, 0x80, 0x04, 1, 2, 3]),
    "bytes that are no protobuf": Buffer.from([3, 0xff, 0xff, 0xff]),
    "an empty message": Buffer.from([0]),
  };
  for (const [name, bytes] of Object.entries(faults)) {
    const before = channels.length;
    const stream = await raw();
    stream.send(bytes);
    await until("the channel is there", () => channels.length > before);
    const channel = channels[before];
    const messages: unknown[] = [];
    for await (const message of channel?.messages ?? []) messages.push(message);
    t.same(messages, [], name);
    await until(`${name}: the stream is over`, () => stream.status !== "open");
  }
  const connections = good.router.peers().map(({ id }) => peerIdFromString(id).toString());
  t.same(connections, [bad.identity.id], "the connection is still there");

  await t.test("a peer that floods is cut off", async (t) => {
    const before = channels.length;
    const stream = await raw();
    const leave = createSwarmCodec().encode({ kind: "leave", complete: true });
    const one = Buffer.concat([Buffer.from([leave.byteLength]), leave]);
    stream.send(one);
    await until("the channel is there", () => channels.length > before);
    for (let nth = 0; nth < 5_000; nth += 1) {
      if (stream.status !== "open") break;
      stream.send(one);
    }
    let count = 0;
    for await (const message of channels[before]?.messages ?? []) count += message.kind === "leave" ? 1 : 0;
    t.ok(count >= 1_999 && count < 4_000, `after ${count} messages`);
  });

  await t.test("a peer that takes nothing is cut off", async (t) => {
    const before = channels.length;
    const stream = await raw();
    stream.pause();
    stream.send(Buffer.from([]));
    await until("the channel is there", () => channels.length > before);
    const channel = channels[before];
    if (channel === undefined) throw new Error("no channel");
    const over = (async () => {
      for await (const message of channel.messages) t.fail(`a message of kind ${message.kind}`);
      return true;
    })();
    let sent = 0;
    await until("its channel has ended", async () => {
      for (let nth = 0; nth < 50; nth += 1) {
        channel.send({
          kind: "have",
          pieces: Array.from({ length: 4_000 }, (_, piece) => piece),
          hashes: [],
          load: 0,
        });
      }
      sent += 50;
      return Promise.race([over, new Promise<boolean>((resolve) => setImmediate(resolve, false))]);
    });
    t.ok(sent * 8_000 < 64 * 1024 * 1024, `after ${sent} messages`);
  });
});
