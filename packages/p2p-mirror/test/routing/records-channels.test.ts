/** One stream for many questions between two real nodes, and what becomes of it. */
import type { Stream, StreamHandler } from "@libp2p/interface";
import { MemoryDatastore } from "datastore-core";
import t, { type Test } from "tap";
import { until } from "../../../../test/rig/until.ts";
import { keyHashOf } from "../../src/routing/key.ts";
import { createMeshNode, type MeshNode } from "../../src/routing/libp2p-node.ts";
import { RecordsChannels } from "../../src/routing/records-channels.ts";
import {
  createRecordsHandler,
  encodeMessage,
  RECORDS_PROTOCOL,
  receiveFrom,
  sendOver,
  type Message,
} from "../../src/routing/records-protocol.ts";
import { clusterSecrets } from "../../src/trust/cluster-secret.ts";
import { newIdentity } from "../../src/trust/identity.ts";
import { keyOf } from "../conformance/router.ts";

const find = (name: string): Message => ({ operation: "find", keys: [keyHashOf(keyOf(name))] });
const echo = async (message: Message): Promise<Uint8Array> => encodeMessage(message);
const patient = (): AbortSignal => AbortSignal.timeout(5_000);

async function startNode(t: Test): Promise<MeshNode> {
  const node = await createMeshNode(
    { listen: { host: "127.0.0.1", port: 0 }, advertiseHost: "127.0.0.1", peerPort: 1 },
    {
      identity: await newIdentity(),
      secrets: clusterSecrets([Buffer.alloc(32, "channels")]),
      providers: new MemoryDatastore(),
    },
  );
  await node.start();
  t.teardown(() => node.stop());
  return node;
}

interface Pair {
  readonly channels: RecordsChannels;
  readonly ask: (name: string, signal?: AbortSignal) => Promise<Uint8Array>;
  /** That the one who asks has opened. */
  readonly streams: Stream[];
}

/** One that asks, and one that answers with `handler`. */
async function pair(t: Test, handler: StreamHandler): Promise<Pair> {
  const [asker, answerer] = [await startNode(t), await startNode(t)];
  const streams: Stream[] = [];
  await answerer.handle(RECORDS_PROTOCOL, (stream, connection) => {
    streams.push(stream);
    return handler(stream, connection);
  });
  await asker.dial(answerer.getMultiaddrs());
  const channels = new RecordsChannels(asker);
  t.teardown(() => channels.close());
  const ask = (name: string, signal = patient()): Promise<Uint8Array> =>
    channels.ask(answerer.peerId, find(name), signal);
  return { channels, ask, streams };
}

const answering = (answer: (message: Message) => Promise<Uint8Array>): StreamHandler =>
  createRecordsHandler({ answer, onRefused: () => undefined, onUnanswered: () => undefined });

await t.test("questions go over one stream, each gets its own answer, whoever gives up", async (t) => {
  const { channels, ask, streams } = await pair(t, answering(echo));
  const names = Array.from({ length: 30 }, (_, nth) => `question ${nth}`);
  const impatient = new AbortController();
  const givenUp = ask("nobody waits for this one", impatient.signal);
  const answers = names.map((name) => ask(name));
  impatient.abort(new Error("given up"));
  await t.rejects(givenUp, { message: "given up" });
  for (const [nth, answer] of (await Promise.all(answers)).entries()) {
    t.ok(Buffer.from(answer).equals(encodeMessage(find(`question ${nth}`))), `question ${nth}`);
  }
  t.equal(streams.length, 1);
  channels.close();
  await until("the stream ends with those who ask", () => streams.every(({ status }) => status !== "open"));
  await t.rejects(ask("too late"), { message: "the router closes" });
});

await t.test("a peer that does not answer is asked over another stream", async (t) => {
  let silent = true;
  const { ask, streams } = await pair(
    t,
    answering(async (message) => (silent ? new Promise<never>(() => undefined) : echo(message))),
  );
  const first = ask("into the silence", AbortSignal.timeout(50));
  await t.rejects(first, { name: "TimeoutError" });
  silent = false;
  await until("it is given up", async () =>
    ask("again", AbortSignal.timeout(200)).then(
      () => true,
      () => false,
    ),
  );
  t.equal(streams.length, 2);
  t.not(streams[0]?.status, "open");
});

await t.test("one that closes a stream after each answer is asked over a new one each time", async (t) => {
  const { ask, streams } = await pair(t, async (stream) => {
    for await (const message of receiveFrom(stream, 100)) {
      await sendOver(stream, message, patient());
      break;
    }
    await stream.close();
  });
  for (const name of ["one", "two", "three"]) {
    t.ok(Buffer.from(await ask(name)).equals(encodeMessage(find(name))), name);
  }
  t.equal(streams.length, 3);
});

await t.test("what is no answer ends the stream, and fails who waits for it", async (t) => {
  const { ask, streams } = await pair(t, async (stream) => {
    for await (const _ of receiveFrom(stream, 100)) stream.send(Buffer.from([0xff, 0xff, 0xff, 0xff, 0]));
  });
  await t.rejects(ask("how long is that?"));
  await until("it is over", () => streams.every(({ status }) => status !== "open"));
});
