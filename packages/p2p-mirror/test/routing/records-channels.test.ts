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

/** A question that waits for so long is not the last of its stream any more. */
const HANGS_MS = 1_100;

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
  /** A stream of one's own to the one who answers. */
  readonly open: () => Promise<Stream>;
  /** All that were opened to it, as it sees them. */
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
  const connection = await asker.dial(answerer.getMultiaddrs());
  const channels = new RecordsChannels(asker);
  t.teardown(() => channels.close());
  const ask = (name: string, signal = patient()): Promise<Uint8Array> =>
    channels.ask(answerer.peerId, find(name), signal);
  return { channels, ask, open: () => connection.newStream(RECORDS_PROTOCOL), streams };
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
  const patience = new AbortController();
  const intoTheSilence = ask("into the silence", patience.signal);
  await until("it is asked", () => streams.length === 1);
  const askedAt = performance.now();
  patience.abort(new Error("given up"));
  await t.rejects(intoTheSilence, { message: "given up" });
  silent = false;
  await until("it is given up", () => performance.now() - askedAt > HANGS_MS);
  await t.resolves(ask("again"));
  t.equal(streams.length, 2);
  t.equal(streams[1]?.status, "open");
  await until("the first one ends", () => streams[0]?.status !== "open");
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
  const together = await Promise.all(["four", "five"].map((name) => ask(name)));
  t.equal(together.length, 2, "also when two are asked at once");
});

await t.test("what is no answer ends the stream, and fails who waits for it", async (t) => {
  const { ask, streams } = await pair(t, async (stream) => {
    for await (const _ of receiveFrom(stream, 100)) stream.send(Buffer.from([0xff, 0xff, 0xff, 0xff, 0]));
  });
  await t.rejects(ask("how long is that?"));
  await until("it is over", () => streams.every(({ status }) => status !== "open"));
});

await t.test("who takes no answers is sent no more of them, and cut off", async (t) => {
  const answer = Buffer.alloc(30_000, 1);
  let answered = 0;
  const { open, streams } = await pair(
    t,
    answering(async () => {
      answered += 1;
      return answer;
    }),
  );
  const stream = await open();
  // Once it takes all that waits, and never again.
  let taken = 0;
  stream.addEventListener("message", ({ data }) => {
    taken += data.byteLength;
    if (taken > 400_000) stream.pause();
  });
  const question = encodeMessage(find("again and again"));
  const { signal } = new AbortController();
  for (let nth = 0; nth < 2_000 && stream.status === "open"; nth += 1)
    await sendOver(stream, question, signal).catch(() => undefined);
  const [serving] = streams;
  await until("it is cut off", () => serving?.status !== "open", { timeoutMs: 20_000 });
  t.ok(answered < 500, `${answered} of 2,000 were answered`);
});

await t.test("a flood of questions while one is being answered has an end", async (t) => {
  const { promise: never } = Promise.withResolvers<Uint8Array>();
  const { open } = await pair(
    t,
    answering(async () => never),
  );
  const stream = await open();
  const { signal } = new AbortController();
  const question = Buffer.alloc(32 * 1024, 1);
  let sent = 0;
  while (stream.status === "open" && sent < 1_000) {
    const ok = await sendOver(stream, question, signal).then(
      () => true,
      () => false,
    );
    if (!ok) break;
    sent += 1;
  }
  t.ok(sent < 100, `cut off after ${sent} of 1,000 messages of 32 KiB`);
});
