import { buffer } from "node:stream/consumers";
import { NotFoundError, SourceError } from "@p2p-mirror/shared";
import t, { type Test } from "tap";
import {
  buildImage,
  startOciRegistry,
  type OciRegistry,
  type OciRegistryOptions,
} from "../../../../test/rig/oci-registry.ts";
import type { RegistryHost } from "../../src/upstream/registry-config.ts";
import { clientOf, NAME, valueOf } from "./rig.ts";
import { createTestCa } from "./test-ca.ts";

const repository = { registry: NAME, repository: "team/app" };
const image = buildImage({ repository: "team/app", tag: "v1", seed: "hosts", layerSizes: [2000] });
const other = buildImage({ repository: "team/app", tag: "v1", seed: "another", layerSizes: [10] });
const layer = image.layers[0]?.digest ?? image.digest;

async function registryOf(t: Test, options: OciRegistryOptions = {}, content = image): Promise<OciRegistry> {
  const registry = await startOciRegistry(options);
  t.teardown(() => registry.close());
  registry.push(content);
  return registry;
}

const host = (registry: Pick<OciRegistry, "url">, more: Partial<RegistryHost> = {}): RegistryHost => ({
  url: registry.url,
  resolves: true,
  pulls: true,
  ...more,
});

/** A client of a registry that hosts.toml lists these hosts for. */
const listed = (t: Test, ...hosts: readonly RegistryHost[]): ReturnType<typeof clientOf> =>
  clientOf(t, {}, { hosts: { of: () => hosts } });

const pathsOf = (registry: OciRegistry): string[] =>
  registry.requests.map(({ method, path }) => `${method} ${path}`);

void t.test("the hosts are asked in their order, each told whose content is meant", async (t) => {
  const [first, second] = [await registryOf(t), await registryOf(t)];
  const { upstream } = listed(t, host(first), host(second));
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  const { body } = await upstream.blob(repository, layer, undefined);
  t.equal((await buffer(body)).length, image.layers[0]?.size);
  t.same(pathsOf(first), [
    `HEAD /v2/team/app/manifests/v1?ns=${NAME}`,
    `GET /v2/team/app/blobs/${layer}?ns=${NAME}`,
  ]);
  t.ok(
    first.requests.every(({ headers }) => headers["via"] === "1.1 p2p-mirror"),
    "a host that is a mirror itself must know that a mirror asks",
  );
  t.equal(second.requests.length, 0);
});

void t.test("whatever one host fails with, the next is asked, at once", async (t) => {
  const faults = [
    { status: 404 },
    { status: 401 },
    { status: 403 },
    { status: 429, retryAfter: "30" },
    { status: 500 },
    { status: 503 },
    { silent: true },
    { body: "<html>", status: 200, headers: { "content-type": "text/html" } },
  ];
  for (const fault of faults) {
    const first = await registryOf(t, { faults: [fault] });
    const second = await registryOf(t);
    const { upstream } = listed(t, host(first), host(second));
    const what = JSON.stringify(fault);
    t.equal((await upstream.resolve(repository, "v1")).digest, image.digest, what);
    t.ok(first.requests.length <= 2, `${what}: ${first.requests.length} requests, none of them a retry`);
    t.equal((await upstream.manifest(repository, image.digest)).descriptor.digest, image.digest, what);
    if (fault.status === 200) continue;
    t.equal(await upstream.blobSize(repository, layer), image.layers[0]?.size, what);
    t.equal(await upstream.isPublic(repository, { probe: { manifest: "v1" } }), true, what);
  }
  const gone = await registryOf(t);
  await gone.close();
  const last = await registryOf(t);
  const { upstream } = listed(t, host(gone), host(last));
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest, "nobody listens there");
});

void t.test("a manifest with other bytes than its digest says is got from the next", async (t) => {
  const liar = await registryOf(t, { faults: [{ match: { kind: "manifest" }, corruptAt: 3 }] });
  const { upstream } = listed(t, host(liar), host(await registryOf(t)));
  t.equal((await upstream.manifest(repository, image.digest)).descriptor.digest, image.digest);
});

