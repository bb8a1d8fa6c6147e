import t from "tap";
import {
  MEDIA_TYPES,
  NotFoundError,
  parseManifest,
  systemClock,
  type Clock,
  type Digest,
} from "@p2p-mirror/shared";
import { BusyError, type PeerClient } from "../../src/transfer/peer-client.ts";
import { until } from "../../../../test/rig/until.ts";
import {
  APP,
  blobRequests,
  descriptorOf,
  holding,
  lying,
  manifestNaming,
  oneNode,
  OTHER,
  readBlob,
  type OneNode,
} from "./one-node.ts";
import { seededBytes } from "./scripted-source.ts";

const MIB = 1024 * 1024;
const { signal } = new AbortController();
const bytes = seededBytes(50_000, 1);
const { digest } = descriptorOf(bytes);

await t.test("manifests that lie about a size cost no honest holder and no pull", async (t) => {
  for (const [who, repository] of [
    ["another repository", OTHER],
    ["the repository itself", APP],
  ] as const) {
    for (const said of [7, 900_000]) {
      const node = await oneNode(t);
      node.learn(repository, descriptorOf(bytes, said));
      await node.peer(holding(bytes), [digest]);
      const blob = await node.content.blob(APP, digest, { signal });
      t.equal(blob.source, "peer", `${who} said ${said} bytes`);
      t.ok((await readBlob(blob, signal)).equals(bytes));
      t.same(node.refuted, []);
      t.same(
        blobRequests(node.registry).filter((one) => one.startsWith("GET")),
        [],
      );
    }
  }
});

await t.test("a blob that a manifest calls small and is not comes by a flight", async (t) => {
  const large = seededBytes(3 * MIB, 2);
  for (const where of ["a peer and upstream", "upstream alone", "a peer alone"]) {
    const node = await oneNode(t);
    node.learn(APP, descriptorOf(large, 7));
    if (where !== "upstream alone") await node.peer(holding(large), [descriptorOf(large).digest]);
    if (where !== "a peer alone") node.registry.content.putBlob(APP.repository, large);
    const blob = await node.content.blob(APP, descriptorOf(large).digest, { signal });
    t.ok((await readBlob(blob, signal)).equals(large), where);
    t.same(node.refuted, []);
  }
});

await t.test("a blob of another size than a manifest says comes with its own", async (t) => {
  const large = seededBytes(3 * MIB, 3);
  for (const said of [2 * MIB, 5 * MIB]) {
    const node = await oneNode(t);
    node.learn(APP, descriptorOf(large, said));
    const peer = await node.peer(holding(large), [descriptorOf(large).digest]);
    node.registry.content.putBlob(APP.repository, large);
    const blob = await node.content.blob(APP, descriptorOf(large).digest, { signal });
    t.equal(blob.size, large.length, `${said} bytes were said`);
    t.ok((await readBlob(blob, signal)).equals(large));
    t.same(node.refuted, [], peer.id);
  }
});

await t.test("a peer with wrong bytes is refuted, and the next one gives the right ones", async (t) => {
  const node = await oneNode(t);
  node.learn(APP, descriptorOf(bytes));
  await node.peer(holding(bytes), [digest]);
  const liar = await node.peer(lying(digest, seededBytes(bytes.length, 4)), [digest]);
  const blob = await node.content.blob(APP, digest, { signal });
  t.ok((await readBlob(blob, signal)).equals(bytes));
  t.same(node.refuted, [liar.id]);
  t.same(blobRequests(node.registry), []);
});

await t.test("a first holder that never answers does not keep the second from being asked", async (t) => {
  const node = await oneNode(t);
  node.learn(APP, descriptorOf(bytes));
  await node.peer(holding(bytes), [digest]);
  await node.silentPeer("12D3KooWsilent11111111111111111", [digest]);
  await node.silentPeer("12D3KooWsilent22222222222222222", [digest]);
  const blob = await node.content.blob(APP, digest, { signal });
  t.equal(blob.source, "peer");
  t.ok((await readBlob(blob, signal)).equals(bytes));
});

/** Peers in `busy` have no time so often, then give `bytes`. */
function busyClient(busy: Map<string, { times: number; named?: Parameters<PeerClient["blob"]>[0][] }>) {
  const asked: string[] = [];
  const client = (real: PeerClient): PeerClient => ({
    piece: (...call) => real.piece(...call),
    stat: (...call) => real.stat(...call),
    record: (...call) => real.record(...call),
    blob: (peer, ...rest) => {
      asked.push(peer.id);
      const script = busy.get(peer.id);
      if (script === undefined || script.times-- <= 0) return real.blob(peer, ...rest);
      return Promise.reject(new BusyError(peer.id, script.named));
    },
  });
  return { asked, client };
}

