import { once } from "node:events";
import { buffer } from "node:stream/consumers";
import { digestOf, SourceError } from "@p2p-mirror/shared";
import t from "tap";
import { startShapedLink } from "../../../../test/rig/shaped-link.ts";
import { until } from "../../../../test/rig/until.ts";
import { clientOf, NAME, passed, setup, SHORT, valueOf } from "./rig.ts";

/** Larger than all buffers on the way together, so that a fault in the middle is met in the middle. */
const LAYERS = [3_000_000];

void t.test(
  "a registry that accepts and says nothing: NO_FIRST_BYTE after its deadline, not tried again",
  async (t) => {
    const { upstream, repository, registry } = await setup(t, { registry: { faults: [{ silent: true }] } });
    const before = performance.now();
    await t.rejects(upstream.resolve(repository, "v1"), { code: "NO_FIRST_BYTE", temporary: true });
    const ms = performance.now() - before;
    t.ok(ms > 350 && ms < 5000, `after ${Math.round(ms)} ms`);
    t.equal(registry.requests.length, 1);
  },
);

void t.test(
  "a 5xx or a reset before the first byte is tried again, and forgotten when that works",
  async (t) => {
    const { upstream, image, repository, registry, metric } = await setup(t);
    for (const fault of [
      { status: 500 },
      { status: 502 },
      { status: 503 },
      { status: 504 },
      { resetAfter: 0 },
    ]) {
      registry.forget();
      registry.faults.set([{ ...fault, times: 2 }]);
      t.equal(
        (await upstream.manifest(repository, "v1")).descriptor.digest,
        image.digest,
        JSON.stringify(fault),
      );
      t.equal(registry.requests.length, 3);
    }
    t.equal(await metric("p2p_mirror_upstream_retries_total", { registry: NAME }), 10);
  },
);

void t.test("three tries, no more; and none after a 4xx", async (t) => {
  const { upstream, repository, registry } = await setup(t);
  registry.faults.set([{ status: 500 }]);
  await t.rejects(upstream.resolve(repository, "v1"), { code: "STATUS", status: 500, temporary: true });
  t.equal(registry.requests.length, 3);
  for (const status of [400, 403, 404, 410, 418, 451]) {
    registry.forget();
    registry.faults.set([{ status }]);
    await t.rejects(
      upstream.resolve(repository, "v1"),
      { code: /DENIED|MANIFEST_UNKNOWN|STATUS/ },
      String(status),
    );
    t.equal(registry.requests.length, 1, `${status} is final`);
  }
});

void t.test("a body that stops: STALLED after the idle deadline", async (t) => {
  const { upstream, image, repository, registry, metric } = await setup(t, { layerSizes: LAYERS });
  const layer = image.layers[0]?.digest ?? image.digest;
  registry.faults.add({ match: { kind: "blob" }, stallAfter: 1_000_000 });
  const { body } = await upstream.blob(repository, layer, undefined);
  let got = 0;
  await t.rejects(
    async () => {
      for await (const chunk of body) got += Buffer.from(chunk).length;
    },
    { name: "SourceError", code: "STALLED" },
  );
  t.equal(got, 1_000_000, "everything before the stall was handed on");
  t.equal(await metric("p2p_mirror_upstream_errors_total", { registry: NAME, code: "STALLED" }), 1);
});

void t.test("a reader that is slower than upstream is no stall", async (t) => {
  const { upstream, image, repository } = await setup(t, {
    layerSizes: [20_000_000],
    upstream: { timeouts: { ...SHORT, idleMs: 150 } },
  });
  const layer = image.layers[0]?.digest ?? image.digest;
  const { body } = await upstream.blob(repository, layer, undefined);
  body.read();
  await passed(600);
  t.equal(digestOf(await buffer(body)), layer);
});

void t.test(
  "a body that ends early, by FIN or RST or a wrong length: CUT, and never a clean end",
  async (t) => {
    const { upstream, image, repository, registry } = await setup(t, { layerSizes: LAYERS });
    const layer = image.layers[0]?.digest ?? image.digest;
    for (const fault of [{ cutAfter: 1_000_000 }, { resetAfter: 1_000_000 }, { lengthDelta: 10 }]) {
      registry.faults.set([{ match: { kind: "blob" }, ...fault }]);
      for (const range of [undefined, { start: 10, end: 2_000_000 }]) {
        await t.rejects(
          async () => buffer((await upstream.blob(repository, layer, range)).body),
          { name: "SourceError", code: /CUT|STALLED|STATUS/ },
          `${JSON.stringify(fault)} ${JSON.stringify(range)}`,
        );
      }
    }
  },
);

