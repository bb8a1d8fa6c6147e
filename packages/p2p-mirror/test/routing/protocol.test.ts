import { createHash, randomBytes } from "node:crypto";
import { networkInterfaces } from "node:os";
import { peerIdFromMultihash } from "@libp2p/peer-id";
import { multiaddr } from "@multiformats/multiaddr";
import { create as createDigest } from "multiformats/hashes/digest";
import t from "tap";
import {
  advertiseAddress,
  dataPlaneOf,
  libp2pAddressOf,
  parseHostPort,
  routedAddress,
} from "../../src/routing/addresses.ts";
import { keyHashOf } from "../../src/routing/key.ts";
import { Members } from "../../src/routing/members.ts";
import { decodePeers, encodePeers } from "../../src/routing/peer-list.ts";
import { decodeMessage, encodeMessage, MAX_KEYS_PER_MESSAGE } from "../../src/routing/records-protocol.ts";
import { newIdentity } from "../../src/trust/identity.ts";
import { seededNumbers } from "../conformance/seeded.ts";

const plain = (list: ReturnType<typeof decodePeers>): unknown =>
  list.map(({ peerId, host, port }) => ({ id: peerId.toString(), host, port }));

const address = (host: string, internal = false, family: "IPv4" | "IPv6" = "IPv4") =>
  family === "IPv4"
    ? { address: host, internal, family, netmask: "", mac: "", cidr: null }
    : { address: host, internal, family, netmask: "", mac: "", cidr: null, scopeid: 0 };

await t.test("messages come out as they went in", (t) => {
  const keys = Array.from({ length: MAX_KEYS_PER_MESSAGE }, (_, i) => keyHashOf(`tag:${i}`));
  for (const operation of ["announce", "withdraw", "leave", "find", "meet"] as const) {
    for (const some of [[], keys.slice(0, 1), keys]) {
      const message = { operation, keys: some };
      t.strictSame(decodeMessage(encodeMessage(message)), message);
    }
  }
  t.end();
});

await t.test("what is no message is refused", (t) => {
  const bad = [
    Buffer.alloc(0),
    Buffer.from([0]),
    Buffer.from([6]),
    Buffer.from([255, ...randomBytes(32)]),
    Buffer.alloc(2, 1),
    Buffer.alloc(32, 1),
    Buffer.alloc(34, 1),
    Buffer.alloc(1 + 32 * (MAX_KEYS_PER_MESSAGE + 1), 1),
  ];
  for (const bytes of bad) {
    t.throws(() => decodeMessage(bytes), { name: "RecordsProtocolError" }, `${bytes.byteLength} bytes`);
  }
  t.end();
});

await t.test(
  "lists of peers: IPv4 and IPv6, cut and damaged ones end in RangeError, never in a wrong address",
  async (t) => {
    const peers = await Promise.all(
      ["10.1.2.3", "2001:db8::1", "127.0.0.1"].map(async (host, i) => ({
        id: (await newIdentity()).id,
        host,
        port: 65_535 - i,
      })),
    );
    const bytes = encodePeers(peers);
    t.strictSame(plain(decodePeers(bytes, 10)), peers);
    t.strictSame(plain(decodePeers(bytes, 2)), peers.slice(0, 2), "not more than asked for");
    t.strictSame(decodePeers(new Uint8Array(0), 10), []);
    for (let length = 1; length < bytes.byteLength; length += 1) {
      try {
        t.ok(decodePeers(bytes.subarray(0, length), 10).length < 3);
      } catch (error) {
        t.match(error, { name: "RangeError" }, `${length} bytes`);
      }
    }
    const seed = "lists of peers";
    const random = seededNumbers(seed);
    for (let run = 0; run < 2_000; run += 1) {
      const damaged = Buffer.from(bytes);
      damaged[random(damaged.byteLength)] = random(256);
      try {
        for (const { host, port } of decodePeers(damaged, 10)) {
          if (!/^[0-9a-fA-F.:]+$/.test(host) || port < 1 || port > 65_535) t.fail(`${host} ${port}`);
        }
      } catch (error) {
        if (!(error instanceof RangeError)) t.fail(String(error));
      }
    }
  },
);

