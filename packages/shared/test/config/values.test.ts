import t, { type Test } from "tap";
import {
  formatHostPort,
  FORMATS,
  isAllAddresses,
  isLoopback,
  parseAmount,
  parseDuration,
  parseHostPort,
  parseHttpUrl,
  parseListenAddress,
  parseSize,
} from "@p2p-mirror/shared/config";

type Case = readonly [text: string, value: unknown];

async function check(
  t: Test,
  parse: (text: string) => unknown,
  right: readonly Case[],
  wrong: readonly string[],
) {
  for (const [text, value] of right) t.same(parse(text), value, JSON.stringify(text));
  for (const text of wrong) t.throws(() => parse(text), { name: "InvalidValue" }, JSON.stringify(text));
}

await t.test("sizes are binary with i, decimal without, whole bytes in the end", (t) =>
  check(
    t,
    parseSize,
    [
      ["0", 0],
      ["1048576", 1_048_576],
      ["20GiB", 20 * 1024 ** 3],
      ["20Gi", 20 * 1024 ** 3],
      ["512MiB", 512 * 1024 ** 2],
      ["1.5KiB", 1536],
      ["10GB", 10_000_000_000],
      ["1 TiB", 1024 ** 4],
      ["7B", 7],
      ["2gib", 2 * 1024 ** 3],
    ],
    ["", "GiB", "-1", "1e9", "1G", "20 Gigs", "0x10", "1,5GiB", "9999999TiB", "Infinity", "10%"],
  ),
);

await t.test("amounts are a share of a whole or a size", (t) =>
  check(
    t,
    parseAmount,
    [
      ["10%", { fraction: 0.1 }],
      ["0%", { fraction: 0 }],
      ["99 %", { fraction: 0.99 }],
      ["12.5%", { fraction: 0.125 }],
      ["5GiB", { bytes: 5 * 1024 ** 3 }],
    ],
    ["100%", "101%", "-1%", "%", "ten%", "10q"],
  ),
);

await t.test("durations need a unit, and their units add up", (t) =>
  check(
    t,
    parseDuration,
    [
      ["250ms", 250],
      ["30s", 30_000],
      ["5m", 300_000],
      ["1h30m", 5_400_000],
      ["1h 30m", 5_400_000],
      ["7d", 604_800_000],
      ["0s", 0],
      ["1.5s", 1500],
    ],
    ["", "5", "m", "5 minutes", "5m3", "-5m", "5M", "1y", "5mm", "99999999999999d"],
  ),
);

await t.test("listen addresses may leave the host out, and may have port 0", (t) =>
  check(
    t,
    parseListenAddress,
    [
      ["127.0.0.1:24220", { host: "127.0.0.1", port: 24220 }],
      ["0.0.0.0:1", { host: "0.0.0.0", port: 1 }],
      [":24221", { host: undefined, port: 24221 }],
      ["[::1]:80", { host: "::1", port: 80 }],
      ["[::]:0", { host: "::", port: 0 }],
      ["localhost:5000", { host: "localhost", port: 5000 }],
      ["node-1.example:65535", { host: "node-1.example", port: 65_535 }],
    ],
    [
      "",
      "127.0.0.1",
      "24220",
      "::1:80",
      "[::1]",
      "[::g]:1",
      "[1.2.3.4]:1",
      "127.0.0.300:1",
      "1.2.3:1",
      "a b:1",
      "a:65536",
      "a:-1",
      "a:1x",
      "http://a:1",
      "-a:1",
      "[]:1",
    ],
  ),
);

await t.test("addresses of others need both halves", (t) =>
  check(
    t,
    parseHostPort,
    [
      ["mirror.kube-system.svc:24222", { host: "mirror.kube-system.svc", port: 24222 }],
      ["[fd00::1]:24222", { host: "fd00::1", port: 24222 }],
    ],
    [":24222", "mirror", "mirror:0", "fd00::1:24222"],
  ),
);

await t.test("an address is written as it was read", async (t) => {
  for (const text of ["127.0.0.1:1", "[::1]:2", "host.example:3"])
    t.equal(formatHostPort(parseHostPort(text)), text);
});

await t.test("loopback is 127.0.0.0/8, ::1 and localhost, and nothing that looks like it", async (t) => {
  for (const host of [
    "127.0.0.1",
    "127.8.9.10",
    "::1",
    "localhost",
    "LOCALHOST",
    "::ffff:127.0.0.1",
    "0::1",
  ]) {
    t.ok(isLoopback(host), host);
  }
  for (const host of [
    "0.0.0.0",
    "::",
    "10.0.0.1",
    "127.evil.example",
    "localhost.example",
    "1.127.0.0",
    "fe80::1",
  ]) {
    t.notOk(isLoopback(host), host);
  }
});

await t.test("all addresses are 0.0.0.0 and ::, however they are written", async (t) => {
  for (const host of ["0.0.0.0", "::", "::0", "0:0:0:0:0:0:0:0"]) t.ok(isAllAddresses(host), host);
  for (const host of ["0.0.0.1", "::1", "0", "", "localhost"]) t.notOk(isAllAddresses(host), host);
});

await t.test("the address that others are told is one host's", (t) =>
  check(
    t,
    FORMATS.address,
    [
      ["10.0.0.1", "10.0.0.1"],
      ["127.0.0.1", "127.0.0.1"],
      ["[fd00::1]", "fd00::1"],
      ["240.0.0.1", "240.0.0.1"],
    ],
    [
      "",
      "node.example",
      "10.0.0.1:24221",
      "0.0.0.0",
      "0.1.2.3",
      "::",
      "0::0",
      "224.0.0.1",
      "239.255.255.255",
      "::ffff:224.0.0.1",
      "255.255.255.255",
      "ff02::1",
      "fe80::1%eth0",
    ],
  ),
);

await t.test("registry URLs may have a path, but no user, query or fragment", (t) =>
  check(
    t,
    parseHttpUrl,
    [
      ["https://registry.example", "https://registry.example"],
      ["http://10.0.0.5:5000/", "http://10.0.0.5:5000"],
      ["https://harbor.example/proxy/hub//", "https://harbor.example/proxy/hub"],
      ["HTTPS://Registry.Example", "https://registry.example"],
    ],
    [
      "",
      "registry.example",
      "ftp://a",
      "https://",
      "https://user:pw@a",
      "https://a?x=1",
      "https://a/#x",
      "unix:///run/x",
    ],
  ),
);