void t.test("when all fail, the last one's word counts", async (t) => {
  const dead = (): Promise<OciRegistry> => registryOf(t, { faults: [{ status: 503 }] });
  const without = (): Promise<OciRegistry> => registryOf(t, { faults: [{ status: 404 }] });
  const gone = listed(t, host(await dead()), host(await without()));
  await t.rejects(gone.upstream.resolve(repository, "v1"), NotFoundError);
  t.equal(await gone.upstream.isPublic(repository, { probe: { manifest: "v1" } }), false);
  const away = listed(t, host(await without()), host(await dead()));
  await t.rejects(away.upstream.resolve(repository, "v1"), SourceError);
  await t.rejects(away.upstream.isPublic(repository, { probe: { manifest: "v1" } }), SourceError);
});

void t.test("a request that was taken back asks nobody else", async (t) => {
  const first = await registryOf(t, { faults: [{ silent: true }] });
  const second = await registryOf(t);
  const { upstream } = listed(t, host(first), host(second));
  const abort = new AbortController();
  const asked = upstream.resolve(repository, "v1", { signal: abort.signal });
  abort.abort(new DOMException("gone", "AbortError"));
  await t.rejects(asked, { name: "AbortError" });
  t.equal(second.requests.length, 0);
});

void t.test("a host is asked for what it is there for", async (t) => {
  const [puller, resolver] = [await registryOf(t, {}, other), await registryOf(t)];
  const { upstream } = listed(t, host(puller, { resolves: false }), host(resolver, { pulls: false }));
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest, "what the tag means");
  t.equal((await upstream.manifest(repository, "v1")).descriptor.digest, image.digest);
  await t.rejects(upstream.manifest(repository, image.digest), NotFoundError);
  t.equal(await upstream.isPublic(repository, { probe: { manifest: "v1" } }), true);
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  t.ok(pathsOf(puller).every((path) => !path.includes("/v1")));

  const none = listed(t, host(puller, { resolves: false, pulls: false }));
  await t.rejects(none.upstream.resolve(repository, "v1"), NotFoundError);
});

void t.test("where nobody may be asked, nobody is, and all is declined at once as not there", async (t) => {
  const own = await registryOf(t);
  const asked = { registry: new URL(own.url).host, repository: "team/app" };
  let now: readonly RegistryHost[] = [host(own)];
  const { upstream } = clientOf(t, {}, { hosts: { of: () => now } });
  const isPublic = (): Promise<boolean> => upstream.isPublic(asked, { probe: { blob: layer } });
  t.equal(await isPublic(), true);
  own.forget();
  now = [];
  const asks: Readonly<Record<string, () => Promise<unknown>>> = {
    tag: () => upstream.resolve(asked, "v1"),
    manifest: () => upstream.manifest(asked, image.digest),
    size: () => upstream.blobSize(asked, layer),
    blob: () => upstream.blob(asked, layer, undefined),
    tags: () => upstream.tags(asked, {}),
    referrers: () => upstream.referrers(asked, image.digest, {}),
    "whether it is public, though it just was": isPublic,
  };
  for (const [what, ask] of Object.entries(asks)) await t.rejects(ask(), NotFoundError, what);
  t.same(own.requests, []);
  t.equal(upstream.reachable(asked.registry), true, "nobody was found unreachable");
  t.same(upstream.status(), []);
  now = [host(own)];
  t.equal(await isPublic(), true, "no other verdict was kept");
  const told = clientOf(t, { [NAME]: { url: own.url } }, { hosts: { of: () => [] } });
  t.equal((await told.upstream.resolve(repository, "v1")).digest, image.digest, "but whom its settings name");
});

void t.test("each host has its own CA, client certificate, headers and path", async (t) => {
  const ca = await createTestCa();
  const strict = await registryOf(t, { tls: { ...(await ca.issue()), clientCa: ca.cert } });
  const wanting = await registryOf(t, {
    basePath: "/v2/cache",
    faults: [{ match: { without: "x-key" }, status: 403 }],
  });
  const clientCert = await ca.issue("node");
  const headers = { "x-key": ["secret"] };
  const cases: readonly [string, RegistryHost, OciRegistry | undefined][] = [
    ["CA and client certificate", host(strict, { ca: [ca.cert], clientCert }), strict],
    [
      "a client certificate, and no check of the other side",
      host(strict, { skipVerify: true, clientCert }),
      strict,
    ],
    ["no client certificate", host(strict, { ca: [ca.cert] }), undefined],
    ["no CA", host(strict, { clientCert }), undefined],
    [
      "headers, and the path as it is",
      host({ url: `${wanting.url}/v2/cache` }, { overridePath: true, headers }),
      wanting,
    ],
    ["the path, and no header", host({ url: `${wanting.url}/v2/cache` }, { overridePath: true }), undefined],
    ["headers, and /v2 behind the path", host({ url: `${wanting.url}/v2/cache` }, { headers }), undefined],
  ];
  for (const [what, first, expected] of cases) {
    const last = await registryOf(t);
    const { upstream } = listed(t, first, host(last));
    strict.forget();
    wanting.forget();
    t.equal((await upstream.resolve(repository, "v1")).digest, image.digest, what);
    t.equal(await upstream.blobSize(repository, layer), image.layers[0]?.size, what);
    t.equal(last.requests.length === 0, expected !== undefined, `${what}: who was asked`);
    if (expected !== undefined) t.equal(expected.requests.length, 2, what);
    t.notOk(
      last.requests.some(({ headers: sent }) => "x-key" in sent),
      "nobody gets the other's headers",
    );
  }
});

