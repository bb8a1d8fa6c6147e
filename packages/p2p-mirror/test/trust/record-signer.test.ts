import { digestOf, type Clock } from "@p2p-mirror/shared";
import t from "tap";
import type { Claim } from "../../src/transfer/records.ts";
import { newIdentity } from "../../src/trust/identity.ts";
import { createRecordSigner } from "../../src/trust/record-signer.ts";

const NOW = Date.UTC(2026, 0, 1);
const clock: Clock = { now: () => 0, date: () => NOW, after: () => () => undefined };
const repository = { registry: "registry.test", repository: "team/app" };
const claim: Claim = {
  kind: "tag",
  ...repository,
  tag: "v1",
  descriptor: {
    digest: digestOf(Buffer.from("manifest")),
    size: 8,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
  },
  time: NOW,
};

const [one, two] = await Promise.all([newIdentity(), newIdentity()]);
const signer = createRecordSigner(one, clock);
const reader = createRecordSigner(two, clock);

await t.test("what a node signed, others read", (t) => {
  t.strictSame(reader.verify(signer.sign(claim)), claim);
  const open: Claim = { kind: "repository", ...repository, time: NOW };
  t.strictSame(reader.verify(signer.sign(open)), open);
  const ofNextVersion = { ...claim, added: "what this one does not know" };
  t.strictSame(reader.verify(signer.sign(ofNextVersion)), claim);
  t.end();
});

await t.test("one changed character and it is no record", (t) => {
  const record = signer.sign(claim);
  t.equal(reader.verify(record.replace("v1", "v2")), undefined);
  const changed = record.replace(/(?<="signature":")./, (first) => (first === "_" ? "A" : "_"));
  t.equal(reader.verify(changed), undefined);
  t.equal(reader.verify(record.replace(one.id, two.id)), undefined, "another signer's name");
  t.equal(reader.verify(record.replace(one.id, "QmNoKeyInside")), undefined, "no peer ID");
  t.end();
});

await t.test("records from the future do not count, beyond what clocks differ by", (t) => {
  t.ok(reader.verify(signer.sign({ ...claim, time: NOW + 60_000 })));
  t.equal(reader.verify(signer.sign({ ...claim, time: NOW + 180_000 })), undefined);
  t.end();
});

await t.test("signed nonsense is no record either", (t) => {
  const bad = [
    { ...claim, registry: "../x" },
    { ...claim, tag: "a b" },
    { ...claim, time: 1.5 },
    { ...claim, kind: "other" },
    { ...claim, descriptor: { ...claim.descriptor, digest: "sha256:0" } },
    { ...claim, descriptor: { ...claim.descriptor, size: -1 } },
    { ...claim, descriptor: { ...claim.descriptor, mediaType: "x\r\nEvil: 1" } },
  ];
  for (const nonsense of bad)
    t.equal(
      reader.verify(signer.sign(JSON.parse(JSON.stringify(nonsense)))),
      undefined,
      JSON.stringify(nonsense),
    );
  for (const text of ["", "{}", "[]", "null", "x".repeat(10_000)]) t.equal(reader.verify(text), undefined);
  t.end();
});
