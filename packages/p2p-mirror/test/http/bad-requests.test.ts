import { randomBytes } from "node:crypto";
import t from "tap";
import { request } from "undici";
import { until } from "../../../../test/rig/until.ts";
import { startEndpoint } from "./support/endpoint.ts";
import { RawClient } from "./support/raw-client.ts";
import { imageManifest } from "./support/scripted-content.ts";

const DIGEST = `sha256:${"0".repeat(64)}`;

/** Sends raw bytes on a connection of their own, and gives everything that came back until it ended. */
async function say(port: number, bytes: string | Buffer): Promise<{ text: string; ending: unknown }> {
  const client = (await RawClient.open(port)).read().send(bytes);
  const ending = await client.ended();
  return { text: client.received.toString("latin1"), ending };
}

await t.test(
  "every method besides GET and HEAD is 405, with or without a body, and the connection lives on",
  async (t) => {
    const { url, content } = await startEndpoint(t);
    for (const method of ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const) {
      for (const path of ["/v2/", "/v2/a/blobs/uploads/?ns=a.b", `/v2/a/manifests/v1?ns=a.b`, "/elsewhere"]) {
        for (const body of [undefined, randomBytes(100_000)]) {
          const answer = await request(`${url}${path}`, {
            method,
            ...(body === undefined ? {} : { body, headers: { "content-type": "application/octet-stream" } }),
          });
          t.equal(answer.statusCode, 405, `${method} ${path}`);
          t.equal(answer.headers["allow"], "GET, HEAD");
          t.match(await answer.body.json(), { errors: [{ code: "UNSUPPORTED" }] });
        }
      }
    }
    t.same(content.asked, []);
  },
);

await t.test(
  "an upload that asks first is told 405 and not to go on; other expectations are passed over",
  async (t) => {
    const { port } = await startEndpoint(t);
    const upload = (await RawClient.open(port)).read();
    upload.send(
      "PUT /v2/a/manifests/v1?ns=a.b HTTP/1.1\r\nhost: m\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n",
    );
    const refused = await upload.until((received) => received.includes("errors"));
    t.match(refused.toString(), /^HTTP\/1\.1 405 /, "no 100 before it");
    upload.socket.destroy();
    const other = (await RawClient.open(port)).read().get("/v2/", { expect: "wonders" });
    t.match((await other.until((received) => received.includes("{}"))).toString(), /^HTTP\/1\.1 200 /);
    other.socket.destroy();
    const tunnel = await say(port, "CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n\r\n");
    t.equal(tunnel.text, "", "no tunnel");
  },
);

await t.test("GET with a body is refused", async (t) => {
  const { port } = await startEndpoint(t);
  for (const framing of [
    "content-length: 3\r\n\r\nabc",
    "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
  ]) {
    const client = (await RawClient.open(port)).read();
    client.send(`GET /v2/a/manifests/v1?ns=a.b HTTP/1.1\r\nhost: m\r\n${framing}`);
    const answer = await client.until((received) => received.includes("errors"));
    t.match(answer.toString(), /^HTTP\/1\.1 400/);
    client.socket.destroy();
  }
});

