import { createServer, type RequestListener } from "node:http";
import t, { type Test } from "tap";
import { formatAge, formatBytes, plain, shortDigest, shortId } from "../../src/cli/format.ts";
import { isMirrorStatus } from "../../src/status-shape.ts";
import type { DoctorReport, Finding } from "../../src/status.ts";
import { DIGEST, DOCTOR, STATUS } from "./full-status.ts";
import { run } from "./terminal.ts";

/** An HTTP server for one test; resolves with its URL. */
async function serve(t: Test, handler: RequestListener): Promise<string> {
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no address");
  return `http://127.0.0.1:${address.port}`;
}

const answering = (t: Test, body: unknown, status = 200): Promise<string> =>
  serve(t, (request, response) => {
    response.writeHead(request.url === "/status" ? status : 404, { "content-type": "application/json" });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  });

await t.test("status shows the node and a table of each kind", async (t) => {
  const url = await answering(t, { ...STATUS, doctor: DOCTOR });
  const { exitCode, stdout } = await run(["status", "--admin", url]);
  t.equal(exitCode, 0);
  t.match(stdout, /^node 12D3KooWexample\nready, version 0.1.0, up \d+ d\n/);
  t.match(stdout, /peers reach it at 10.0.0.1:24221; access public; containerd connected; zone eu-2\n/);
  t.match(stdout, /cache 1.0 GiB of 20.0 GiB in 7 blobs, 50.0 GiB free/);
  t.match(
    stdout,
    /^PEER +ADDRESS +ZONE +LATENCY +STATE +VERSION\n12D3KooWa +10.0.0.2:24221 +eu-1 +3 ms +up +0.1.0\n12D3KooWb +10.0.0.3:24221 +broken\n/m,
  );
  t.match(
    stdout,
    /^_default +first +http:\/\/127.0.0.1:24220, the registry itself\nghcr.io +no +hosts.toml is no TOML\n/m,
  );
  t.ok(
    stdout.includes(
      [
        "sha256:abababababab [===============               ]  50% of 2.0 KiB, 2 readers",
        "  from upstream 900 B (1 at work); from peers 300 B (2 at work)",
        "  coordinated by this node, 3 members; 2 neighbours; 1 lease of 512 B\n",
      ].join("\n"),
    ),
    stdout,
  );
  t.match(
    stdout,
    /^docker.io +rate-limited +0 +2026-01-01T00:05:00.000Z\nghcr.io +unreachable +2026-01-01T00:06:00.000Z +ENOTFOUND\n/m,
  );
  t.ok(
    stdout.includes(
      [
        "broken: containerd has no config_path [config-path]",
        "  why it matters: pulls go past the mirror",
        "  what to do: set it",
        "",
        "warning: the disk is nearly full [disk]",
        "  why it matters: the cache gives up images sooner",
        "  what to do: give it room:",
        "    cache.max_size: 10GiB\n",
      ].join("\n"),
    ),
    stdout,
  );
  t.match(stdout, /^IMAGE +DIGEST +SIZE +RESOLVED\ndocker.io\/library\/nginx:1.27 +sha256:ab/m);
  t.notOk(stdout.includes("\u001B"), "no colours");
});

await t.test("limits are shown where there are any", async (t) => {
  const shown = async (limits: unknown): Promise<string> =>
    (await run(["status", "--admin", await answering(t, { ...STATUS, limits })])).stdout;
  t.notMatch(await shown({}), /limits/);
  const out = { bytesPerSecond: 50 * 1024 ** 2, held: 0 };
  t.match(
    await shown({ upstream: { bytesPerSecond: 1024 ** 2, held: 3 }, out }),
    /^limits: upstream 1.0 MiB\/s \(3 waiting\), out 50.0 MiB\/s$/m,
  );
});

await t.test("of a flight it is said who coordinates, or that nobody does", async (t) => {
  const [flight] = STATUS.flights;
  const { swarm: first, ...without } = flight ?? {};
  const swarm = { ...first, coordinator: undefined, neighbours: [], leases: [] };
  const shown = async (one: unknown): Promise<string> => {
    const url = await answering(t, { ...STATUS, flights: [{ ...without, swarm: one }] });
    return (await run(["status", "--admin", url])).stdout;
  };
  const other = { id: `12D3KooW${"x".repeat(36)}abcdefgh`, self: false };
  t.match(
    await shown({ ...swarm, coordinator: other }),
    /^ {2}coordinated by …abcdefgh; 0 neighbours; no lease$/m,
  );
  t.match(await shown({ ...swarm, alone: true }), /^ {2}nobody coordinates; /m);
  t.match(await shown(swarm), /^ {2}looking for the coordinator; /m);
  t.notMatch(await shown(undefined), /coordinat/);
});

