import type { IncomingMessage } from "node:http";
import t from "tap";
import { digestOf } from "@p2p-mirror/shared";
import { hostPlatform, parsePlatform, selectEntries, type IndexEntry } from "../../src/cli/platform.ts";
import { addIndex, startFakeMirror, type FakeMirror } from "./fake-mirror.ts";
import { run, type RunOptions } from "./terminal.ts";

const layer = (name: string, size: number): Buffer => Buffer.alloc(size, name);
const pull = (mirror: FakeMirror, args: readonly string[], options: RunOptions = {}) =>
  run(["pull", ...args, "--registry", mirror.url], options);
const flip = (object: Buffer): Buffer => {
  const wrong = Buffer.from(object);
  wrong[wrong.length - 1] = (wrong.at(-1) ?? 0) ^ 1;
  return wrong;
};
const entry = (text: string | undefined): IndexEntry => ({
  digest: digestOf(Buffer.from(String(text))),
  platform: text === undefined ? undefined : parsePlatform(text),
});
const isBlob = (request: IncomingMessage): boolean => request.url?.includes("/blobs/") === true;

await t.test("pulls tag, manifest, config and layers as containerd does, and verifies all", async (t) => {
  const mirror = await startFakeMirror(t);
  const image = mirror.addImage("a", [layer("one", 100_000), layer("two", 1_000_000), layer("three", 3)]);
  mirror.tag("v1", image.digest);
  const { exitCode, stdout, stderr } = await pull(mirror, ["ghcr.io/owner/name:v1"]);
  t.equal(exitCode, 0);
  const [name, figures] = stdout.split("\n");
  t.equal(name, `ghcr.io/owner/name:v1@${image.digest}`);
  t.match(figures, /^1 manifest, 4 blobs, 1.0 MiB verified in \d+\.\d s \(.*\/s\)$/);
  t.match(stderr, /^(sha256:[0-9a-f]{12} [\d.]+ \w+ in [\d.]+ s\n){4}$/, "a line for each blob");
  t.equal(mirror.requests[0], "HEAD /v2/owner/name/manifests/v1?ns=ghcr.io");
  t.equal(mirror.requests[1], `GET /v2/owner/name/manifests/${image.digest}?ns=ghcr.io`);
  t.equal(mirror.requests.filter((request) => request.includes("/blobs/")).length, 4);
});

await t.test("a digest needs no tag, and short names are docker.io's", async (t) => {
  const mirror = await startFakeMirror(t);
  const image = mirror.addImage("a", []);
  const { exitCode, stdout } = await pull(mirror, [`nginx@${image.digest}`]);
  t.equal(exitCode, 0);
  t.match(stdout, `docker.io/library/nginx@${image.digest}\n1 manifest, 1 blob,`);
  t.equal(mirror.requests[0], `GET /v2/library/nginx/manifests/${image.digest}?ns=docker.io`);
});

await t.test("a layer that is there twice is pulled once, and an empty one is complete", async (t) => {
  const mirror = await startFakeMirror(t);
  const image = mirror.addImage("a", [layer("same", 10), layer("same", 10), Buffer.alloc(0)]);
  mirror.tag("v1", image.digest);
  const { exitCode, stdout } = await pull(mirror, ["r.example/a:v1"]);
  t.equal(exitCode, 0);
  t.match(stdout, /3 blobs/);
});

await t.test("of an index the image of this machine, of another, or all", async (t) => {
  const mirror = await startFakeMirror(t);
  const { os, architecture } = hostPlatform();
  const own = mirror.addImage("own", [layer("own", 10)]);
  const other = mirror.addImage("other", [layer("other", 20)]);
  const attestation = mirror.addImage("attestation", [layer("proof", 30)]);
  const inner = addIndex(mirror, [["linux/riscv64", mirror.addImage("inner", [layer("deep", 40)])]]);
  const index = addIndex(mirror, [
    ["plan9/mips", other],
    [`${os}/${architecture}`, own],
    ["unknown/unknown", attestation],
    [undefined, inner],
  ]);
  mirror.tag("v1", index.digest);
  const got = (): string[] =>
    mirror.requests.splice(0).flatMap((request) => /\/manifests\/(sha256:\w+)/.exec(request)?.[1] ?? []);

  t.match((await pull(mirror, ["r.example/a:v1"])).stdout, /2 manifests, 2 blobs/);
  t.same(got(), [index.digest, own.digest]);
  t.match(
    (await pull(mirror, ["r.example/a:v1", "--platform", "plan9/mips"])).stdout,
    /2 manifests, 2 blobs/,
  );
  t.same(got(), [index.digest, other.digest]);
  t.match((await pull(mirror, ["r.example/a:v1", "--all-platforms"])).stdout, /6 manifests, 8 blobs/);
  t.equal(got().length, 6);
});

