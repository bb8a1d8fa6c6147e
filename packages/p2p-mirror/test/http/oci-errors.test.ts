import t from "tap";
import { request } from "undici";
import {
  AllSourcesFailedError,
  ConfigError,
  IntegrityError,
  InvalidInputError,
  NotFoundError,
  SourceError,
} from "@p2p-mirror/shared";
import { startEndpoint } from "./support/endpoint.ts";
import { imageManifest } from "./support/scripted-content.ts";

const SOURCE_CODES: SourceError["code"][] = [
  "UNREACHABLE",
  "NO_FIRST_BYTE",
  "STALLED",
  "CUT",
  "BUSY",
  "STATUS",
  "DENIED",
  "RATE_LIMITED",
];

await t.test(
  "rules 0.6 and 3.3: whatever the sources did, containerd gets one 404 and never 429 or 408",
  async (t) => {
    const { content, url, log } = await startEndpoint(t);
    const blob = content.addBlob();
    const failures: Error[] = [
      ...SOURCE_CODES.map((code) => new SourceError(code, "upstream", { status: 429, retryAfterMs: 1000 })),
      new SourceError("STATUS", "upstream", { status: 408 }),
      new SourceError("STATUS", "upstream", { status: 503 }),
      new AllSourcesFailedError("x", [new SourceError("RATE_LIMITED", "upstream")]),
      new IntegrityError("DIGEST_MISMATCH", "sha256:a", "sha256:b", "peer 1"),
      new NotFoundError("BLOB_UNKNOWN", "x"),
      new InvalidInputError("MANIFEST_INVALID", "manifest", "no JSON"),
    ];
    for (const failure of failures) {
      content.before = () => {
        throw failure;
      };
      for (const [path, code] of [
        [`blobs/${blob}`, "BLOB_UNKNOWN"],
        ["manifests/v1", "MANIFEST_UNKNOWN"],
        ["tags/list", "NAME_UNKNOWN"],
      ]) {
        const { statusCode, headers, body } = await request(`${url}/v2/a/${path}?ns=ghcr.io`);
        const json = await body.text();
        t.equal(statusCode, 404, `${failure.message} for ${path}`);
        t.match(headers["content-type"], /^application\/json/);
        t.equal(headers["retry-after"], undefined);
        if (failure instanceof NotFoundError) continue;
        t.match(JSON.parse(json), { errors: [{ code }] }, `${failure.message} for ${path}`);
        t.notMatch(json, /upstream|peer 1/, "where it looked is not the client's business");
      }
    }
    t.equal(log.at(50).length, 0, "none of them is an error of this program");
  },
);

await t.test(
  "an error nobody foresaw is a 500 with a request id, logged with its stack, which stays here",
  async (t) => {
    const { content, url, log } = await startEndpoint(t);
    content.before = () => {
      throw new TypeError("secret detail");
    };
    const { statusCode, body } = await request(`${url}/v2/a/manifests/v1?ns=ghcr.io`);
    const text = await body.text();
    t.equal(statusCode, 500);
    t.notMatch(text, /secret|TypeError|\.ts/);
    const [line] = log.at(50);
    t.match(line, {
      registry: "ghcr.io",
      repository: "a",
      tag: "v1",
      err: { message: "secret detail", stack: /\.ts/ },
    });
    t.ok(text.includes(String(line?.["requestId"])), "the client can quote the id");
    content.before = () => {
      throw new ConfigError("x", "y", "z");
    };
    const other = await request(`${url}/v2/a/manifests/v1?ns=ghcr.io`);
    await other.body.dump();
    t.equal(other.statusCode, 500);
  },
);

await t.test("access that cannot be decided is a decline, or a 500 when it is a fault", async (t) => {
  const { access, content, url } = await startEndpoint(t);
  content.addManifest(imageManifest(), "v1");
  const statusWith = async (error: Error): Promise<number> => {
    access.answer = () => {
      throw error;
    };
    const { statusCode, body } = await request(`${url}/v2/a/manifests/v1?ns=ghcr.io`);
    await body.dump();
    return statusCode;
  };
  t.equal(await statusWith(new SourceError("UNREACHABLE", "upstream")), 404);
  t.equal(await statusWith(new SourceError("RATE_LIMITED", "upstream", { status: 429 })), 404);
  t.equal(await statusWith(new Error("a fault")), 500);
  t.same(content.asked, []);
});

await t.test("HEAD gets the status of GET, and no body", async (t) => {
  const { url, port } = await startEndpoint(t);
  const digest = `sha256:${"a".repeat(64)}`;
  for (const path of [`blobs/${digest}`, "manifests/v1", `manifests/${digest}`, "tags/list"]) {
    const { statusCode, body } = await request(`${url}/v2/a/${path}?ns=ghcr.io`, { method: "HEAD" });
    t.equal(statusCode, 404, path);
    t.equal((await body.arrayBuffer()).byteLength, 0, path);
  }
  t.ok(port > 0);
});