await t.test("busy peers are asked again, and do not count as asked", async (t) => {
  const script = new Map<string, { times: number }>();
  const { client, asked } = busyClient(script);
  const node = await oneNode(t, { client });
  node.learn(APP, descriptorOf(bytes));
  const holder = await node.peer(holding(bytes), [digest]);
  script.set(holder.id, { times: 2 });
  for (let nth = 0; nth < 6; nth += 1) {
    script.set(node.paperPeer(`12D3KooWbusy${nth}`, [digest]).id, { times: 100 });
  }
  const { source } = await node.content.blob(APP, digest, { signal });
  t.equal(source, "peer");
  t.equal(asked.filter((id) => id === holder.id).length, 3);
  t.same(blobRequests(node.registry), []);
});

await t.test("whom a busy peer names is asked, unless it was refuted", async (t) => {
  const script = new Map<string, { times: number; named: Parameters<PeerClient["blob"]>[0][] }>();
  const { client, asked } = busyClient(script);
  const node = await oneNode(t, { client });
  node.learn(APP, descriptorOf(bytes));
  const holder = await node.peer(holding(bytes), []);
  const refuted = await node.peer(holding(bytes), []);
  node.sources.refute(refuted);
  const busy = node.paperPeer("12D3KooWbusy", [digest]);
  script.set(busy.id, { times: 100, named: [node.router.self, refuted, busy, holder] });
  const { source } = await node.content.blob(APP, digest, { signal });
  t.equal(source, "peer");
  t.same(asked, [busy.id, holder.id]);
});

await t.test("upstream is asked when the peers stay busy for some seconds", async (t) => {
  const script = new Map([["12D3KooWbusy", { times: 1_000 }]]);
  const { client, asked } = busyClient(script);
  const node = await oneNode(t, { client });
  node.learn(APP, descriptorOf(bytes));
  node.paperPeer("12D3KooWbusy", [digest]);
  node.registry.content.putBlob(APP.repository, bytes);
  const started = systemClock.now();
  const { source } = await node.content.blob(APP, digest, { signal });
  t.equal(source, "upstream");
  const took = systemClock.now() - started;
  // Beside other load a pause takes as long as the machine likes: few questions are no defect, many are.
  t.ok(took > 1_500 && took < 8_000, `${took} ms`);
  t.ok(asked.length > 1 && asked.length < 15, `asked ${asked.length} times`);
});

await t.test("two repositories that want the same blob at once share one fetch", async (t) => {
  const node = await oneNode(t);
  for (const repository of [APP, OTHER]) {
    node.learn(repository, descriptorOf(bytes));
    node.registry.content.putBlob(repository.repository, bytes);
  }
  const both = await Promise.all(
    [APP, OTHER].map((repository) => node.content.blob(repository, digest, { signal })),
  );
  for (const blob of both) t.ok((await readBlob(blob, signal)).equals(bytes));
  t.same(blobRequests(node.registry), ["GET team/app"]);
  await until("it is known to be of both", () => node.cache.origins(digest).length === 2);
});

await t.test("when the first repository refuses it, the second is asked for both", async (t) => {
  const node = await oneNode(t);
  for (const repository of [APP, OTHER]) node.learn(repository, descriptorOf(bytes));
  node.registry.content.putBlob(OTHER.repository, bytes);
  node.registry.faults.add({ match: { kind: "blob", path: "/team/app/" }, delayMs: 100 });
  const both = await Promise.all(
    [APP, OTHER].map((repository) => node.content.blob(repository, digest, { signal })),
  );
  for (const blob of both) t.ok((await readBlob(blob, signal)).equals(bytes));
  t.same(blobRequests(node.registry), ["GET team/app", "GET team/other"]);
});

await t.test("when every repository refuses it, it is not found", async (t) => {
  const node = await oneNode(t);
  node.learn(APP, descriptorOf(bytes));
  await t.rejects(node.content.blob(APP, digest, { signal }), NotFoundError);
});

await t.test("closing ends what upstream never answers, at once", async (t) => {
  let pauses = 0;
  const after: Clock["after"] = (ms, callback) => {
    if (ms >= 20_000 && ms < 30_000) pauses += 1;
    return systemClock.after(ms, callback);
  };
  const node = await oneNode(t, { clock: { ...systemClock, after } });
  node.learn(APP, descriptorOf(bytes));
  const { descriptor } = manifestNaming(descriptorOf(bytes));
  // Silent, and with a Retry-After within the patience: both are waits.
  node.registry.faults.add({ match: { kind: "blob" }, silent: true });
  node.registry.faults.add({ match: { kind: "manifest" }, status: 503, retryAfter: "20" });
  const wanted = [
    node.content.blob(APP, digest, { signal }),
    node.content.manifest(APP, descriptor.digest, { signal }),
    node.content.resolveTag(APP, "v1", { signal }),
  ].map((one) =>
    one.then(
      () => "came",
      () => "ended",
    ),
  );
  await until("all are being waited for", () => node.registry.requests.length >= 3 && pauses === 2);
  const started = performance.now();
  await Promise.all([node.small.close(), node.tags.close()]);
  t.ok(performance.now() - started < 500, `${(performance.now() - started).toFixed(0)} ms`);
  t.same(await Promise.all(wanted), ["ended", "ended", "ended"]);
  await t.rejects(node.content.blob(APP, digest, { signal }), { name: "AbortError" });
});

