/**
 * A member of the cluster lies: it holds the cluster secret, says in the DHT that it has what others want, and then sends
 * wrong bytes, a wrong length, half, or nothing. It is dropped and counted, and the pull succeeds from elsewhere.
 */
import path from "node:path";
import { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import t, { type Test } from "tap";
import { Registry } from "prom-client";
import { isDigest, silentLogger, type ByteRange, type Digest } from "@p2p-mirror/shared";
import { createPeerMetrics } from "../packages/p2p-mirror/src/peer/metrics.ts";
import { createPeerServer } from "../packages/p2p-mirror/src/peer/server.ts";
import { createRouter, type KadRouter } from "../packages/p2p-mirror/src/routing/kad-router.ts";
import { createRoutingMetrics } from "../packages/p2p-mirror/src/routing/metrics.ts";
import { readClusterSecrets } from "../packages/p2p-mirror/src/trust/cluster-secret.ts";
import { newIdentity } from "../packages/p2p-mirror/src/trust/identity.ts";
import { createPeerTls } from "../packages/p2p-mirror/src/trust/peer-tls.ts";
import { MIB, seconds } from "./faults-support.ts";
import { blobsOf, makeImage, manifestsOf, pushImage, type Content } from "./rig/images.ts";
import { startMirror, writeClusterSecret, type Mirror } from "./rig/mirror.ts";
import { startOciRegistry } from "./rig/oci-registry.ts";
import { pullImage, type Pulled } from "./rig/pull.ts";
import type { Scrape } from "./rig/metrics.ts";
import { until } from "./rig/until.ts";

const REGISTRY = "registry.example.test";
const REPOSITORY = "team/app";

/** What the liar sends for a blob; `size` is what it says the whole measures. */
interface Lie {
  readonly size?: (bytes: Buffer) => number;
  readonly body: (bytes: Buffer, range: ByteRange) => Readable;
}

const CHUNK = 64 * 1024;
const chunksOf = (bytes: Buffer): Readable =>
  Readable.from(
    (function* () {
      for (let at = 0; at < bytes.length; at += CHUNK) yield bytes.subarray(at, at + CHUNK);
    })(),
    { objectMode: false },
  );
const honest = (bytes: Buffer, range: ByteRange): Readable =>
  chunksOf(bytes.subarray(range.start, range.end));

/** One bit of the middle is another one, in blobs of at least so many bytes. */
const wrongBit = (from: number): Lie => ({
  body: (bytes, range) => {
    if (bytes.length < from) return honest(bytes, range);
    const wrong = Buffer.from(bytes);
    const middle = Math.floor(bytes.length / 2);
    wrong[middle] = (wrong[middle] ?? 0) ^ 1;
    return honest(wrong, range);
  },
});

interface Liar {
  readonly router: KadRouter;
  /** Digests it was asked for, in order. */
  readonly asked: Digest[];
  lie: Lie;
  /** From now on it says that it has all of the image. */
  claim(image: Content): Promise<void>;
}

/** A node made of the project's own parts, all of them honest but for the content. */
async function startLiar(t: Test, secretFile: string, mirror: Mirror): Promise<Liar> {
  const secrets = await readClusterSecrets([secretFile]);
  const identity = await newIdentity();
  const registry = new Registry();
  const blobs = new Map<Digest, Buffer>();
  const asked: Digest[] = [];
  const never = new AbortController().signal;
  const server = createPeerServer(
    { listen: { host: "127.0.0.1", port: 0 }, drainMs: 0 },
    {
      tls: createPeerTls(identity, secrets),
      local: {
        blob: async (digest) => {
          const bytes = blobs.get(digest);
          if (bytes === undefined) return undefined;
          asked.push(digest);
          return {
            size: liar.lie.size?.(bytes) ?? bytes.length,
            source: "cache",
            open: async (range) => liar.lie.body(bytes, range),
          };
        },
        piece: () => Promise.resolve(undefined),
        record: () => undefined,
      },
      others: () => [],
      logger: silentLogger(),
      metrics: createPeerMetrics(registry),
    },
  );
  await server.start(never);
  t.teardown(() => server.close());
  const router = await createRouter(
    {
      listen: { host: "127.0.0.1", port: 0 },
      peerPort: server.address.port,
      bootstrap: [mirror.p2pAddress],
      dataDir: t.testdir(),
    },
    { identity, secrets, logger: silentLogger(), metrics: createRoutingMetrics(registry) },
  );
  await router.start(never);
  t.teardown(() => router.close());
  const liar: Liar = {
    router,
    asked,
    lie: { body: honest },
    claim: async (image) => {
      const objects = [...manifestsOf(image), ...blobsOf(image)];
      for (const { descriptor, bytes } of objects) blobs.set(digestOf(descriptor.digest), bytes);
      await router.advertise([...blobs.keys()]);
    },
  };
  return liar;
}

// One upstream and one mirror for all; each case has a liar of its own, since some are never asked again.
const upstream = await startOciRegistry();
t.teardown(() => upstream.close());
const secretFile = await writeClusterSecret(path.join(t.testdir(), "secret"));
const mirror = await startMirror({ secretFiles: [secretFile], upstreams: { [REGISTRY]: upstream.url } });
t.teardown(() => mirror.close());

interface Scene {
  readonly liar: Liar;
  /** Puts an image at upstream that the liar claims to hold as well. */
  readonly image: (layer: number) => Promise<Content>;
  readonly pull: (image: Content) => Promise<Pulled>;
}

async function startScene(t: Test): Promise<Scene> {
  const liar = await startLiar(t, secretFile, mirror);
  await until("the liar is a member", () => liar.router.peers().length === 1);
  let number = 0;
  return {
    liar,
    image: async (layer) => {
      const image = makeImage({ seed: `${process.pid} ${t.name} ${++number}`, layers: [layer] });
      await pushImage(image, { registry: upstream.url, repository: REPOSITORY, tags: [`v${number}`] });
      await liar.claim(image);
      upstream.forget();
      return image;
    },
    pull: (image) =>
      pullImage(image, {
        url: mirror.url,
        registry: REGISTRY,
        repository: REPOSITORY,
        reference: image.descriptor.digest,
      }),
  };
}

const fetched = (scrape: Scrape, outcome: string): number =>
  scrape.sum("p2p_mirror_peer_fetched_total", { kind: "blob", outcome });

interface Case {
  readonly what: string;
  readonly lie: Lie;
  /** Another scrape than before shows the lie. */
  readonly counted: (scrape: Scrape) => number;
  /** It is not asked for anything any more, and named. */
  readonly banned: boolean;
  /** Bytes of the layer, default 5 MiB. */
  readonly layer?: number;
}

const cuts = (scrape: Scrape): number => scrape.sum("p2p_mirror_http_cuts_total");
const refuted = (scrape: Scrape): number => scrape.sum("p2p_mirror_refuted_peers_total");

const CASES: readonly Case[] = [
  { what: "a manifest with one wrong bit", lie: wrongBit(0), counted: refuted, banned: true },
  { what: "a layer with one wrong bit", lie: wrongBit(MIB), counted: refuted, banned: true },
  {
    what: "a large layer with one wrong bit",
    lie: wrongBit(MIB),
    counted: refuted,
    banned: true,
    layer: 150 * MIB,
  },
  {
    what: "a longer blob",
    lie: {
      size: (bytes) => bytes.length + 1,
      body: (bytes, range) => honest(Buffer.concat([bytes, Buffer.alloc(1)]), range),
    },
    counted: (scrape) => refuted(scrape) + fetched(scrape, "status"),
    banned: false,
  },
  {
    what: "half of what it announced",
    lie: {
      body: (bytes, { start, end }) => honest(bytes, { start, end: start + Math.floor((end - start) / 2) }),
    },
    counted: (scrape) => fetched(scrape, "cut"),
    banned: false,
  },
  {
    what: "half, and then silence",
    lie: {
      body: (bytes, { start, end }) =>
        Readable.from(
          (async function* () {
            yield bytes.subarray(start, start + Math.floor((end - start) / 2));
            await new Promise(() => undefined);
          })(),
          { objectMode: false },
        ),
    },
    counted: (scrape) => fetched(scrape, "stalled"),
    banned: false,
  },
  {
    what: "next to nothing, for ever",
    lie: {
      body: (bytes, { start, end }) =>
        Readable.from(
          (async function* () {
            // Above what is taken for silence.
            for (let at = start; at < end; at += 4096) {
              yield bytes.subarray(at, Math.min(end, at + 4096));
              await delay(100);
            }
          })(),
          { objectMode: false },
        ),
    },
    counted: (scrape) => fetched(scrape, "stalled"),
    banned: false,
  },
  {
    what: "nothing at all",
    lie: { body: () => new Readable({ read: () => undefined }) },
    counted: (scrape) => fetched(scrape, "no-first-byte") + fetched(scrape, "aborted"),
    banned: false,
  },
];

for (const { what, lie, counted, banned, layer = 5 * MIB } of CASES) {
  await t.test(`a peer that sends ${what}`, async (t) => {
    const { liar, image, pull } = await startScene(t);
    const wanted = await image(layer);
    liar.lie = lie;
    const before = await mirror.metrics();
    const began = performance.now();
    const { bytes } = await pull(wanted);
    t.ok(performance.now() - began < 20_000, "nobody waited for it longer than for a silent peer");
    t.comment(
      `${what}: pull of ${bytes} bytes in ${seconds(began)}, the liar was asked ${liar.asked.length} times`,
    );
    const scrape = await mirror.metrics();
    t.ok(liar.asked.length > 0, "it was asked");
    t.ok(counted(scrape) > counted(before), "counted");
    t.equal(cuts(scrape), cuts(before), "the client noticed nothing");
    const layers = upstream.requests.filter((one) => one.kind === "blob" && one.method === "GET");
    // The config; of the layer what is before and behind a piece that the liar was asked for, and that piece.
    t.ok(layers.length >= 1 && layers.length <= 4, `upstream was asked ${layers.length} times for two blobs`);
    if (!banned) return;
    const { id } = liar.router.self;
    const named = mirror
      .log()
      .split("\n")
      .some((line) => line.includes("delivered wrong bytes") && line.includes(id));
    t.ok(named, "named in the log");
    const status: unknown = await (await fetch(`${mirror.adminUrl}/status`)).json();
    t.match(status, { peers: [{ id, state: "refuted" }] }, "and in the status");
    const asked = liar.asked.length;
    await pull(await image(MIB));
    t.equal(liar.asked.length, asked, "a peer that was refuted is not asked any more");
  });
}

function digestOf(text: string): Digest {
  if (!isDigest(text)) throw new TypeError(`${text} is no digest`);
  return text;
}