void t.test("without a length the size is unknown, and a cut chunked body is CUT all the same", async (t) => {
  const { upstream, image, repository, registry } = await setup(t, { layerSizes: LAYERS });
  const layer = image.layers[0]?.digest ?? image.digest;
  registry.faults.set([{ match: { kind: "blob" }, chunked: true }]);
  const { size, body } = await upstream.blob(repository, layer, undefined);
  t.equal(size, undefined);
  t.equal(digestOf(await buffer(body)), layer);
  registry.faults.set([{ match: { kind: "blob" }, chunked: true, cutAfter: 1_000_000 }]);
  const cut = await upstream.blob(repository, layer, undefined);
  await t.rejects(buffer(cut.body), { code: "CUT" });
  registry.faults.set([{ match: { kind: "blob" }, chunked: true }]);
  const part = await upstream.blob(repository, layer, { start: 5, end: 15 });
  t.same([part.start, part.size], [5, image.layers[0]?.size], "a 206 without a length says it by its range");
  t.equal((await buffer(part.body)).length, 10);
});

void t.test(
  "a registry that ignores ranges: start 0 is reported, and the body ends where the range ends",
  async (t) => {
    const { upstream, image, repository, registry } = await setup(t, { layerSizes: LAYERS });
    const layer = image.layers[0]?.digest ?? image.digest;
    const whole = await buffer((await upstream.blob(repository, layer, undefined)).body);
    registry.faults.add({ match: { kind: "blob" }, ignoreRange: true });
    const part = await upstream.blob(repository, layer, { start: 1_000_000, end: 1_500_000 });
    t.same([part.start, part.size], [0, whole.length]);
    t.ok((await buffer(part.body)).equals(whole.subarray(0, 1_500_000)));
    const last = await upstream.blob(repository, layer, { start: 1, end: whole.length + 100 });
    t.ok((await buffer(last.body)).equals(whole), "also to the end");
  },
);

void t.test("a 206 for another part than was asked for is refused before a byte of it is used", async (t) => {
  const { upstream, image, repository, registry } = await setup(t, { layerSizes: LAYERS });
  const layer = image.layers[0]?.digest ?? image.digest;
  const wrong = [
    { rangeShift: 7 },
    { headers: { "content-range": "bytes 0-9/*garbage" } },
    { headers: { "content-range": "bytes 100-150/3000000" } },
    { lengthDelta: -1 },
  ];
  for (const fault of wrong) {
    registry.faults.set([{ match: { kind: "blob" }, ...fault }]);
    await t.rejects(
      upstream.blob(repository, layer, { start: 100, end: 200 }),
      { name: "SourceError", code: "STATUS" },
      JSON.stringify(fault),
    );
  }
  registry.faults.clear();
  await t.rejects(upstream.blob(repository, layer, { start: 9_000_000, end: 9_000_100 }), {
    code: "STATUS",
    message: /416/,
  });
});

void t.test("a manifest is only what its digest says, asked for by digest or by tag", async (t) => {
  const { upstream, image, repository, registry } = await setup(t);
  registry.faults.set([{ match: { kind: "manifest" }, corruptAt: 10 }]);
  for (const reference of [image.digest, "v1"]) {
    await t.rejects(
      upstream.manifest(repository, reference),
      { name: "IntegrityError", code: "DIGEST_MISMATCH", expected: image.digest },
      reference,
    );
  }
  registry.faults.set([{ match: { kind: "manifest" }, claimDigest: `sha256:${"1".repeat(64)}` }]);
  await t.rejects(upstream.manifest(repository, "v1"), { code: "DIGEST_MISMATCH" }, "a tag's claimed digest");
  t.equal(
    (await upstream.manifest(repository, image.digest)).descriptor.digest,
    image.digest,
    "asked by digest",
  );
});

void t.test(
  "a manifest that is cut is fetched again; one that has no end is given up at 4 MiB",
  async (t) => {
    const { upstream, image, repository, registry } = await setup(t);
    registry.faults.set([{ match: { kind: "manifest", method: "GET" }, cutAfter: 20, times: 2 }]);
    t.equal((await upstream.manifest(repository, image.digest)).descriptor.digest, image.digest);
    const large = Buffer.alloc(5 * 1024 * 1024, " ");
    const digest = registry.content.putManifest(
      "team/app",
      "application/vnd.oci.image.manifest.v1+json",
      large,
    );
    for (const chunked of [false, true]) {
      registry.faults.set([{ match: { kind: "manifest" }, chunked }]);
      await t.rejects(upstream.manifest(repository, digest), { code: "STATUS" }, `chunked: ${chunked}`);
    }
  },
);

void t.test("HEAD that is refused, says too little, or lies about encoding: GET finds out", async (t) => {
  const { upstream, image, repository, registry } = await setup(t);
  const heads = [
    { status: 405 },
    { withoutDigest: true },
    { chunked: true },
    { headers: { "content-type": "application/json" } },
    { headers: { "content-encoding": "gzip" } },
  ];
  for (const fault of heads) {
    registry.faults.set([{ match: { kind: "manifest", method: "HEAD" }, ...fault }]);
    registry.forget();
    const resolved = await upstream.resolve(repository, "v1");
    t.equal(resolved.digest, image.digest, JSON.stringify(fault));
    t.equal(resolved.mediaType, "application/vnd.oci.image.manifest.v1+json");
    t.equal(registry.requests.length, 2, "one HEAD, one GET");
  }
  registry.faults.set([
    { match: { kind: "manifest" }, headers: { "content-type": "text/plain; charset=utf-8" } },
  ]);
  t.equal(
    (await upstream.manifest(repository, "v1")).descriptor.mediaType,
    "application/vnd.oci.image.manifest.v1+json",
    "the document says what it is",
  );
});