await t.test("a flight is at 100 % with its last byte, not before", async (t) => {
  const flights = [1023, 1024, 5000].map((received) => ({ ...STATUS.flights[0], size: 1024, received }));
  const { stdout } = await run([
    "status",
    "--admin",
    await answering(t, { ...STATUS, flights: [...flights, { ...STATUS.flights[0], size: 0, received: 0 }] }),
  ]);
  t.same(stdout.match(/\[=* *\] +\d+%/g), [
    `[${"=".repeat(29)} ]  99%`,
    ...Array.from({ length: 3 }, () => `[${"=".repeat(30)}] 100%`),
  ]);
});

await t.test("peers whose hashes were refuted are named", async (t) => {
  const banned = ["12D3KooWliar", "12D3KooW\u001B[2Jodd"];
  const { stdout } = await run(["status", "--admin", await answering(t, { ...STATUS, swarm: { banned } })]);
  t.match(stdout, /\nSIGNED WRONG HASHES, NOT BELIEVED ANY MORE\n12D3KooWliar\n12D3KooW\?\[2Jodd\n$/);
});

const finding = (severity: Finding["severity"], what: string): Finding => {
  return { check: "disk", severity, what, why: "", fix: "" };
};

await t.test("what the doctor found is named, and what leads to nobody", async (t) => {
  const doctor: DoctorReport = {
    checkedAt: "2026-01-01T00:00:00.000Z",
    skipped: [],
    findings: [finding("warning", "the disk is nearly full"), finding("broken", "no containerd")],
  };
  const bootstrap = [{ address: "10.0.0.9:24222", reason: "refused" }];
  const url = await answering(t, { ...STATUS, doctor, bootstrap });
  const { stdout } = await run(["status", "--admin", url]);
  t.match(stdout, /^broken: no containerd [^]*^warning: the disk is nearly full /m);
  t.match(stdout, /^bootstrap 10.0.0.9:24222 leads nowhere: refused\n/m);
});

await t.test("of many images the newest are shown", async (t) => {
  const images = Array.from({ length: 25 }, (_, nth) => ({
    reference: `r.example/image:${nth}`,
    digest: DIGEST,
    mediaType: "x",
    resolvedAt: new Date(Date.UTC(2026, 0, 1 + nth)).toISOString(),
  }));
  const { stdout } = await run(["status", "--admin", await answering(t, { ...STATUS, images })]);
  t.match(stdout, /RESOLVED\nr.example\/image:24 [^\n]*\nr.example\/image:23 /);
  t.equal(stdout.match(/^r.example\/image:/gm)?.length, 10);
  t.match(stdout, /\nand 15 more; p2p-mirror ls has them\n/);
});

await t.test("what is empty is said to be", async (t) => {
  const lone = { ...STATUS, peers: [], flights: [], upstreams: [], hosts: [], images: [] };
  const url = await answering(t, lone);
  t.match(
    (await run(["status", "--admin", url])).stdout,
    /no peers\n\nno flights\n\nno upstreams\n\nno images\n$/,
  );
  t.equal((await run(["ls", "--admin", url])).stdout, "no images\n");
});

await t.test("ls lists what is held, by tag", async (t) => {
  const { exitCode, stdout } = await run(["ls", "--admin", await answering(t, STATUS)]);
  t.equal(exitCode, 0);
  t.match(stdout, /^IMAGE +DIGEST +SIZE +RESOLVED\n/);
  t.match(
    stdout,
    /\ndocker.io\/library\/nginx:1.27 +sha256:abababababab +70.0 MiB +\d+ d\nghcr.io\/a\/b:v1 +sha256/,
  );
});

await t.test("--json is what the endpoint said", async (t) => {
  const url = await answering(t, STATUS);
  t.same(JSON.parse((await run(["status", "--json", "--admin", url])).stdout), STATUS);
  t.same(JSON.parse((await run(["ls", "--json", "--admin", url])).stdout), STATUS.images);
});

await t.test("the endpoint is found by flag, variable, settings and default, in this order", async (t) => {
  const url = await answering(t, STATUS);
  const address = url.slice("http://".length);
  const dir = t.testdir({
    "mirror.yaml": `admin_listen: ${address}\ncluster_secret_file: [/not/readable]\nregistries: {a: {ca: [/no/file]}}\n`,
  });
  const wrong = "http://127.0.0.1:1";
  const cases: [string[], Record<string, string>][] = [
    [["--admin", `${url}/`], { P2P_MIRROR_ADMIN: wrong }],
    [[], { P2P_MIRROR_ADMIN: url, P2P_MIRROR_ADMIN_LISTEN: "127.0.0.1:1" }],
    [[], { P2P_MIRROR_ADMIN_LISTEN: address }],
    [[], { P2P_MIRROR_ADMIN_LISTEN: `0.0.0.0:${address.split(":")[1]}` }],
    [["--config", `${dir}/mirror.yaml`], {}],
    [[], { P2P_MIRROR_CONFIG: `${dir}/mirror.yaml` }],
  ];
  for (const [args, env] of cases) {
    t.equal(
      (await run(["status", ...args], { env })).exitCode,
      0,
      `${args.join(" ")} ${JSON.stringify(env)}`,
    );
  }
  const chosen = await run(["ls"], { env: { P2P_MIRROR_ADMIN_LISTEN: ":0" } });
  t.equal(chosen.exitCode, 2);
  t.match(
    chosen.stderr,
    /P2P_MIRROR_ADMIN_LISTEN: ":0" is not valid: the port is chosen at each start; give --admin URL/,
  );
});

await t.test("no mirror, or something else there, is one line that says what to do", async (t) => {
  const refused = await run(["status", "--admin", "http://127.0.0.1:1"]);
  t.equal(refused.exitCode, 1);
  t.match(refused.stderr, /^p2p-mirror: no mirror answers at http:\/\/127.0.0.1:1; start one .*\n$/);
  const strangers: [unknown, number][] = [
    ["<html>", 200],
    [{ hello: 1 }, 200],
    [[], 200],
    [{ ...STATUS, peers: [{ id: 1 }] }, 200],
    [{ ...STATUS, node: undefined }, 200],
    [{ ...STATUS, flights: [{ ...STATUS.flights[0], sources: ["peer"] }] }, 200],
    [{ ...STATUS, flights: [{ ...STATUS.flights[0], swarm: {} }] }, 200],
    ["", 404],
    ["", 500],
  ];
  for (const [body, status] of strangers) {
    const { exitCode, stderr } = await run(["status", "--admin", await answering(t, body, status)]);
    t.equal(exitCode, 1);
    t.match(stderr, /^p2p-mirror: what answers at http:\/\/127.0.0.1:\d+ is no admin endpoint .*\n$/);
  }
  const early = await run(["ls", "--admin", await answering(t, {})]);
  t.match(early, { exitCode: 1, stderr: /is starting; ask again in a moment\n$/ });
});

await t.test("a signal ends a command that waits", async (t) => {
  const controller = new AbortController();
  const url = await serve(t, () => controller.abort(new DOMException("received SIGINT", "AbortError")));
  const { exitCode, stderr } = await run(["status", "--admin", url], { signal: controller.signal });
  t.equal(exitCode, 1);
  t.equal(stderr, "p2p-mirror: received SIGINT\n");
});

await t.test("names from outside cannot steer the terminal", async (t) => {
  const hostile = { ...STATUS, images: [{ ...STATUS.images[0], reference: "a\u001B[2J\nb" }] };
  const { stdout } = await run(["ls", "--admin", await answering(t, hostile)]);
  t.match(stdout, /\na\?\[2J\?b /);
});

await t.test("sizes, ages and digests are short", async (t) => {
  const sizes: [number, string][] = [
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1.0 KiB"],
    [102_348, "99.9 KiB"],
    [102_350, "100 KiB"],
    [1024 ** 2 - 1, "1.0 MiB"],
    [5 * 1024 ** 4, "5.0 TiB"],
    [5000 * 1024 ** 4, "5000 TiB"],
  ];
  for (const [bytes, text] of sizes) t.equal(formatBytes(bytes), text);
  const now = Date.parse("2026-01-10T00:00:00Z");
  t.equal(formatAge("2026-01-09T23:59:30Z", now), "30 s");
  t.equal(formatAge("2026-01-09T23:50:00Z", now), "10 min");
  t.equal(formatAge("2026-01-09T00:00:00Z", now), "24 h");
  t.equal(formatAge("2026-01-01T00:00:00Z", now), "9 d");
  t.equal(formatAge("2026-01-10T00:05:00Z", now), "0 s", "another clock is ahead");
  t.equal(formatAge("nonsense", now), "?");
  t.equal(shortDigest(DIGEST), "sha256:abababababab");
  t.equal(shortDigest("odd"), "odd");
  t.equal(shortId("12D3KooWexample"), "…Wexample");
  t.equal(shortId("short"), "short");
  t.equal(plain("a\tb\u0007"), "a?b?");
});

await t.test("a status is recognised by all it must have", async (t) => {
  t.ok(isMirrorStatus(STATUS));
  t.ok(isMirrorStatus(JSON.parse(JSON.stringify(STATUS))));
  const { hosts: _, ...needed } = STATUS;
  for (const key of Object.keys(needed)) t.notOk(isMirrorStatus({ ...STATUS, [key]: undefined }), key);
  for (const value of [null, [], "x", 5, {}]) t.notOk(isMirrorStatus(value));
});