void t.test("what an administrator's key opens is not public", async (t) => {
  const ca = await createTestCa();
  const strict = await registryOf(t, { tls: { ...(await ca.issue()), clientCa: ca.cert } });
  const wanting = await registryOf(t, { faults: [{ match: { without: "x-key" }, status: 403 }] });
  const { upstream } = listed(
    t,
    host(strict, { ca: [ca.cert], clientCert: await ca.issue("node") }),
    host(wanting, { headers: { "x-key": "secret" } }),
  );
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  t.equal(await upstream.isPublic(repository, { probe: { manifest: "v1" } }), false);
});

void t.test("each host has its own token", async (t) => {
  const hosts = [
    await registryOf(t, { auth: { kind: "token" } }),
    await registryOf(t, { auth: { kind: "token" } }),
  ];
  const { upstream } = listed(t, ...hosts.map((one) => host(one)));
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  hosts[0]?.faults.add({ match: { kind: "blob" }, status: 404 });
  t.equal(await upstream.blobSize(repository, layer), image.layers[0]?.size);
  const [first, second] = hosts.map((one) => new Set(one.requests.map(({ authorization }) => authorization)));
  t.ok([...(first ?? [])].every((one) => one === undefined || second?.has(one) === false));
});

void t.test("the mirror's own settings count before what is listed, if they say where", async (t) => {
  const [mine, theirs] = [await registryOf(t, {}, other), await registryOf(t)];
  const hosts = { of: () => [host(theirs)] };
  const told = clientOf(t, { [NAME]: { url: mine.url } }, { hosts });
  t.equal((await told.upstream.resolve(repository, "v1")).digest, other.digest);
  const untold = clientOf(
    t,
    { [NAME]: { url: undefined, ca: [], headers: {}, skipVerify: false } },
    { hosts },
  );
  t.equal((await untold.upstream.resolve(repository, "v1")).digest, image.digest);
});

void t.test("another list counts from the next request on", async (t) => {
  const [before, after] = [await registryOf(t), await registryOf(t, {}, other)];
  let now = [host(before)];
  const { upstream } = clientOf(t, {}, { hosts: { of: () => now } });
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  now = [host(after)];
  t.equal((await upstream.resolve(repository, "v1")).digest, other.digest);
});

void t.test("a registry is reachable as long as one of its hosts is", async (t) => {
  const [first, second] = [await registryOf(t), await registryOf(t)];
  const { upstream, prom } = listed(t, host(first), host(second));
  const metric = (): Promise<number> => valueOf(prom, "p2p_mirror_upstream_reachable", { registry: NAME });
  const ask = (): Promise<unknown> => upstream.resolve(repository, "v1").catch((error: unknown) => error);
  await first.close();
  for (let round = 0; round < 4; round += 1) await ask();
  t.equal(upstream.reachable(NAME), true);
  t.equal(await metric(), 1);
  t.match(upstream.status(), [
    { registry: NAME, host: first.url, state: "unreachable" },
    { registry: NAME, host: second.url, state: "ok" },
  ]);
  await second.close();
  for (let round = 0; round < 4; round += 1) await ask();
  t.equal(upstream.reachable(NAME), false);
  t.equal(await metric(), 0);
});

void t.test("a host that is listed twice is told of once", async (t) => {
  const only = await registryOf(t);
  const { upstream } = listed(t, host(only), host(only));
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  t.match(upstream.status(), [{ registry: NAME, host: only.url, state: "ok" }]);
  t.equal(upstream.status().length, 1);
});
