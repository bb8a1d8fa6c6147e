import { once } from "node:events";
import { createServer as createTlsServer } from "node:tls";
import { buffer } from "node:stream/consumers";
import { digestOf } from "@p2p-mirror/shared";
import t from "tap";
import { ProxyRules } from "../../src/upstream/proxy.ts";
import { startConnectProxy } from "./connect-proxy.ts";
import { clientOf, NAME, setup, SHORT } from "./rig.ts";
import { createTestCa } from "./test-ca.ts";

void t.test(
  "a registry behind a private CA is asked only by who knows that CA, or was told not to look",
  async (t) => {
    const ca = await createTestCa();
    const { registry, image, repository, upstream } = await setup(t, {
      registry: { tls: await ca.issue() },
    });
    await t.rejects(upstream.resolve(repository, "v1"), { code: "UNREACHABLE" });
    t.equal(registry.requests.length, 0, "not even a request left");

    const stranger = await createTestCa("another CA");
    const tries = [
      ["its CA", { ca: [ca.cert] }, true],
      ["another CA", { ca: [stranger.cert] }, false],
      ["both", { ca: [stranger.cert, ca.cert] }, true],
      ["no check", { skipVerify: true }, true],
    ] as const;
    for (const [what, config, works] of tries) {
      const client = clientOf(t, { [NAME]: { url: registry.url, ...config } });
      const resolved = client.upstream.resolve(repository, "v1");
      if (works) t.equal((await resolved).digest, image.digest, what);
      else await t.rejects(resolved, { code: "UNREACHABLE" }, what);
    }
  },
);

void t.test("a certificate that is not trusted is tried once, not three times", async (t) => {
  const ca = await createTestCa();
  const { upstream, repository, metric } = await setup(t, { registry: { tls: await ca.issue() } });
  await t.rejects(upstream.resolve(repository, "v1"), { code: "UNREACHABLE" });
  t.equal(await metric("p2p_mirror_upstream_retries_total", { registry: NAME }), 0);
});

void t.test("redirects and the token server are reached by the CA of their registry", async (t) => {
  const ca = await createTestCa();
  const { upstream, image, repository } = await setup(t, {
    registry: { tls: await ca.issue(), auth: { kind: "token" }, redirectBlobs: { lifeMs: 60_000 } },
    config: { ca: [ca.cert] },
  });
  const layer = image.layers[0]?.digest ?? image.digest;
  const { body } = await upstream.blob(repository, layer, undefined);
  t.equal(digestOf(await buffer(body)), layer);
});

void t.test("a client certificate is shown, and never when asking as nobody", async (t) => {
  const ca = await createTestCa();
  const shown: boolean[] = [];
  const server = createTlsServer(
    { ...(await ca.issue()), ca: [ca.cert], requestCert: true, rejectUnauthorized: false },
    (socket) => {
      shown.push(socket.authorized);
      socket.on("error", () => undefined);
      socket.on("data", () => socket.end("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"));
    },
  );
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(() => void server.close());
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("no port");
  const { upstream } = clientOf(t, {
    [NAME]: {
      url: `https://127.0.0.1:${address.port}`,
      ca: [ca.cert],
      clientCert: await ca.issue("node"),
    },
  });
  const repository = { registry: NAME, repository: "team/app" };
  await t.rejects(upstream.resolve(repository, "v1"), { code: "MANIFEST_UNKNOWN" });
  t.same(shown, [true]);
  t.equal(await upstream.isPublic(repository, { probe: { manifest: "v1" } }), false);
  t.same(shown, [true, false, false], "the verdict was asked for without it");
});

