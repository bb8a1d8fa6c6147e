import { digestOf } from "@p2p-mirror/shared";
import protobuf from "protobufjs";
import t from "tap";
import { MAX_PIECES, packBits } from "../../src/swarm/bitmap.ts";
import { createSwarmCodec } from "../../src/swarm/codec.ts";
import { MAX_MESSAGE_BYTES, SwarmProtocolError, type SwarmMessage } from "../../src/swarm/messages.ts";
import { MAX_NEIGHBOURS } from "../../src/swarm/mesh-graph.ts";
import { createEnvelope } from "../../src/swarm/schema.ts";
import { seeded } from "./rig.ts";

const codec = createSwarmCodec();
const envelope = createEnvelope();
const raw = (message: Record<string, unknown>): Uint8Array =>
  envelope.encode(envelope.fromObject(message)).finish();

const digest = digestOf(Buffer.from("a blob"));
const contact = {
  id: "12D3KooWH2fea41fyVgM3AR2nkimwnnQbSDnnpsnmbToeRm74weg",
  host: "2001:db8::1",
  port: 24222,
};
const join = {
  digest,
  size: 1_000,
  host: "10.0.0.1",
  port: 1,
  contactPort: 1,
  zone: "",
  load: 0,
  have: Buffer.alloc(0),
  leases: [],
  again: false,
  unauthorized: false,
  hops: 0,
  avoid: [],
};

await t.test("the largest messages that there are fit", (t) => {
  const have = Buffer.from(packBits(MAX_PIECES, () => true));
  const zone = "z".repeat(63);
  const neighbours = Array.from({ length: MAX_NEIGHBOURS }, () => ({
    peer: contact,
    contact,
    zone,
    load: 1,
    left: false,
    have,
  }));
  const pieces = Array.from({ length: 256 }, (_, at) => MAX_PIECES - 1 - at);
  const largest: SwarmMessage[] = [
    {
      kind: "told",
      leases: [],
      neighbours,
      gone: [],
      fetchers: 1,
      pausedMs: 0,
      brought: 0,
      zoneRank: 0,
      zoneSize: 0,
    },
    { kind: "join", ...join, zone, have },
    {
      kind: "progress",
      pieces: Array.from({ length: MAX_PIECES }, (_, piece) => piece),
      leases: [],
      load: 1,
      unreachable: [],
      lost: [],
      holders: [],
    },
    {
      kind: "have",
      pieces,
      hashes: pieces.map((piece) => ({
        piece,
        sha256: Buffer.alloc(32),
        signer: contact.id,
        signature: Buffer.alloc(64),
      })),
      load: 0,
    },
  ];
  for (const message of largest) {
    const bytes = codec.encode(message);
    t.ok(bytes.byteLength < MAX_MESSAGE_BYTES, `${message.kind}: ${bytes.byteLength} bytes`);
    t.same(codec.decode(bytes), message);
  }
  t.end();
});

await t.test("whatever is out of bounds makes the whole message refused", (t) => {
  const refused: Record<string, Record<string, unknown>> = {
    "no message at all": {},
    "no digest": { join: { ...join, digest: "sha256:short" } },
    "a name for a host": { join: { ...join, host: "localhost" } },
    "no port": { join: { ...join, port: 0 } },
    "a port that is none": { join: { ...join, contactPort: 65_536 } },
    "a zone that is too long": { join: { ...join, zone: "z".repeat(64) } },
    "control characters": { join: { ...join, zone: "a\nb" } },
    "a load above one": { join: { ...join, load: 1.5 } },
    "a load that is no number": { join: { ...join, load: Number.NaN } },
    "a bitmap that is too long": { join: { ...join, have: Buffer.alloc(1_025) } },
    "too many avoided": { join: { ...join, avoid: Array.from({ length: 17 }, () => "a") } },
    "an ID that is none": { join: { ...join, avoid: ["../etc"] } },
    "too many hops": { join: { ...join, hops: 17 } },
    "a size beyond numbers": { merge: { digest, size: "18446744073709551615" } },
    "a lease beyond pieces": { told: { leases: [{ id: 1, first: 0, end: MAX_PIECES + 1 }] } },
    "too many leases": { told: { leases: Array.from({ length: 257 }, () => ({ id: 1, first: 0, end: 1 })) } },
    "a neighbour without an address": { told: { neighbours: [{ peer: contact }] } },
    "too many neighbours": {
      told: { neighbours: Array.from({ length: 17 }, () => ({ peer: contact, contact })) },
    },
    "a piece that cannot be": { progress: { pieces: [MAX_PIECES] } },
    "a hash that is too short": {
      have: { hashes: [{ piece: 0, sha256: Buffer.alloc(31), signer: "a", signature: Buffer.alloc(64) }] },
    },
    "a signature that is too long": {
      have: { hashes: [{ piece: 0, sha256: Buffer.alloc(32), signer: "a", signature: Buffer.alloc(65) }] },
    },
    "a reason that is none": { handBack: { lease: 1, why: "mood" } },
    "a redirect to nowhere": { redirect: {} },
  };
  for (const [what, message] of Object.entries(refused)) {
    t.throws(() => codec.decode(raw(message)), SwarmProtocolError, what);
  }
  t.throws(() => codec.decode(Buffer.alloc(MAX_MESSAGE_BYTES + 1)), SwarmProtocolError, "too long");
  t.same(codec.decode(raw({ join })), { kind: "join", ...join }, "what is within them is not");
  t.end();
});

await t.test("what a newer program adds to a message is passed over; a message that is new is none", (t) => {
  const next = createEnvelope();
  for (const name of ["Join", "Lease", "Contact", "Envelope"]) {
    next.root.lookupType(name).add(new protobuf.Field("added", 99, "string"));
  }
  const fromNext = (message: Record<string, unknown>): Uint8Array =>
    next.encode(next.fromObject(message)).finish();
  const lease = { id: 1, first: 0, end: 4 };
  const message = { join: { ...join, leases: [{ ...lease, added: "a" }], added: "b" }, added: "c" };
  t.same(codec.decode(fromNext(message)), { kind: "join", ...join, leases: [lease] });
  t.same(codec.decode(fromNext({ redirect: { to: { ...contact, added: "d" } } })), {
    kind: "redirect",
    to: contact,
  });
  t.throws(() => codec.decode(fromNext({ added: "of a kind that is not known" })), SwarmProtocolError);
  t.end();
});

await t.test("random bytes and random damage never do more than be refused, 5,000 times", (t) => {
  const random = seeded(42);
  const whole = codec.encode({
    kind: "join",
    ...join,
    avoid: ["a", "b"],
    leases: [{ id: 5, first: 0, end: 4 }],
  });
  let taken = 0;
  for (let nth = 0; nth < 5_000; nth += 1) {
    const bytes = nth % 2 === 0 ? Buffer.from(whole) : Buffer.alloc(Math.floor(random() * 200));
    for (let at = 0; at < (nth % 2 === 0 ? 3 : bytes.length); at += 1) {
      bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
    }
    try {
      codec.decode(bytes);
      taken += 1;
    } catch (error) {
      if (!(error instanceof SwarmProtocolError)) throw error;
    }
  }
  t.ok(taken < 5_000, `${taken} were messages by chance`);
  t.end();
});
