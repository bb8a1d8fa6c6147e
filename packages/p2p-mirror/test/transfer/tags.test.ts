import t, { type Test } from "tap";
import { NotFoundError, raceSignal, SourceError, systemClock, type Descriptor } from "@p2p-mirror/shared";
import { toOciError } from "../../src/http/oci-errors.ts";
import type { Peer } from "../../src/routing/router.ts";
import type { PeerClient } from "../../src/transfer/peer-client.ts";
import { tagKey } from "../../src/transfer/records.ts";
import { newIdentity } from "../../src/trust/identity.ts";
import { createRecordSigner } from "../../src/trust/record-signer.ts";
import { until } from "../../../../test/rig/until.ts";
import { HurriedClock } from "./hurried-clock.ts";
import { APP, descriptorOf, manifestNaming, oneNode, type OneNode } from "./one-node.ts";

const { signal } = new AbortController();

await t.test(
  "rule 0.6: a tag that upstream keeps thinking about is a decline in the end, no 500",
  async (t) => {
    const node = await oneNode(t, {
      clock: new HurriedClock(1000),
      resolve: async (_, __, options) => raceSignal(new Promise(() => undefined), options?.signal),
    });
    const error: unknown = await node.tags.resolve(APP, "v1", { signal }).catch((reason: unknown) => reason);
    t.ok(error instanceof SourceError && error.code === "NO_FIRST_BYTE", String(error));
    t.equal(toOciError(error, "tag")?.status, 404);
  },
);

const NOW = Date.now();

/** A manifest that the cluster says the tag means. */
const said = (name: string): Descriptor => manifestNaming(descriptorOf(Buffer.from(name))).descriptor;

/** A node whose cluster knows several words about `v1`, the newest of which is `newest`. */
async function withRecords(t: Test): Promise<{ node: OneNode; asked: string[] }> {
  const records = new Map<string, string>();
  const asked: string[] = [];
  const node = await oneNode(t, {
    client: (real) =>
      Object.assign(Object.create(real) as PeerClient, {
        record: async ({ id }: Peer) => {
          asked.push(id);
          return records.get(id) ?? "no record";
        },
      }),
  });
  for (const [name, time] of [
    ["old", NOW - 60_000],
    ["newest", NOW - 1_000],
    ["older", NOW - 120_000],
    ["from the future", NOW + 3_600_000],
  ] as const) {
    const claim = { kind: "tag", ...APP, tag: "v1", descriptor: said(name), time } as const;
    records.set(name, createRecordSigner(await newIdentity()).sign(claim));
    node.paperPeer(name, [tagKey(APP, "v1")]);
  }
  return { node, asked };
}

await t.test(
  "upstream away, 5xx or 429: the newest word of the cluster counts, none of the future",
  async (t) => {
    const stale = { descriptor: said("newest"), stale: true };
    for (const status of [500, 503, 429]) {
      const { node, asked } = await withRecords(t);
      node.registry.faults.add({ match: { kind: "manifest" }, status });
      t.same(await node.tags.resolve(APP, "v1", { signal }), stale, String(status));
      t.equal(asked.length, 4);
    }
    const { node } = await withRecords(t);
    await node.registry.kill();
    t.same(await node.tags.resolve(APP, "v1", { signal }), stale, "refused");
  },
);

await t.test("whatever else upstream says is the answer, and the cluster is not asked", async (t) => {
  for (const status of [404, 401, 403]) {
    const { node, asked } = await withRecords(t);
    node.registry.faults.add({ match: { kind: "manifest" }, status });
    await t.rejects(node.tags.resolve(APP, "v1", { signal }), NotFoundError, String(status));
    t.same(asked, []);
  }
});

await t.test("a tag is one HEAD for all who ask at once, and for five seconds", async (t) => {
  let now = 1;
  const clock = { ...systemClock, now: () => now };
  const node = await oneNode(t, { clock });
  const { bytes, descriptor } = manifestNaming(descriptorOf(Buffer.from("layer")));
  const manifests = [{ bytes, mediaType: descriptor.mediaType, tags: ["v1"] }];
  node.registry.push({ repository: APP.repository, blobs: [], manifests });
  const ask = async (): Promise<string[]> => {
    node.registry.forget();
    const all = await Promise.all(Array.from({ length: 10 }, () => node.tags.resolve(APP, "v1", { signal })));
    for (const one of all) t.match(one, { descriptor, stale: false });
    return node.registry.requests.map(({ method }) => method);
  };
  t.same(await ask(), ["HEAD"]);
  t.same(await ask(), []);
  now += 5_001;
  // What is remembered looks at the clock again after a millisecond.
  await until("upstream is asked again", async () => (await ask()).join() === "HEAD");
});