await t.test("a platform that is not there is told with those that are", async (t) => {
  const mirror = await startFakeMirror(t);
  const index = addIndex(mirror, [["plan9/mips", mirror.addImage("a", [])]]);
  mirror.tag("v1", index.digest);
  t.match(await pull(mirror, ["r.example/a:v1", "--platform", "linux/s390x"]), {
    exitCode: 1,
    stderr: "p2p-mirror: there is no image for linux/s390x; give --platform with one of plan9/mips\n",
  });
});

await t.test("a body that is cut is resumed at the byte, and still verified", async (t) => {
  const mirror = await startFakeMirror(t);
  const bytes = layer("0123456789", 500_000);
  const image = mirror.addImage("a", [bytes]);
  mirror.tag("v1", image.digest);
  let cuts = 0;
  mirror.fault = (request, response, object) => {
    if (object.length !== bytes.length || cuts === 4) return false;
    const start = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    cuts++;
    response.writeHead(start === 0 ? 200 : 206, {
      "content-length": object.length - start,
      ...(start === 0 ? {} : { "content-range": `bytes ${start}-${object.length - 1}/${object.length}` }),
    });
    // FIN short of Content-Length, as the mirror ends a body whose sources are lost.
    response.write(object.subarray(start, start + 100_000), () => request.socket.end());
    return true;
  };
  const { exitCode } = await pull(mirror, ["r.example/a:v1"]);
  t.equal(exitCode, 0);
  t.equal(cuts, 4);
  const digest = digestOf(bytes);
  const ranges = mirror.requests
    .filter((request) => request.includes(digest))
    .map((request) => request.split(" ")[2]);
  t.same(ranges, [undefined, "bytes=100000-", "bytes=200000-", "bytes=300000-", "bytes=400000-"]);
});

await t.test("a blob that makes no progress is given up after three attempts", async (t) => {
  const mirror = await startFakeMirror(t);
  mirror.tag("v1", mirror.addImage("a", [layer("x", 1000)]).digest);
  mirror.fault = (request, response, object) => {
    if (!isBlob(request) || object.length !== 1000) return false;
    response.writeHead(200, { "content-length": object.length });
    response.flushHeaders();
    request.socket.end();
    return true;
  };
  const { exitCode, stderr } = await pull(mirror, ["r.example/a:v1"]);
  t.equal(exitCode, 1);
  t.match(stderr, /p2p-mirror: blob sha256:\w{64} ended after 0 of 1000 bytes \(.+\)\n$/);
  t.equal(mirror.requests.filter((request) => request.includes(digestOf(layer("x", 1000)))).length, 3);
});

await t.test("wrong bytes, too many and a wrong manifest are found", async (t) => {
  const mirror = await startFakeMirror(t);
  mirror.tag("v1", mirror.addImage("a", [layer("x", 1000)]).digest);
  const answer = (matches: (request: IncomingMessage) => boolean, body: (object: Buffer) => Buffer) => {
    mirror.fault = (request, response, object) => {
      if (request.method === "HEAD" || !matches(request)) return false;
      const wrong = body(object);
      response.writeHead(200, { "content-length": wrong.length });
      response.end(wrong);
      return true;
    };
  };
  answer(isBlob, flip);
  t.match(await pull(mirror, ["r.example/a:v1"]), {
    exitCode: 1,
    stderr: /the mirror delivered sha256:\w+ instead of sha256:/,
  });
  answer(isBlob, (object) => Buffer.concat([object, Buffer.from("x")]));
  t.match(await pull(mirror, ["r.example/a:v1"]), { exitCode: 1, stderr: /or more instead of \d+ bytes/ });
  answer((request) => request.url?.includes("/manifests/") === true, flip);
  t.match(await pull(mirror, ["r.example/a:v1"]), {
    exitCode: 1,
    stderr: /^p2p-mirror: the mirror delivered /,
  });
  answer(
    (request) => request.url?.includes("/manifests/") === true,
    () => Buffer.alloc(5 * 1024 * 1024),
  );
  t.match(await pull(mirror, ["r.example/a:v1"]), { exitCode: 1, stderr: /sent more than 4194304 bytes/ });
});