void t.test(
  "https goes through the proxy by CONNECT, with the proxy's login and not the registry's",
  async (t) => {
    const ca = await createTestCa();
    const { registry, image, repository } = await setup(t, {
      registry: { tls: await ca.issue("registry.internal.test") },
    });
    const proxy = await startConnectProxy(t, registry);
    const httpsProxy = proxy.url.replace("//", "//proxy-user:proxy-password@");
    const { upstream } = clientOf(
      t,
      { [NAME]: { url: `https://registry.internal.test:${registry.port}`, ca: [ca.cert] } },
      { proxy: { httpsProxy } },
    );
    t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
    const login = `Basic ${Buffer.from("proxy-user:proxy-password").toString("base64")}`;
    t.same(proxy.seen, [{ line: `CONNECT registry.internal.test:${registry.port}`, authorization: login }]);
    t.notOk(
      registry.requests.some((request) => request.headers["proxy-authorization"] !== undefined),
      "the registry never sees the proxy's login",
    );
  },
);

void t.test("http goes through the proxy too, blobs byte for byte", async (t) => {
  const { registry, image, repository } = await setup(t);
  const proxy = await startConnectProxy(t, registry);
  const { upstream } = clientOf(
    t,
    { [NAME]: { url: `http://registry.internal.test:${registry.port}` } },
    { proxy: { httpProxy: proxy.url } },
  );
  const layer = image.layers[0]?.digest ?? image.digest;
  const { body } = await upstream.blob(repository, layer, { start: 0, end: 300_000 });
  t.equal((await buffer(body)).length, 300_000);
  t.ok(proxy.seen.length > 0, "it went through the proxy");
});

void t.test("a proxy that accepts and says nothing costs the connect deadline, not minutes", async (t) => {
  const silent = createTlsServer({});
  silent.removeAllListeners("connection");
  silent.listen(0, "127.0.0.1");
  await once(silent, "listening");
  t.teardown(() => void silent.close());
  const address = silent.address();
  if (typeof address !== "object" || address === null) throw new Error("no port");
  const { upstream } = clientOf(
    t,
    { [NAME]: { url: "https://registry.internal.test" } },
    {
      proxy: { httpsProxy: `http://127.0.0.1:${address.port}` },
      timeouts: { ...SHORT, connectMs: 300 },
      retry: { retries: 0 },
    },
  );
  const before = performance.now();
  await t.rejects(upstream.resolve({ registry: NAME, repository: "a" }, "v1"), {
    name: "SourceError",
    code: /UNREACHABLE|NO_FIRST_BYTE/,
  });
  t.ok(performance.now() - before < 3000, `after ${Math.round(performance.now() - before)} ms`);
});

void t.test("which proxy: as Go's programs on the same node have it", async (t) => {
  const rules = new ProxyRules({
    httpProxy: "proxy.test:3128",
    httpsProxy: "http://secure.test:3128",
    noProxy:
      "exact.test, .below.test,*.star.test:8443 10.0.0.0/8,192.168.1.7,fd00::/8,[2001:db8::1]:443,bad/99",
  });
  const cases = [
    ["https://elsewhere.test/", "http://secure.test:3128"],
    ["http://elsewhere.test/", "http://proxy.test:3128"],
    ["https://exact.test/", undefined],
    ["https://sub.exact.test/", undefined],
    ["https://inexact.test/", "http://secure.test:3128"],
    ["https://below.test/", "http://secure.test:3128"],
    ["https://a.below.test/", undefined],
    ["https://a.star.test:8443/", undefined],
    ["https://a.star.test/", "http://secure.test:3128"],
    ["https://10.1.2.3:5000/", undefined],
    ["https://11.1.2.3/", "http://secure.test:3128"],
    ["http://192.168.1.7/", undefined],
    ["https://[fd00::1]/", undefined],
    ["https://[2001:db8::1]/", undefined],
    ["https://[2001:db8::2]/", "http://secure.test:3128"],
    ["http://localhost:5000/", undefined],
    ["http://127.0.0.1:5000/", undefined],
    ["http://[::1]:5000/", undefined],
  ] as const;
  for (const [url, proxy] of cases) t.equal(rules.proxyFor(new URL(url)), proxy, url);
  t.equal(new ProxyRules({ httpsProxy: "x:1", noProxy: "*" }).proxyFor(new URL("https://a.test")), undefined);
  t.equal(new ProxyRules({}).proxyFor(new URL("https://a.test")), undefined);
});
