import { createHash } from "node:crypto";
import t from "tap";
import {
  algorithmOf,
  digestOf,
  Hasher,
  hexOf,
  InvalidInputError,
  isDigest,
  parseDigest,
} from "@p2p-mirror/shared";

/** FIPS 180-4 examples, so that not only Node's own hash speaks for itself. */
const EMPTY_SHA256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ABC_SHA256 = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const ABC_SHA512 =
  "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

await t.test("only the canonical form is a digest", async (t) => {
  t.ok(isDigest(ABC_SHA256));
  t.ok(isDigest(ABC_SHA512));
  const hex = hexOf(parseDigest(ABC_SHA256));
  const wrong = [
    "",
    hex,
    `SHA256:${hex}`,
    `sha256:${hex.toUpperCase()}`,
    `sha256:${hex.slice(1)}`,
    `sha256:${hex}0`,
    `sha512:${hex}`,
    `md5:${hex.slice(0, 32)}`,
    `sha256:${hex}\n`,
    ` sha256:${hex}`,
    `sha256:${hex.slice(0, 63)}g`,
    `sha256:../../${hex.slice(6)}`,
  ];
  for (const text of wrong) {
    t.notOk(isDigest(text), JSON.stringify(text));
    t.throws(() => parseDigest(text), { code: "DIGEST_INVALID", field: "digest" }, JSON.stringify(text));
  }
});

await t.test("an error carries no more than 150 characters of what was wrong", async (t) => {
  try {
    parseDigest(`sha256:${"x".repeat(100_000)}`);
    t.fail("it must throw");
  } catch (error) {
    t.ok(error instanceof InvalidInputError && error.value.length === 150 && error.message.length < 250);
  }
});

await t.test("algorithm and hex are the two halves", async (t) => {
  for (const text of [ABC_SHA256, ABC_SHA512]) {
    const digest = parseDigest(text);
    t.equal(`${algorithmOf(digest)}:${hexOf(digest)}`, text);
  }
});

await t.test("digestOf agrees with the standard's examples", async (t) => {
  t.equal(digestOf(new Uint8Array()), EMPTY_SHA256);
  t.equal(digestOf(Buffer.from("abc")), ABC_SHA256);
  t.equal(digestOf(Buffer.from("abc"), "sha512"), ABC_SHA512);
});

await t.test("a Hasher fed in pieces gives the digest of the whole, and counts", async (t) => {
  const bytes = Buffer.from(Array.from({ length: 10_000 }, (_, index) => (index * 31) % 251));
  for (const algorithm of ["sha256", "sha512"] as const) {
    const hasher = new Hasher(algorithm);
    for (let offset = 0, step = 1; offset < bytes.length; offset += step, step = (step * 7) % 997) {
      hasher.update(bytes.subarray(offset, Math.min(bytes.length, offset + step)));
    }
    t.equal(hasher.size, bytes.length, algorithm);
    t.equal(hasher.digest(), `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`, algorithm);
  }
});

await t.test("a view of a larger buffer is hashed as the view", async (t) => {
  const view = Buffer.from("xxabcxx").subarray(2, 5);
  t.equal(digestOf(view), ABC_SHA256);
});