await t.test("what the mirror says of an error is passed on, safely", async (t) => {
  const mirror = await startFakeMirror(t);
  t.match(await pull(mirror, ["r.example/a:v1"]), {
    exitCode: 1,
    stderr:
      /^p2p-mirror: the mirror answered 404 for tag v1: .*; neither this node, its peers nor upstream gives it/,
  });
  const missing = digestOf(Buffer.from("missing"));
  t.match(
    (await pull(mirror, [`r.example/a@${missing}`])).stderr,
    `404 for manifest ${missing}: ${missing} is not here;`,
  );
  mirror.tag("v1", mirror.addImage("a", []).digest);
  mirror.fault = (_request, response) => {
    response.writeHead(502);
    response.end(JSON.stringify({ errors: [{ message: "bad\u001B[31m\nnews" }] }));
    return true;
  };
  const { stderr } = await pull(mirror, [`r.example/a@${missing}`]);
  t.notOk(stderr.includes("\u001B"));
});

await t.test("a signal ends a pull in the middle of a body", async (t) => {
  const mirror = await startFakeMirror(t);
  mirror.tag("v1", mirror.addImage("a", [layer("x", 1_000_000)]).digest);
  const controller = new AbortController();
  mirror.fault = (request, response, object) => {
    if (!isBlob(request) || object.length !== 1_000_000) return false;
    response.writeHead(200, { "content-length": object.length });
    response.write(object.subarray(0, 1000), () =>
      controller.abort(new DOMException("received SIGINT", "AbortError")),
    );
    return true;
  };
  const { exitCode, stderr } = await pull(mirror, ["r.example/a:v1"], { signal: controller.signal });
  t.equal(exitCode, 1);
  t.match(stderr, /p2p-mirror: received SIGINT\n$/);
});

await t.test("on a terminal there are bars, and the cursor comes back, also after a failure", async (t) => {
  const mirror = await startFakeMirror(t);
  mirror.tag("v1", mirror.addImage("a", [layer("x", 100_000)]).digest);
  const good = await pull(mirror, ["r.example/a:v1"], { tty: true });
  t.equal(good.exitCode, 0);
  t.match(good.stderr, /\[={0,30} {0,30}\]|={30}/);
  t.match(good.stderr, /100%/);
  const hide = "\u001B[?25l";
  const show = "\u001B[?25h";
  t.ok(good.stderr.lastIndexOf(show) > good.stderr.lastIndexOf(hide), "shown after it was hidden");
  mirror.fault = (request, response) => {
    if (!isBlob(request)) return false;
    response.writeHead(500).end();
    return true;
  };
  const bad = await pull(mirror, ["r.example/a:v1"], { tty: true });
  t.equal(bad.exitCode, 1);
  t.ok(bad.stderr.lastIndexOf(show) > bad.stderr.lastIndexOf(hide));
});

await t.test("platforms are matched by OS, architecture and, where both have one, variant", async (t) => {
  const entries = ["linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "windows/amd64", undefined].map(entry);
  const select = (wanted: string): IndexEntry[] => selectEntries(entries, parsePlatform(wanted));
  t.same(select("linux/arm/v7"), [entry("linux/arm/v7")]);
  t.same(select("linux/arm"), [entry("linux/arm/v6")]);
  t.same(select("linux/arm64"), [entry("linux/arm64/v8")]);
  t.same(select("linux/amd64"), [entry(undefined)], "an entry without a platform is for all");
  for (const text of ["", "linux", "linux/", "/amd64", "a/b/c/d"])
    t.throws(() => parsePlatform(text), { name: "InvalidValue" }, text);
});
