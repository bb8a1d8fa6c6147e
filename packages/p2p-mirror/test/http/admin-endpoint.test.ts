import { connect, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import t, { type Test } from "tap";
import { Counter, Registry } from "prom-client";
import { request } from "undici";
import { createLogger } from "@p2p-mirror/shared";
import { createAdminEndpoint, type AdminEndpointDeps } from "../../src/http/admin-endpoint.ts";
import { until } from "../../../../test/rig/until.ts";
import { LogLines } from "./support/endpoint.ts";

async function startAdmin(t: Test, deps: Partial<AdminEndpointDeps> = {}) {
  const log = new LogLines();
  const admin = createAdminEndpoint(
    { listen: { host: "127.0.0.1", port: 0 } },
    {
      registry: new Registry(),
      ready: () => true,
      status: async () => ({}),
      logger: createLogger("debug", log),
      ...deps,
    },
  );
  await admin.start(new AbortController().signal);
  t.teardown(() => admin.close());
  const get = async (path: string) => {
    const { statusCode, headers, body } = await request(`${admin.url}${path}`);
    return { status: statusCode, type: headers["content-type"], text: await body.text() };
  };
  return { admin, get, log };
}

await t.test("livez is yes while the process answers; readyz says what is missing", async (t) => {
  let ready: boolean | { ready: boolean; reasons: string[] } = true;
  const { get } = await startAdmin(t, { ready: () => ready });
  t.match(await get("/livez"), { status: 200, text: "ok\n" });
  t.match(await get("/readyz"), { status: 200 });
  ready = false;
  t.match(await get("/readyz"), { status: 503 });
  ready = { ready: false, reasons: ["the cache is being opened"] };
  const answer = await get("/readyz");
  t.equal(answer.status, 503);
  t.same(JSON.parse(answer.text), ready);
  t.match(await get("/livez"), { status: 200 }, "not ready is not dead");
});

await t.test("metrics are those of the injected registry, in prometheus' text form", async (t) => {
  const registry = new Registry();
  new Counter({ name: "p2p_mirror_things_total", help: "x", registers: [registry] }).inc(3);
  const { get } = await startAdmin(t, { registry });
  const answer = await get("/metrics");
  t.match(answer, { status: 200, type: /^text\/plain; version=0\.0\.4/ });
  t.match(answer.text, /p2p_mirror_things_total 3/);
});

await t.test("status is JSON; one that fails is a 500 that tells the log and not the client", async (t) => {
  let broken = false;
  const status = async (): Promise<unknown> => {
    if (broken) throw new Error("inner detail");
    return { peers: 3 };
  };
  const { get, log } = await startAdmin(t, { status });
  const answer = await get("/status");
  t.match(answer, { status: 200, type: /^application\/json/ });
  t.same(JSON.parse(answer.text), { peers: 3 });
  broken = true;
  const failed = await get("/status");
  t.equal(failed.status, 500);
  t.notMatch(failed.text, /inner detail/);
  t.match(log.at(50)[0], { err: { message: "inner detail" } });
});

await t.test("everything else is 404, and other methods do nothing", async (t) => {
  const { admin, get } = await startAdmin(t);
  t.equal((await get("/v2/")).status, 404);
  t.equal((await get("/%zz")).status, 400);
  const { statusCode, body } = await request(`${admin.url}/status`, {
    method: "POST",
    body: "x".repeat(5000),
  });
  await body.dump();
  t.ok(statusCode >= 400 && statusCode < 500, String(statusCode));
});

await t.test(
  "who holds connections open gets a bounded number of them, and room is made again",
  async (t) => {
    const { admin, get } = await startAdmin(t);
    const sockets: Socket[] = [];
    t.teardown(() => sockets.forEach((socket) => socket.destroy()));
    let refused = 0;
    for (let n = 0; n < 200; n++) {
      const socket = connect(admin.address.port, admin.address.host).resume();
      socket.on("error", () => undefined).once("close", () => (refused += 1));
      sockets.push(socket);
    }
    await until("the ones too many are closed", () => refused === 200 - 128);
    for (const socket of sockets) socket.destroy();
    await until("others are served again", async () => (await get("/livez")).status === 200);
  },
);

await t.test("it listens on loopback only, and close ends kept connections", async (t) => {
  const { admin, get } = await startAdmin(t);
  await get("/livez");
  const other = Object.values(networkInterfaces())
    .flat()
    .find((one) => one?.family === "IPv4" && !one.internal);
  if (other !== undefined) {
    await t.rejects(request(`http://${other.address}:${admin.address.port}/livez`), { code: "ECONNREFUSED" });
  }
  const from = performance.now();
  await admin.close();
  t.ok(performance.now() - from < 1_000);
});