await t.test("a request of HTTP/1.1 names one host", async (t) => {
  const { port } = await startEndpoint(t);
  for (const hosts of ["", "host: a\r\nhost: b\r\n"]) {
    const { text } = await say(port, `GET /v2/ HTTP/1.1\r\n${hosts}connection: close\r\n\r\n`);
    t.match(text, /^HTTP\/1\.1 400 /, hosts);
    t.match(text, /\{"errors":\[\{"code":"UNSUPPORTED"/, hosts);
  }
  t.match((await say(port, "GET /v2/ HTTP/1.0\r\n\r\n")).text, /^HTTP\/1\.1 200 /, "HTTP/1.0 names none");
});

await t.test("malformed targets are 4xx in the OCI form, on one connection that lives on", async (t) => {
  const { port, content } = await startEndpoint(t);
  const client = (await RawClient.open(port)).read();
  const targets: [string, number][] = [
    ["/v2/%", 400],
    ["/v2/%zz/manifests/v1?ns=a.b", 400],
    ["/%c0%af", 400],
    ["/v2/a/manifests/%ff?ns=a.b", 400],
    ["/v2/..%2f..%2fetc%2fpasswd", 400],
    ["/v2/../../etc/passwd", 404],
    ["//v2/", 404],
    ["/v2/a/blobs/sha256:abc?ns=a.b", 400],
    ["/v2/a/blobs/sha256:..%2f..%2fx?ns=a.b", 400],
    [`/v2/a/blobs/${DIGEST}?ns=..%2f..`, 400],
    [`/v2/a/blobs/${DIGEST}?ns=169.254.169.254%2Flatest`, 400],
    [`/v2/a/blobs/${DIGEST}`, 404],
    ["/v2/_catalog", 404],
    ["/metrics", 404],
    ["*", 404],
    [`/v2/${"a/".repeat(400)}manifests/v1?ns=a.b`, 400],
    [`/v2/${"a".repeat(5000)}`, 414],
    [`/${"%41".repeat(1400)}`, 414],
  ];
  let expected = 0;
  for (const [target, status] of targets) {
    client.get(target);
    expected++;
    const all = await client.until(
      (received) => received.toString().split('"errors"').length === expected + 1,
    );
    const last = all.toString().slice(all.toString().lastIndexOf("HTTP/1.1"));
    t.match(last, new RegExp(`^HTTP/1\\.1 ${status} `), target.slice(0, 60));
  }
  t.same(content.asked, [], "none of them reached content");
  client.socket.destroy();
});

await t.test(
  "bytes that are no HTTP get 400, too large headers 431, both in the OCI form and with FIN",
  async (t) => {
    const { port } = await startEndpoint(t);
    const cases: [string | Buffer, number][] = [
      ["nonsense\r\n\r\n", 400],
      [Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]), 400],
      ["GET /v2/ HTTP/9.9\r\n\r\n", 400],
      ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400],
      ["GET /v2/ HTTP/1.1\r\nhost: m\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400],
      ["GET /v2/ HTTP/1.1\r\nhost: m\r\nbad header\r\n\r\n", 400],
      ["GET /v2/ HTTP/1.1\r\nhost: m\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400],
      [`GET /v2/ HTTP/1.1\r\nhost: m\r\nx: ${"h".repeat(40_000)}\r\n\r\n`, 431],
      [`GET /${"u".repeat(40_000)} HTTP/1.1\r\nhost: m\r\n\r\n`, 431],
    ];
    for (const [bytes, status] of cases) {
      const { text, ending } = await say(port, bytes);
      const name = bytes.toString("latin1").slice(0, 30);
      t.match(text, new RegExp(`^HTTP/1\\.1 ${status} `), name);
      t.match(text, /\{"errors":\[\{"code":"UNSUPPORTED"/, name);
      t.equal(ending, "end", name);
    }
    const { statusCode, body } = await request(`http://127.0.0.1:${port}/v2/`);
    await body.dump();
    t.equal(statusCode, 200, "and goes on");
  },
);

await t.test("rule 0.6: a client too slow with its own request gets 400 and not Node's 408", async (t) => {
  const { port } = await startEndpoint(t, { receive: { headersMs: 50, requestMs: 100, checkMs: 20 } });
  const { text, ending } = await say(port, "GET /v2/ HTTP/1.1\r\nhost: m\r\n");
  t.match(text, /^HTTP\/1\.1 400 /);
  t.equal(ending, "end");
});

await t.test(
  "pipelined requests are answered one by one and in order; too many end the connection",
  async (t) => {
    const { port, content, metric } = await startEndpoint(t);
    content.addManifest(imageManifest("first"), "v1");
    content.addManifest(imageManifest("second"), "v2");
    const blob = content.addBlob(randomBytes(500_000));
    const client = (await RawClient.open(port)).read();
    client
      .get("/v2/a/manifests/v1?ns=a.b")
      .get(`/v2/a/blobs/${blob}?ns=a.b`)
      .get("/v2/a/manifests/v2?ns=a.b");
    const all = (await client.until((received) => received.includes('"second"'))).toString("latin1");
    t.ok(all.indexOf('"first"') < all.indexOf("octet-stream"), "in order");
    t.equal(all.match(/HTTP\/1\.1 200/g)?.length, 3);
    client.socket.destroy();

    const warnings: string[] = [];
    const onWarning = ({ message }: Error): void => void warnings.push(message);
    process.on("warning", onWarning);
    t.teardown(() => process.off("warning", onWarning));
    content.before = () => new Promise(() => undefined);
    const flood = (await RawClient.open(port)).read();
    for (let count = 0; count < 200; count++) flood.get(`/v2/a/manifests/x${count}?ns=a.b`);
    t.equal(await flood.ended(), "end");
    await until(
      "nothing of it is left",
      async () => (await metric("p2p_mirror_http_requests_in_flight")) === 0,
    );
    t.equal(
      content.asked.filter((one) => one.startsWith("tag a.b/a:x")).length,
      1,
      "none of the flood was started",
    );
    t.same(warnings, [], "nor does the process warn, such as of a listener for each of them");
  },
);

await t.test("random requests never get a 5xx and never stop the endpoint", async (t) => {
  const { port, log } = await startEndpoint(t);
  let seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  t.comment(`SEED=${seed}`);
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff;
    return (seed >>> 8) % below;
  };
  const parts = [
    "/v2",
    "/",
    "a",
    "..",
    "%2e%2e",
    "%00",
    "manifests",
    "blobs",
    DIGEST,
    "tags/list",
    "?ns=",
    "a.b",
    ":",
  ];
  const more = [
    "&ns=",
    "%",
    "referrers",
    "docker.io",
    "\t",
    "é",
    "@",
    "[::1]",
    "a".repeat(300),
    "latest",
    "HTTP/1.1",
  ];
  const pieces = [...parts, ...more];
  for (let round = 0; round < 300; round++) {
    const target = Array.from({ length: 1 + random(8) }, () => pieces[random(pieces.length)]).join(
      random(2) ? "/" : "",
    );
    const method = ["GET", "HEAD", "POST", "get", "", "\0"][random(6)];
    const header = [
      "",
      "range: bytes=-\r\n",
      "range: \xff\r\n",
      "if-none-match: ,,\r\n",
      "content-length: -1\r\n",
    ][random(5)];
    const { text, ending } = await say(
      port,
      Buffer.from(`${method} ${target} HTTP/1.1\r\nhost: m\r\nconnection: close\r\n${header}\r\n`, "latin1"),
    );
    t.notMatch(text, /^HTTP\/1\.1 5/, `${round}: ${method} ${target}`);
    t.equal(ending, "end", `${round}: ${method} ${target}`);
  }
  t.same(log.at(50), []);
});
