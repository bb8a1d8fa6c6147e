import type { Test } from "tap";
import { digestOf } from "@p2p-mirror/shared";
import type { SwarmMessage } from "../../src/swarm/messages.ts";
import {
  PIECES_PROTOCOL,
  SWARM_PROTOCOL,
  type Channel,
  type Contact,
  type Wire,
} from "../../src/swarm/wire.ts";

export interface WireNode {
  readonly wire: Wire;
  readonly contact: Contact;
  /** As kill -9. */
  kill(): Promise<void>;
}

/** Two nodes that can reach each other. */
export interface WireFixture {
  create(): Promise<readonly [WireNode, WireNode]>;
  /** Runs what is under way, on whatever clock: resolves like `promise`. */
  settle<T>(promise: Promise<T>): Promise<T>;
}

const message = (piece: number): SwarmMessage => ({ kind: "have", pieces: [piece], hashes: [], load: 0.5 });

const take = async (channel: Channel, count: number): Promise<SwarmMessage[]> => {
  const messages: SwarmMessage[] = [];
  for await (const one of channel.messages) if (messages.push(one) === count) break;
  return messages;
};
const all = async (channel: Channel): Promise<SwarmMessage[]> => take(channel, Infinity);

/** What every wire does, whatever it is made of. */
export async function wireConformance(t: Test, fixture: WireFixture): Promise<void> {
  const signal = new AbortController().signal;

  /** A channel from the first to the second node, both ends. */
  async function connected(
    protocol: typeof SWARM_PROTOCOL | typeof PIECES_PROTOCOL = SWARM_PROTOCOL,
  ): Promise<{ nodes: readonly [WireNode, WireNode]; near: Channel; far: Channel }> {
    const nodes = await fixture.create();
    const arrived = Promise.withResolvers<Channel>();
    await nodes[1].wire.handle(protocol, (channel) => arrived.resolve(channel));
    const near = await fixture.settle(nodes[0].wire.open(nodes[1].contact, protocol, signal));
    // A protocol may be agreed on with the first message only.
    near.send(message(0));
    const far = await fixture.settle(arrived.promise);
    return { nodes, near, far };
  }

  await t.test(
    "messages arrive whole and in order, in both directions, and both know who the other is",
    async (t) => {
      const { nodes, near, far } = await connected();
      t.equal(near.peer, nodes[1].contact.id);
      t.equal(far.peer, nodes[0].contact.id);
      for (let nth = 1; nth < 300; nth += 1) near.send(message(nth));
      for (let nth = 0; nth < 300; nth += 1) far.send(message(1_000 + nth));
      const [there, back] = await fixture.settle(Promise.all([take(far, 300), take(near, 300)]));
      t.strictSame(
        there,
        Array.from({ length: 300 }, (_, nth) => message(nth)),
      );
      t.strictSame(
        back,
        Array.from({ length: 300 }, (_, nth) => message(1_000 + nth)),
      );
    },
  );

  await t.test("a message of every kind arrives as it was", async (t) => {
    const { near, far } = await connected();
    const digest = digestOf(Buffer.from("a blob"));
    const contact = { id: "node1", host: "10.0.0.1", port: 24222 };
    const place = { digest, size: 2 ** 40, host: "10.0.0.1", port: 24221, zone: "a", load: 0.25 };
    const have = Buffer.from([1, 2, 255]);
    const leases = [{ id: 2 ** 47 + 1, first: 3, end: 8_192 }];
    const sent: SwarmMessage[] = [
      {
        kind: "join",
        ...place,
        contactPort: 1,
        have,
        leases,
        again: true,
        unauthorized: true,
        hops: 2,
        avoid: ["x"],
      },
      {
        kind: "told",
        leases,
        neighbours: [{ peer: contact, contact, zone: "", load: 1, left: true, have }],
        gone: ["node2"],
        fetchers: 3,
        pausedMs: 500,
        brought: 2 ** 33,
        zoneRank: 1,
        zoneSize: 2,
      },
      {
        kind: "progress",
        pieces: [0, 8_191],
        leases: [{ id: 7, bytes: 2 ** 40 }],
        load: 0,
        unreachable: ["node3"],
        lost: ["node4"],
        holders: [contact],
      },
      { kind: "hand-back", lease: 7, why: { kind: "rate-limited", retryAfterMs: 100 } },
      { kind: "hand-back", lease: 7, why: { kind: "unauthorized" } },
      { kind: "redirect", to: contact },
      { kind: "merge", digest, size: 1 },
      { kind: "hello", ...place, have },
      {
        kind: "have",
        pieces: [1],
        hashes: [{ piece: 1, sha256: Buffer.alloc(32, 1), signer: "node4", signature: Buffer.alloc(64, 2) }],
        load: 0.5,
      },
      { kind: "leave", complete: true },
    ];
    for (const one of sent) near.send(one);
    const [, ...received] = await fixture.settle(take(far, sent.length + 1));
    t.same(received, sent);
  });

  await t.test(
    "closing ends the other side after what was sent before, and the own side at once",
    async (t) => {
      const { near, far } = await connected();
      for (let nth = 1; nth < 50; nth += 1) near.send(message(nth));
      near.close();
      near.send(message(99));
      near.close();
      const [own, there] = await fixture.settle(Promise.all([all(near), all(far)]));
      t.same(own, []);
      t.equal(there.length, 50);
    },
  );

  await t.test("the side that was called can close, too", async (t) => {
    const { near, far } = await connected();
    far.send(message(7));
    far.close();
    t.same(await fixture.settle(all(near)), [message(7)]);
  });

  await t.test("channels of different protocols and several of one are separate", async (t) => {
    const nodes = await fixture.create();
    const swarm: Channel[] = [];
    const pieces: Channel[] = [];
    const arrived = Promise.withResolvers<void>();
    const arrive = (list: Channel[], channel: Channel): void => {
      list.push(channel);
      if (swarm.length + pieces.length === 3) arrived.resolve();
    };
    await nodes[1].wire.handle(SWARM_PROTOCOL, (channel) => arrive(swarm, channel));
    await nodes[1].wire.handle(PIECES_PROTOCOL, (channel) => arrive(pieces, channel));
    const opened: Channel[] = [];
    for (const [nth, protocol] of ([SWARM_PROTOCOL, PIECES_PROTOCOL, SWARM_PROTOCOL] as const).entries()) {
      const channel = await fixture.settle(nodes[0].wire.open(nodes[1].contact, protocol, signal));
      opened.push(channel);
      channel.send(message(nth));
    }
    await fixture.settle(arrived.promise);
    t.equal(swarm.length, 2);
    opened[0]?.close();
    const ends = await fixture.settle(Promise.all(swarm.map((channel) => take(channel, 1))));
    t.strictSame(new Set(ends.flat().map((one) => one.kind === "have" && one.pieces[0])), new Set([0, 2]));
    const [one] = pieces;
    if (one === undefined) throw new Error("no channel");
    t.strictSame(await fixture.settle(take(one, 1)), [message(1)]);
  });

  await t.test(
    "a node that does not speak the protocol cannot be reached by it, and can afterwards",
    async (t) => {
      const nodes = await fixture.create();
      await t.rejects(fixture.settle(nodes[0].wire.open(nodes[1].contact, SWARM_PROTOCOL, signal)));
      const takeBack = await nodes[1].wire.handle(SWARM_PROTOCOL, () => undefined);
      await t.resolves(fixture.settle(nodes[0].wire.open(nodes[1].contact, SWARM_PROTOCOL, signal)));
      await takeBack();
      await t.rejects(fixture.settle(nodes[0].wire.open(nodes[1].contact, SWARM_PROTOCOL, signal)));
    },
  );

  await t.test("opening ends when it is aborted", async (t) => {
    const nodes = await fixture.create();
    await nodes[1].wire.handle(SWARM_PROTOCOL, () => undefined);
    await t.rejects(
      fixture.settle(nodes[0].wire.open(nodes[1].contact, SWARM_PROTOCOL, AbortSignal.abort())),
    );
  });

  await t.test(
    "when a node is killed, the channels at the other end end, and it cannot be reached",
    async (t) => {
      const { nodes, near } = await connected();
      await nodes[1].kill();
      t.same(await fixture.settle(all(near)), []);
      near.send(message(1));
      await t.rejects(fixture.settle(nodes[0].wire.open(nodes[1].contact, SWARM_PROTOCOL, signal)));
    },
  );
}
