import { getEventListeners } from "node:events";
import t from "tap";
import { AllSourcesFailedError, NotFoundError } from "@p2p-mirror/shared";
import type { Peer, Router } from "../../src/routing/router.ts";
import type { PeerClient } from "../../src/transfer/peer-client.ts";
import { repositoryKey } from "../../src/transfer/records.ts";
import { until } from "../../../../test/rig/until.ts";
import { APP, blobRequests, descriptorOf, holding, lying, oneNode } from "./one-node.ts";
import { seededBytes } from "./scripted-source.ts";

const { signal } = new AbortController();
const bytes = seededBytes(50_000, 1);
const { digest } = descriptorOf(bytes);
const wrong = seededBytes(49_000, 2);

await t.test("one peer alone does not decide the size of a blob that no manifest names", async (t) => {
  const node = await oneNode(t);
  node.registry.content.putBlob(APP.repository, bytes);
  await node.peer(lying(digest, wrong), [digest]);
  t.same(await node.content.blobSize(APP, digest, { signal }), { size: bytes.length, source: "upstream" });
  t.same(blobRequests(node.registry), ["HEAD team/app"]);
});

await t.test("two peers that agree do: upstream is not asked", async (t) => {
  const node = await oneNode(t);
  for (const local of [holding(bytes), lying(digest, wrong), holding(bytes)])
    await node.peer(local, [digest]);
  t.same(await node.content.blobSize(APP, digest, { signal }), { size: bytes.length, source: "peer" });
  t.same(blobRequests(node.registry), []);
});

await t.test("what a peer says counts when upstream cannot be asked", async (t) => {
  const node = await oneNode(t);
  await node.registry.kill();
  await t.rejects(node.content.blobSize(APP, digest, { signal }), AllSourcesFailedError);
  await node.peer(holding(bytes), [digest]);
  t.same(await node.content.blobSize(APP, digest, { signal }), { size: bytes.length, source: "peer" });
});

await t.test("a holder that never answers does not keep the next from being asked", async (t) => {
  const node = await oneNode(t);
  await node.peer(holding(bytes), [digest]);
  await node.silentPeer("12D3KooWsilent11111111111111111", [digest]);
  t.same(await node.content.blobSize(APP, digest, { signal }), { size: bytes.length, source: "peer" });
});

await t.test("a blob nobody has is not found", async (t) => {
  const node = await oneNode(t);
  await t.rejects(node.content.blobSize(APP, digest, { signal }), NotFoundError);
});

/** Lookups that give what they are told and then hang until they are aborted or left. */
function hangingLookups(first: readonly Peer[]) {
  const state = { open: 0, begun: 0 };
  const router = (real: Router): Router => ({
    ...real,
    async *find(_, options) {
      state.begun += 1;
      state.open += 1;
      try {
        yield* first;
        await new Promise<void>((resolve) => {
          options?.signal?.addEventListener("abort", () => resolve(), { once: true });
        });
      } finally {
        state.open -= 1;
      }
    },
  });
  return { state, router };
}

const paperPeers = (count: number): Peer[] =>
  Array.from({ length: count }, (_, nth) => ({ id: `peer ${nth}`, host: "127.0.0.1", port: 9 }));

/** Peers that say the size of everything at once. */
const knowingSizes = (real: PeerClient): PeerClient => ({
  blob: (...call) => real.blob(...call),
  piece: (...call) => real.piece(...call),
  stat: () => Promise.resolve(bytes.length),
  record: (...call) => real.record(...call),
});

const knowingNoRecords = (real: PeerClient): PeerClient => ({
  ...knowingSizes(real),
  record: () => Promise.reject(new NotFoundError("BLOB_UNKNOWN", "a record")),
});

await t.test("lookups that hang are ended, and leave no listener on the client's signal", async (t) => {
  // With one peer each lookup is given up while it hangs; with two, after they have said the same.
  for (const count of [1, 2]) {
    const { state, router } = hangingLookups(paperPeers(count));
    const node = await oneNode(t, { router, client: knowingSizes });
    await node.registry.kill();
    const reader = new AbortController();
    await Promise.all(
      Array.from({ length: 20 }, (_, nth) => {
        const { digest: one } = descriptorOf(Buffer.from(`${nth}`));
        return node.content.blobSize(APP, one, { signal: reader.signal });
      }),
    );
    t.equal(state.begun, 20);
    await until("none is still looking", () => state.open === 0, { timeoutMs: 1_000 });
    t.equal(getEventListeners(reader.signal, "abort").length, 0);
  }
});

await t.test("a lookup for records ends when enough peers were asked", async (t) => {
  const { state, router } = hangingLookups(paperPeers(20));
  const node = await oneNode(t, { router, client: knowingNoRecords });
  await node.registry.kill();
  const asked = { ...APP, wants: { blob: digest }, authorization: undefined };
  t.equal(await node.access.decide(asked, { signal }), "decline");
  t.same(state, { begun: 1, open: 0 });
});

await t.test(
  "a question for records that nobody waits for any more is ended, its lookup with it",
  async (t) => {
    const { state, router } = hangingLookups(paperPeers(1));
    let asking = 0;
    const client = (real: PeerClient): PeerClient => ({
      blob: (...call) => real.blob(...call),
      piece: (...call) => real.piece(...call),
      stat: (...call) => real.stat(...call),
      record: async (_peer, key, options) => {
        t.equal(key, repositoryKey(APP));
        asking += 1;
        await new Promise<void>((resolve) => {
          options?.signal?.addEventListener("abort", () => resolve(), { once: true });
        });
        asking -= 1;
        throw new NotFoundError("BLOB_UNKNOWN", "a record");
      },
    });
    const node = await oneNode(t, { router, client });
    await node.registry.kill();
    const reader = new AbortController();
    const decision = node.access.decide(
      { ...APP, wants: { blob: digest }, authorization: undefined },
      { signal: reader.signal },
    );
    await until("the peer is being asked", () => asking > 0);
    reader.abort();
    await decision.catch(() => undefined);
    await new Promise((resolve) => void setImmediate(resolve));
    t.same({ open: state.open, asking }, { open: 0, asking: 0 });
    t.equal(getEventListeners(reader.signal, "abort").length, 0);
  },
);
