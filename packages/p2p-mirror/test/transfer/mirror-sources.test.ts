/** Who is asked for a layer: whoever had its manifest is a guess, whoever advertises it was found. */
import { digestOf, VirtualClock } from "@p2p-mirror/shared";
import t from "tap";
import { MemoryMesh } from "../../src/routing/memory-router.ts";
import { Candidates } from "../../src/transfer/candidates.ts";
import { MirrorSources } from "../../src/transfer/mirror-sources.ts";
import type { BlobSource } from "../../src/transfer/source.ts";

const { signal } = new AbortController();
const manifest = digestOf(Buffer.from("manifest"));
const layer = digestOf(Buffer.from("layer"));
const peerOf = (nth: number) => ({ id: `node${nth}`, host: "127.0.0.1", port: 1_000 + nth });

/** Node 0 has had the manifest from 1 and from 2; 2 and 3 advertise the layer. */
async function setup(): Promise<MirrorSources> {
  const mesh = new MemoryMesh();
  const [self, , second, third] = [0, 1, 2, 3].map((nth) => mesh.join(peerOf(nth)));
  for (const holder of [second, third]) await holder?.advertise([layer]);
  if (self === undefined) throw new TypeError("nobody");
  const sources = new MirrorSources({
    router: self,
    peerClient: { blob: () => Promise.reject(new Error("nobody is asked here")) },
    upstream: { blob: () => Promise.reject(new Error("nobody is asked here")), reachable: () => true },
    catalog: { parentsOf: (digest) => (digest === layer ? [manifest] : []) },
    refuted: () => undefined,
  });
  for (const nth of [1, 2]) sources.remember(manifest, peerOf(nth));
  return sources;
}

await t.test(
  "who is guessed comes first, who is found is said to be, and refuted ones are neither",
  async (t) => {
    const sources = await setup();
    const seen: string[] = [];
    for await (const { id, guessed } of sources.peers(layer, signal))
      seen.push(`${id} ${guessed === true ? "guessed" : "found"}`);
    t.same(seen, ["node2 guessed", "node1 guessed", "node3 found", "node2 found"]);
    sources.refute(peerOf(2));
    const left: string[] = [];
    for await (const { id } of sources.peers(layer, signal)) left.push(id);
    t.same(left, ["node1", "node3"]);
  },
);

await t.test("each holder is named once", async (t) => {
  const sources = await setup();
  const seen: string[] = [];
  for await (const { id } of sources.holders(layer, signal)) seen.push(id);
  t.same(seen, ["node2", "node1", "node3"]);
});

await t.test("only of those that were found the swarm is told; all are asked, each once", async (t) => {
  const sources = await setup();
  const told: string[] = [];
  const clock = new VirtualClock();
  const candidates = new Candidates<BlobSource>({
    peers: (looking) => sources.peers(layer, looking),
    named: () => undefined,
    found: ({ id }) => told.push(id),
    clock,
    changed: () => undefined,
  });
  candidates.look();
  await clock.run(1_000, () => candidates.lookedUp);
  t.same(told, ["node3", "node2"]);
  const asked: string[] = [];
  for (;;) {
    const candidate = candidates.take(false, { peers: true, upstream: false });
    if (candidate === undefined) break;
    asked.push(candidate.source.id);
  }
  t.same(asked, ["node2", "node1", "node3"]);
  candidates.close();
});