await t.test(
  "a node's addresses: the data plane is the one with /tls/http, libp2p's the bare one",
  async (t) => {
    const { id } = await newIdentity();
    const announced = [
      multiaddr("/ip4/10.0.0.1/udp/1/quic-v1"),
      multiaddr(`/ip4/10.0.0.1/tcp/24222/p2p/${id}`),
      multiaddr(`/ip4/10.0.0.1/tcp/24221/tls/http/p2p/${id}`),
    ];
    t.strictSame(dataPlaneOf(announced), { host: "10.0.0.1", port: 24_221 });
    t.strictSame(libp2pAddressOf(announced), { host: "10.0.0.1", port: 24_222 });
    for (const other of [
      "/dns4/evil.test/tcp/1/tls/http",
      "/ip4/1.2.3.4/tcp/1/tls/ws",
      "/ip4/1.2.3.4/tcp/1/http",
    ]) {
      t.equal(dataPlaneOf([multiaddr(other)]), undefined, other);
    }
    t.end();
  },
);

await t.test("the address others are told", (t) => {
  const interfaces = {
    lo: [address("127.0.0.1", true)],
    docker0: [address("172.17.0.1")],
    cni0: [address("10.244.0.1")],
    eth0: [address("fe80::1", false, "IPv6"), address("2001:db8::5", false, "IPv6"), address("192.168.1.5")],
  };
  t.equal(advertiseAddress("0.0.0.0", undefined, interfaces), "192.168.1.5");
  t.equal(advertiseAddress("::", undefined, { eth0: interfaces.eth0.slice(0, 2) }), "2001:db8::5");
  t.equal(advertiseAddress("0.0.0.0", "203.0.113.7", interfaces), "203.0.113.7", "what is given counts");
  t.equal(advertiseAddress("127.0.0.1", undefined, interfaces), "127.0.0.1");
  t.equal(advertiseAddress("192.168.1.9", undefined, interfaces), "192.168.1.9");
  t.equal(advertiseAddress("0.0.0.0", undefined, { lo: interfaces.lo }), "127.0.0.1", "nothing but loopback");
  const several = { ...interfaces, wlan0: [address("10.9.8.7")] };
  t.equal(
    advertiseAddress("0.0.0.0", undefined, several, "10.9.8.7"),
    "10.9.8.7",
    "the default route counts",
  );
  t.equal(advertiseAddress("0.0.0.0", undefined, several, "10.0.0.99"), "192.168.1.5", "if it is an own one");
  t.equal(advertiseAddress("0.0.0.0", undefined, several, "127.0.0.1"), "192.168.1.5", "and no loopback");
  t.end();
});

await t.test("host:port of the bootstrap", (t) => {
  t.strictSame(parseHostPort("mirror.kube-system.svc:24222", "bootstrap"), {
    host: "mirror.kube-system.svc",
    port: 24_222,
  });
  t.strictSame(parseHostPort("[2001:db8::1]:1", "bootstrap"), { host: "2001:db8::1", port: 1 });
  for (const bad of [
    "",
    "host",
    "host:",
    ":1",
    "host:0",
    "host:65536",
    "2001:db8::1:5",
    "http://host:1",
    "a b:1",
  ]) {
    t.throws(() => parseHostPort(bad, "bootstrap"), { name: "ConfigError", field: "bootstrap" }, bad);
  }
  t.end();
});

await t.test("the closest members are those a full sort by distance gives", async (t) => {
  const members = new Members();
  for (let i = 0; i < 40; i += 1) members.connected((await newIdentity()).peerId);
  const random = seededNumbers("closest");
  for (let run = 0; run < 200; run += 1) {
    const position = random(2 ** 32);
    const count = 1 + random(10);
    const sorted = [...members]
      .toSorted((a, b) => ((a.position ^ position) >>> 0) - ((b.position ^ position) >>> 0))
      .slice(0, count);
    t.strictSame(
      members.closest(position, count).map((member) => member.id),
      sorted.map((member) => member.id),
      `run ${run}`,
    );
  }
  t.equal(members.closest(0, 100).length, 40, "all, when there are fewer");
});

await t.test("the default route's source address is one of this host, or there is none", async (t) => {
  const routed = await routedAddress();
  const own = Object.values(networkInterfaces()).flatMap((all) => (all ?? []).map(({ address }) => address));
  t.ok(routed === undefined || own.includes(routed), `${routed}`);
});

await t.test("members that find no room are not forgotten as if there were none", async (t) => {
  const members = new Members();
  const ids = [];
  for (let nth = 0; nth < 5_001; nth += 1) {
    ids.push(peerIdFromMultihash(createDigest(0x12, createHash("sha256").update(`node ${nth}`).digest())));
  }
  for (const id of ids.slice(0, 5_000)) members.heardOf(id, { host: "10.0.0.1", port: 1 });
  t.equal(members.turnedAway, false);
  for (const id of ids.slice(5_000)) t.equal(members.heardOf(id, { host: "10.0.0.1", port: 1 }), false);
  t.equal(members.turnedAway, true);
  members.remove(String(ids[0]));
  t.equal(members.turnedAway, false);
});