async function holdersOf({ sources }: OneNode, of: Digest): Promise<string[]> {
  const ids: string[] = [];
  for await (const { id } of sources.holders(of, signal)) ids.push(id);
  return ids;
}

await t.test("holders are remembered for manifests, not for each small blob", async (t) => {
  const node = await oneNode(t);
  const manifest = manifestNaming(descriptorOf(bytes));
  node.learn(APP, manifest.descriptor);
  node.catalog.learnManifest(manifest.descriptor, parseManifest(manifest.bytes), APP);
  await node.peer(holding(manifest.bytes), [manifest.descriptor.digest]);
  await node.content.blob(APP, manifest.descriptor.digest, { signal });
  t.same(await holdersOf(node, digest), [], "as a blob it is nobody's parent");
  const again = await oneNode(t);
  const peer = await again.peer(holding(manifest.bytes), [manifest.descriptor.digest]);
  await again.content.manifest(APP, manifest.descriptor.digest, { signal });
  t.same(await holdersOf(again, digest), [peer.id]);
});

await t.test("a manifest is learned once for each repository, however often it is asked for", async (t) => {
  const learned: string[] = [];
  const node = await oneNode(t, {
    catalog: (real) =>
      new Proxy(real, {
        get: (target, name) =>
          name === "learnManifest"
            ? (...call: Parameters<typeof target.learnManifest>) => {
                learned.push(call[2].repository);
                target.learnManifest(...call);
              }
            : ((value: unknown) => (typeof value === "function" ? value.bind(target) : value))(
                Reflect.get(target, name),
              ),
      }),
  });
  const { bytes: manifest, descriptor } = manifestNaming(descriptorOf(bytes));
  for (const repository of [APP, OTHER]) {
    node.registry.content.putManifest(repository.repository, descriptor.mediaType, manifest);
  }
  for (let nth = 0; nth < 3; nth += 1) {
    for (const repository of [APP, OTHER]) {
      const got = await node.content.manifest(repository, descriptor.digest, { signal });
      t.same(got.descriptor, descriptor);
    }
  }
  t.same(learned, ["team/app", "team/other"]);
});

await t.test("a word of a manifest about a manifest does not change its type", async (t) => {
  const node = await oneNode(t);
  const untyped = Buffer.from(JSON.stringify({ schemaVersion: 2, layers: [descriptorOf(bytes)] }));
  node.learn(APP, { ...descriptorOf(untyped), mediaType: "application/x-lie" });
  await node.peer(holding(untyped), [descriptorOf(untyped).digest]);
  const { descriptor } = await node.content.manifest(APP, descriptorOf(untyped).digest, { signal });
  t.equal(descriptor.mediaType, "application/vnd.oci.image.manifest.v1+json");
});

await t.test(
  "a manifest of 4 MiB comes whole from upstream, a peer, and the cache; a larger one not",
  async (t) => {
    for (const [length, works] of [
      [4 * MIB, true],
      [4 * MIB + 1, false],
    ] as const) {
      const { bytes: small } = manifestNaming(descriptorOf(bytes));
      const padded = Buffer.alloc(length, " ");
      small.copy(padded);
      const wanted = descriptorOf(padded).digest;
      const [byUpstream, byPeer] = [await oneNode(t), await oneNode(t)];
      byUpstream.registry.content.putManifest(APP.repository, MEDIA_TYPES.ociManifest, padded);
      await byPeer.peer(holding(padded), [wanted]);
      for (const [from, node] of Object.entries({ upstream: byUpstream, peer: byPeer })) {
        const got = node.content.manifest(APP, wanted, { signal });
        if (!works) {
          await t.rejects(got, `${length} bytes from ${from}`);
          continue;
        }
        t.match(await got, { source: from, descriptor: { digest: wanted, size: length } });
        t.ok(padded.equals((await got).bytes), `${length} bytes from ${from}`);
        await until("it is stored", async () => (await node.cache.store.stat(wanted)) !== undefined);
        const again = await node.content.manifest(APP, wanted, { signal });
        t.ok(again.source === "cache" && padded.equals(again.bytes), "and from the cache");
      }
    }
  },
);
