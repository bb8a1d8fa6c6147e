import t from "tap";
import { until } from "../../../../test/rig/until.ts";
import { parseRateLimit, parseRetryAfter } from "../../src/upstream/retry-after.ts";
import { NAME, setup } from "./rig.ts";

void t.test("a 429 with Retry-After closes the registry for everybody on this node until then", async (t) => {
  const { upstream, image, repository, registry, metric } = await setup(t);
  registry.faults.add({ match: { kind: "manifest" }, status: 429, retryAfter: "1", times: 1 });
  const askedAt = performance.now();
  await t.rejects(upstream.resolve(repository, "v1"), {
    code: "RATE_LIMITED",
    status: 429,
    retryAfterMs: 1000,
  });
  t.equal(registry.requests.length, 1, "a 429 is never tried again");
  const asked: Promise<unknown>[] = [
    upstream.resolve(repository, "v1"),
    upstream.manifest(repository, image.digest),
    upstream.blob({ ...repository, repository: "another/one" }, image.digest, undefined),
    upstream.tags(repository, {}),
    upstream.isPublic(repository),
  ];
  for (const one of asked) await t.rejects(one, { code: "RATE_LIMITED", temporary: true });
  const left = await upstream.resolve(repository, "v1").catch((error: { retryAfterMs?: number }) => error);
  t.ok("retryAfterMs" in left && (left.retryAfterMs ?? 0) > 0 && (left.retryAfterMs ?? 0) <= 1000);
  t.equal(registry.requests.length, 1, "none of them left this node");
  t.match(upstream.status(), [{ registry: NAME, state: "rate-limited" }]);
  t.equal(upstream.reachable(NAME), true, "it did answer");
  t.equal(await metric("p2p_mirror_upstream_errors_total", { registry: NAME, code: "RATE_LIMITED" }), 7);
  const resolved = await until("it is open again", () => upstream.resolve(repository, "v1"));
  t.equal(resolved.digest, image.digest);
  t.ok(performance.now() - askedAt > 990, "not before its time");
});

void t.test("other registries stay open", async (t) => {
  const limited = await setup(t);
  const other = await setup(t);
  limited.registry.faults.add({ status: 429, retryAfter: "100" });
  await t.rejects(limited.upstream.resolve(limited.repository, "v1"), { code: "RATE_LIMITED" });
  t.equal((await other.upstream.resolve(other.repository, "v1")).digest, other.image.digest);
});

void t.test("a 429 without a time closes for a second, then for two", async (t) => {
  const { upstream, repository, registry } = await setup(t);
  registry.faults.add({ status: 429 });
  await t.rejects(upstream.resolve(repository, "v1"), { code: "RATE_LIMITED", retryAfterMs: 1000 });
  await t.rejects(upstream.resolve(repository, "v1"), { code: "RATE_LIMITED" });
  t.equal(registry.requests.length, 1);
  const error = await until("it is asked again", () =>
    upstream.resolve(repository, "v1").then(
      () => ({ status: 0 }),
      (caught: { status?: number }) => caught.status !== undefined && caught,
    ),
  );
  t.match(error, { status: 429, retryAfterMs: 2000 });
});

void t.test("a 503 with Retry-After closes too; one without is tried again", async (t) => {
  const { upstream, image, repository, registry } = await setup(t);
  registry.faults.set([{ status: 503, times: 1 }]);
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  registry.faults.set([{ status: 503, retryAfter: new Date(Date.now() + 60_000).toUTCString() }]);
  registry.forget();
  await t.rejects(upstream.resolve(repository, "v1"), { code: "STATUS", status: 503 });
  await t.rejects(upstream.resolve(repository, "v1"), { code: "RATE_LIMITED" });
  t.equal(registry.requests.length, 1);
});

void t.test("a token server that limits closes its registry", async (t) => {
  const { upstream, repository, registry } = await setup(t, { registry: { auth: { kind: "token" } } });
  registry.faults.add({ match: { kind: "token" }, status: 429, retryAfter: "30" });
  await t.rejects(upstream.resolve(repository, "v1"), { code: "RATE_LIMITED", retryAfterMs: 30_000 });
  await t.rejects(upstream.resolve(repository, "v1"), { code: "RATE_LIMITED" });
  t.equal(registry.requests.length, 2, "the challenge and the token, nothing after");
});

void t.test("what is left of the limit is a metric and part of the status", async (t) => {
  const { upstream, repository, registry, metric } = await setup(t);
  registry.faults.add({ headers: { "ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600" } });
  await upstream.resolve(repository, "v1");
  t.equal(await metric("p2p_mirror_upstream_rate_limit_requests", { registry: NAME }), 100);
  t.equal(await metric("p2p_mirror_upstream_rate_limit_remaining_requests", { registry: NAME }), 76);
  t.match(upstream.status(), [{ registry: NAME, state: "ok", remaining: 76 }]);
});

void t.test("Retry-After: seconds, or a date by the server's own clock, an hour at most", async (t) => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  const date = "Thu, 01 Jan 2026 05:00:00 GMT";
  t.equal(parseRetryAfter("120", undefined, now), 120_000);
  t.equal(parseRetryAfter(" 0 ", undefined, now), 0);
  t.equal(parseRetryAfter("999999999", undefined, now), 3_600_000);
  t.equal(parseRetryAfter("Thu, 01 Jan 2026 00:00:30 GMT", undefined, now), 30_000);
  t.equal(parseRetryAfter("Thu, 01 Jan 2026 05:00:30 GMT", date, now), 30_000, "clocks of nodes are wrong");
  t.equal(parseRetryAfter("Thu, 01 Jan 2026 04:00:00 GMT", date, now), 0);
  t.equal(parseRetryAfter("soon", undefined, now), undefined);
  t.equal(parseRetryAfter(undefined, undefined, now), undefined);
  t.equal(parseRateLimit("76;w=21600"), 76);
  t.equal(parseRateLimit("5000"), 5000);
  t.equal(parseRateLimit("many"), undefined);
});
