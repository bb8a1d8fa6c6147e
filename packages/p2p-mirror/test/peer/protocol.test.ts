import { createHash, generateKeyPairSync, sign, verify } from "node:crypto";
import { digestOf } from "@p2p-mirror/shared";
import t from "tap";
import {
  blobPath,
  formatBusy,
  formatHash,
  formatLoad,
  parseBusy,
  parseHash,
  parseLoad,
  parsePeerPath,
  piecePath,
  recordPath,
} from "../../src/peer/protocol.ts";

await t.test("paths are read as they are written", async (t) => {
  const digest = digestOf(Buffer.from("x"));
  t.same(parsePeerPath(blobPath(digest)), { kind: "blob", digest });
  for (const key of ["tag:docker.io/library/a:1", "repository:a b&key=c", "tag:ü%2F+", "?".repeat(1024)]) {
    t.same(parsePeerPath(recordPath(key)), { kind: "record", key });
  }
  t.same(parsePeerPath(recordPath("ü".repeat(513))), { kind: "malformed" }, "1 KiB is counted in bytes");
});

await t.test("a piece is one of those that its size makes", async (t) => {
  const digest = digestOf(Buffer.from("x"));
  const long = digestOf(Buffer.from("x"), "sha512");
  // 128 KiB each; 8 MiB each but for the first 32; the largest size that can be said.
  for (const [size, count] of [
    [1, 1],
    [131_072, 1],
    [131_073, 2],
    [2 ** 35, 4_127],
    [999_999_999_999_999, 119_209_321],
  ] as const) {
    for (const one of [digest, long]) {
      for (const piece of [0, count - 1]) {
        t.same(parsePeerPath(piecePath(one, size, piece)), { kind: "piece", digest: one, size, piece });
      }
      t.same(parsePeerPath(piecePath(one, size, count)), { kind: "malformed" }, `${count} of ${size}`);
    }
  }
});

/** A view of something larger, which is what comes out of a message. */
const view = (bytes: Buffer): Uint8Array =>
  Uint8Array.from([0, ...bytes, 0]).subarray(1, 1 + bytes.byteLength);

await t.test("a signed hash comes out of its header as it went in", async (t) => {
  for (let nth = 0; nth < 50; nth += 1) {
    const { privateKey, publicKey } = generateKeyPairSync("ed25519");
    const sha256 = createHash("sha256").update(`${nth}`).digest();
    const signature = sign(null, sha256, privateKey);
    const signer = "12D3KooWKRyzVWW6ChFjQjK4miCty85Niy48tpPV95XdKu1BcvMA";
    const header = formatHash({ piece: nth, sha256: view(sha256), signer, signature: view(signature) });
    t.match(header, /^[\w-]{43}\.12D3KooW\w{44}\.[\w-]{86}$/);
    const hash = parseHash(header, nth);
    t.equal(hash?.piece, nth);
    t.equal(hash?.signer, signer);
    t.ok(sha256.equals(hash?.sha256 ?? Buffer.alloc(0)));
    t.ok(verify(null, sha256, publicKey, hash?.signature ?? Buffer.alloc(0)));
  }
});

await t.test("what is no signed hash is none", async (t) => {
  const [hash, signer, signature] = ["a".repeat(43), "12D3KooWsomebody00000000", "b".repeat(86)];
  t.ok(parseHash(`${hash}.${signer}.${signature}`, 0));
  for (const header of [
    undefined,
    [],
    [`${hash}.${signer}.${signature}`, `${hash}.${signer}.${signature}`],
    "",
    "..",
    hash,
    `${hash}.${signer}`,
    `${hash}.${signer}.`,
    `.${signer}.${signature}`,
    `${hash}..${signature}`,
    `${hash}.${signer}.${signature}.`,
    `${hash}.${signer}.${signature}.${hash}`,
    `${hash}.${signer}.${signature}\n`,
    ` ${hash}.${signer}.${signature}`,
    `${hash}.${signer}.${signature}==`,
    `${hash}a.${signer}.${signature}`,
    `${hash.slice(1)}.${signer}.${signature}`,
    `${hash}.${signer}.${signature}b`,
    `${hash}.${signer}.${signature.slice(1)}`,
    `${hash.slice(1)}+.${signer}.${signature}`,
    `${hash.slice(1)}ü.${signer}.${signature}`,
    `${hash}.${"x".repeat(15)}.${signature}`,
    `${hash}.${"x".repeat(129)}.${signature}`,
    `${hash}.${signer}/.${signature}`,
    `${hash}.${signer}.${"b".repeat(8000)}`,
  ]) {
    t.equal(parseHash(header, 0), undefined, JSON.stringify(header)?.slice(0, 60));
  }
});

await t.test("a load is a share between 0 and 1, or unknown", async (t) => {
  t.equal(parseLoad(formatLoad(4, 16)), 0.25);
  t.equal(parseLoad("20/16"), 1);
  for (const text of [undefined, "", "1", "1/0", "-1/2", "1/2/3", "1e3/2", "9999999/1"]) {
    t.equal(parseLoad(text), undefined, String(text));
  }
});

await t.test("of a busy answer only what can be a peer is believed", async (t) => {
  const peer = { id: "12D3KooWgood000000000000000000000000", host: "10.0.0.7", port: 24_221 };
  t.same(parseBusy(formatBusy([peer])), [peer]);
  for (const host of ["fd00::1", "node-1.example.org", "localhost"]) {
    t.equal(parseBusy(formatBusy([{ ...peer, host }])).length, 1, host);
  }
  for (const host of ["", "-a", "a..b", "a/b", "a@b", "a:80", "[::1]", "x".repeat(254), "a\r\nb"]) {
    t.equal(parseBusy(formatBusy([{ ...peer, host }])).length, 0, JSON.stringify(host));
  }
  for (const bad of [
    { ...peer, port: 1.5 },
    { ...peer, port: 65_536 },
    { ...peer, id: "a/b" },
  ]) {
    t.equal(parseBusy(formatBusy([bad])).length, 0, JSON.stringify(bad));
  }
});