void t.test(
  "a dead registry costs the first requests their tries, the others nothing, until it answers",
  async (t) => {
    const { registry, image, repository } = await setup(t);
    const link = await startShapedLink({ target: { host: "127.0.0.1", port: registry.port } });
    t.teardown(() => link.close());
    const { upstream, prom } = clientOf(
      t,
      { [NAME]: { url: `http://127.0.0.1:${link.port}` } },
      { breaker: { refusedMs: 100 } },
    );
    t.equal(upstream.reachable(NAME), true, "nobody asked yet");
    await upstream.resolve(repository, "v1");
    await link.kill();
    await t.rejects(upstream.resolve(repository, "v1"), { code: "UNREACHABLE" });
    t.equal(upstream.reachable(NAME), false);
    t.match(upstream.status(), [{ registry: NAME, state: "unreachable" }]);
    const asked = (): Promise<number> =>
      valueOf(prom, "p2p_mirror_upstream_requests_total", {
        registry: NAME,
        kind: "manifest",
        outcome: "UNREACHABLE",
      });
    const before = await asked();
    t.ok(before >= 3, "each try counts");
    await Promise.all(
      Array.from({ length: 50 }, () =>
        t.rejects(upstream.resolve(repository, "v1"), { code: "UNREACHABLE", temporary: true }),
      ),
    );
    t.ok((await asked()) - before <= 3, "fifty requests fail at once, all but one that looks after it");
    await link.restore();
    const resolved = await until("it is found again by itself", () => upstream.resolve(repository, "v1"));
    t.equal(resolved.digest, image.digest);
    t.equal(upstream.reachable(NAME), true);
  },
);

void t.test("a registry that went silent costs one deadline, not one per request", async (t) => {
  const { upstream, repository, registry, metric } = await setup(t);
  await upstream.resolve(repository, "v1");
  registry.faults.add({ silent: true });
  await t.rejects(upstream.resolve(repository, "v1"), { code: "NO_FIRST_BYTE" });
  const before = performance.now();
  await t.rejects(upstream.resolve(repository, "v1"), { code: "UNREACHABLE" });
  t.ok(performance.now() - before < 100);
  t.equal(await metric("p2p_mirror_upstream_breaker_trips_total", { registry: NAME }), 1);
});

void t.test("a slow answer to one does not close the registry for those who are answered", async (t) => {
  const { upstream, image, repository, registry } = await setup(t);
  registry.faults.add({ match: { path: "manifests/slow" }, silent: true });
  const slow = t.rejects(upstream.resolve(repository, "slow"), { code: "NO_FIRST_BYTE" });
  const end = performance.now() + 300;
  while (performance.now() < end) {
    t.equal((await upstream.resolve(repository, "v1")).digest, image.digest, "answered meanwhile");
  }
  await slow;
  t.equal(upstream.reachable(NAME), true);
});

void t.test("whoever leaves gets the own reason back, and upstream is let go of", async (t) => {
  const { upstream, image, repository, registry } = await setup(t, { layerSizes: LAYERS });
  const layer = image.layers[0]?.digest ?? image.digest;
  registry.faults.set([{ silent: true }]);
  const leaving = new AbortController();
  const waiting = upstream.resolve(repository, "v1", { signal: leaving.signal });
  leaving.abort(new Error("the client left"));
  await t.rejects(waiting, { message: "the client left" });

  registry.faults.set([{ match: { kind: "blob" }, stallAfter: 100_000 }]);
  const reading = new AbortController();
  const { body } = await upstream.blob(repository, layer, undefined, { signal: reading.signal });
  body.resume();
  const failed = once(body, "error");
  reading.abort(new Error("enough"));
  const [error] = await failed;
  t.match(error, { message: "enough" });
  t.notOk(error instanceof SourceError, "nobody's fault but the reader's");
  t.equal(upstream.reachable(NAME), true);
});

void t.test("close ends what is under way, and leaves nothing open", async (t) => {
  const { upstream, image, repository, registry } = await setup(t, { layerSizes: LAYERS });
  const layer = image.layers[0]?.digest ?? image.digest;
  registry.faults.set([
    { match: { kind: "blob" }, stallAfter: 100_000 },
    { match: { kind: "tags" }, silent: true },
  ]);
  const { body } = await upstream.blob(repository, layer, undefined);
  const blob = t.rejects(buffer(body), { code: "CUT" });
  const tags = t.rejects(upstream.tags(repository, {}), { name: "AbortError" });
  await upstream.close();
  await Promise.all([blob, tags]);
  await t.rejects(
    upstream.resolve(repository, "v1"),
    { name: /AbortError|SourceError/ },
    "nothing new begins",
  );
});
