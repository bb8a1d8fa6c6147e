import { createServer } from "node:net";
import { once } from "node:events";
import { SourceError } from "@p2p-mirror/shared";
import t from "tap";
import type { Check } from "../../src/doctor/check.ts";
import { CHECKS } from "../../src/doctor/checks.ts";
import { canary } from "../../src/doctor/checks/canary.ts";
import { clock } from "../../src/doctor/checks/clock.ts";
import { configPath } from "../../src/doctor/checks/config-path.ts";
import { containerdVersion } from "../../src/doctor/checks/containerd-version.ts";
import { discardedLayers } from "../../src/doctor/checks/discarded-layers.ts";
import { disk } from "../../src/doctor/checks/disk.ts";
import { hostsFiles } from "../../src/doctor/checks/hosts-files.ts";
import { neverAsked } from "../../src/doctor/checks/never-asked.ts";
import { peers } from "../../src/doctor/checks/peers.ts";
import { ports } from "../../src/doctor/checks/ports.ts";
import { registryMirrors } from "../../src/doctor/checks/registry-mirrors.ts";
import { upstreams } from "../../src/doctor/checks/upstreams.ts";
import { installHosts } from "../../src/hosts/hosts.ts";
import type { Finding } from "../../src/status.ts";
import { MIRROR, reportOf, STATUS, type Given } from "./subject.ts";

interface Case {
  readonly check: Check;
  readonly given: Given;
  readonly finds: Readonly<Partial<Record<keyof Finding, RegExp | string>>> & {
    readonly what: RegExp;
    /** The exact change. */
    readonly fix: RegExp;
  };
}

const upstream = { registry: "docker.io", state: "ok" } as const;
const peer = { id: "12D3KooWPeer", address: "10.0.0.2:24221" } as const;

const CASES: Readonly<Record<string, Case>> = {
  "config_path is missing": {
    check: configPath,
    given: { config: { configPath: "" } },
    finds: {
      severity: "broken",
      what: /config_path is not set/,
      fix: /config_path = "\/etc\/containerd\/certs\.d"/,
    },
  },
  "config_path is a list, and the transfer service pulls": {
    check: configPath,
    given: { config: { configPath: "/etc/containerd/certs.d:/etc/docker/certs.d" } },
    finds: {
      severity: "broken",
      what: /several directories/,
      why: /transfer service/,
      fix: /set in \/etc.*: \[.*\] config_path = "\/etc\/containerd\/certs\.d" \(one directory\), and restart containerd/,
    },
  },
  "config_path is another directory": {
    check: configPath,
    given: { config: { configPath: "/etc/elsewhere" } },
    finds: {
      severity: "broken",
      what: /\/etc\/elsewhere.*hosts_dir is \/etc\/containerd\/certs\.d/,
      fix: /set hosts_dir .* to \/etc\/elsewhere .*on Kubernetes P2P_MIRROR_HOSTS_DIR/,
    },
  },
  "the CRI plugin is off": {
    check: configPath,
    given: { config: { criDisabled: true } },
    finds: {
      severity: "broken",
      what: /disabled_plugins/,
      fix: /take the CRI plugin out of disabled_plugins, and restart containerd/,
    },
  },
  "the deprecated mirrors": {
    check: registryMirrors,
    given: { config: { deprecated: ["mirrors"], configPath: "" } },
    finds: { severity: "broken", what: /registry\.mirrors/, fix: /hosts\.toml/ },
  },
  "the deprecated configs": {
    check: registryMirrors,
    given: { config: { deprecated: ["configs"] } },
    finds: {
      severity: "warning",
      what: /registry\.configs/,
      fix: /hosts\.toml files .*, and take it out of \/etc/,
    },
  },
  "layers are thrown away": {
    check: discardedLayers,
    given: { config: { discardUnpackedLayers: true } },
    finds: {
      severity: "warning",
      what: /throws layers away/,
      fix: /set discard_unpacked_layers = false in \/etc.*, and restart containerd/,
    },
  },
  "containerd cannot pin": {
    check: containerdVersion,
    given: { version: "1.6.20~ds1" },
    finds: { severity: "warning", what: /1\.6\.20/, fix: /1\.6\.25, 1\.7\.10, 2\.0/ },
  },
  "images come, and nobody asks": {
    check: neverAsked,
    given: { images: [{ name: "docker.io/library/nginx:1", createdAt: Date.UTC(2026, 10, 2) }] },
    finds: {
      severity: "warning",
      what: /docker\.io\/library\/nginx:1/,
      fix: /p2p-mirror doctor pulls a canary/,
    },
  },
  "the clock is behind": {
    check: clock,
    given: { status: { upstreams: [{ ...upstream, skewSeconds: 7200 }] } },
    finds: { severity: "broken", what: /7200 s behind/, fix: /NTP/ },
  },
  "the clock is ahead": {
    check: clock,
    given: {
      status: {
        upstreams: [
          { ...upstream, skewSeconds: -120 },
          { ...upstream, skewSeconds: -119 },
        ],
      },
    },
    finds: { severity: "warning", what: /120 s ahead of that of 2 of 2/, fix: /timedatectl set-ntp true/ },
  },
  "a certificate is not valid at this time": {
    check: clock,
    given: { status: { upstreams: [{ ...upstream, state: "unreachable", error: "CERT_NOT_YET_VALID" }] } },
    finds: { severity: "broken", what: /docker\.io is not valid/, fix: /NTP.*certificate must be renewed/ },
  },
  "a data directory that is not there": {
    check: disk,
    given: { settings: { dataDir: "/nowhere/at/all" } },
    finds: { severity: "broken", what: /ENOENT/, fix: /make \/nowhere\/at\/all a directory/ },
  },
  "a disk that is nearly full": {
    check: disk,
    given: { settings: { dataDir: "/tmp", minFree: (total) => total * 2 } },
    finds: { severity: "warning", what: /cache_min_free/, fix: /free \d+ MiB/ },
  },
  "an upstream that is away": {
    check: upstreams,
    given: { status: { upstreams: [{ ...upstream, state: "unreachable", error: "ENOTFOUND" }] } },
    finds: { severity: "warning", what: /docker\.io does not answer \(ENOTFOUND\)/, fix: /name servers/ },
  },
  "a host of hosts.toml whose certificate nobody knows": {
    check: upstreams,
    given: {
      status: {
        upstreams: [
          { ...upstream, host: "https://m.test", state: "unreachable", error: "SELF_SIGNED_CERT_IN_CHAIN" },
        ],
      },
    },
    finds: { what: /docker\.io at https:\/\/m\.test/, fix: /certificate authority/ },
  },
  "an upstream that has had enough": {
    check: upstreams,
    given: {
      status: { upstreams: [{ ...upstream, state: "rate-limited", retryAt: "2026-11-01T00:00:00Z" }] },
    },
    finds: { severity: "warning", what: /limited.*2026-11-01/, fix: /docker_config/ },
  },
  "another secret": {
    check: peers,
    given: { status: { bootstrap: [{ address: "/ip4/10.0.0.2/tcp/24222", reason: "other-secret" }] } },
    finds: { severity: "broken", what: /another cluster secret/, fix: /cluster_secret_file/ },
  },
  "another secret, while others are fine": {
    check: peers,
    given: {
      status: {
        bootstrap: [{ address: "/ip4/10.0.0.3/tcp/24222", reason: "other-secret" }],
        peers: [{ ...peer, state: "up" }],
      },
    },
    finds: {
      severity: "warning",
      what: /another cluster secret/,
      fix: /the same file as cluster_secret_file/,
    },
  },
  "nobody to be led by": {
    check: peers,
    given: { status: { bootstrap: [{ address: "10.0.0.2:24222", reason: "timeout" }] } },
    finds: { severity: "broken", what: /no answer/, fix: /firewalls/ },
  },
  "nobody that could be asked for others": {
    check: peers,
    given: { settings: { knowsNobody: true } },
    finds: {
      severity: "warning",
      what: /nothing that leads to another node/,
      fix: /bootstrap \(HOST:24222\)/,
    },
  },
  "a peer whose data port is closed": {
    check: peers,
    given: { status: { peers: [{ ...peer, state: "broken" }] } },
    finds: {
      severity: "warning",
      what: /10\.0\.0\.2:24221 cannot be reached/,
      fix: /allow TCP to 10\.0\.0\.2:24221/,
    },
  },
  "a peer whose answers stop": {
    check: peers,
    given: { status: { peers: [{ ...peer, state: "up", faults: 4 }] } },
    finds: { severity: "warning", what: /4 answers did not come/, fix: /MTU/ },
  },
};

for (const [title, { check, given, finds }] of Object.entries(CASES)) {
  await t.test(title, async (t) => {
    const { findings, skipped } = await reportOf(check, given);
    t.same(skipped, []);
    t.equal(findings.length, 1);
    t.match(findings[0], { check: check.name, why: /\w{3}/, ...finds });
  });
}

await t.test("nothing is found where nothing is wrong", async (t) => {
  const fine: readonly [Check, Given][] = [
    [configPath, {}],
    [configPath, { settings: { hostsDir: undefined } }],
    // Up to 2.0, and with a local pull, a list is a list.
    [
      configPath,
      { version: "1.7.24", config: { configPath: "/etc/containerd/certs.d:/etc/docker/certs.d" } },
    ],
    [
      configPath,
      { config: { configPath: "/etc/containerd/certs.d:/x", localPull: ["use_local_image_pull"] } },
    ],
    [registryMirrors, {}],
    [discardedLayers, {}],
    ...["1.6.36", "1.7.10", "2.0.0", "2.4.2", "3.0.0"].map((version): [Check, Given] => [
      containerdVersion,
      { version },
    ]),
    [neverAsked, { images: [{ name: "a/b:c", createdAt: Date.UTC(2026, 9, 2) }] }],
    [neverAsked, { images: [{ name: "sha256:0", createdAt: Date.UTC(2026, 10, 2) }] }],
    [
      neverAsked,
      {
        status: { node: { ...STATUS.node, requests: 1 } },
        images: [{ name: "a/b:c", createdAt: Date.UTC(2026, 10, 2) }],
      },
    ],
    [clock, { status: { upstreams: [{ ...upstream, skewSeconds: 2 }] } }],
    // One registry alone has a wrong clock.
    [clock, { status: { upstreams: [0, 1, 500].map((skewSeconds) => ({ ...upstream, skewSeconds })) } }],
    [disk, { settings: { dataDir: "/tmp" } }],
    [upstreams, { status: { upstreams: [upstream] } }],
    [peers, { status: { peers: [{ ...peer, state: "up", faults: 1 }] } }],
    [
      peers,
      { status: { peers: [{ ...peer, state: "up" }], bootstrap: [{ address: "x:1", reason: "refused" }] } },
    ],
    // Others came to it: it is the one that leads them.
    [peers, { settings: { knowsNobody: true }, status: { peers: [{ ...peer, state: "up" }] } }],
    [ports, {}],
  ];
  for (const [check, given] of fine) {
    const { findings, skipped } = await reportOf(check, given);
    t.same({ findings, skipped }, { findings: [], skipped: [] }, `${check.name} ${JSON.stringify(given)}`);
  }
});

await t.test("what the mirror would have to say is not known while none runs", async (t) => {
  for (const check of [clock, upstreams, peers, neverAsked, canary]) {
    const { findings, skipped } = await reportOf(check, { status: null });
    t.same(findings, []);
    t.match(skipped, [{ check: check.name, why: /no mirror runs/ }]);
  }
});

await t.test("hosts.toml files that do not name the mirror first", async (t) => {
  const certs = t.testdir({
    "a.test": { "hosts.toml": '[host."https://m.example"]\n' },
    "b.test": { "hosts.toml": "broken" },
    "c.test": { "hosts.toml": 'server = "https://c.test"\n' },
  });
  const settings = { hostsDir: certs, without: new Set(["c.test"]) };
  const before = await reportOf(hostsFiles, { settings });
  t.match(before.findings, [
    { severity: "broken", what: /_default/, fix: /p2p-mirror hosts install --hosts-dir/ },
    { what: /a\.test.*m\.example/ },
    { what: /no TOML/, fix: /correct .*b\.test/ },
  ]);
  t.equal(before.findings.length, 3, "not the registry that is to go past the mirror");
  await installHosts({ hostsDir: certs, mirror: MIRROR, registries: ["_default", "a.test"] });
  const after = await reportOf(hostsFiles, { settings });
  t.match(after.findings, [{ what: /no TOML/ }]);
  t.equal(after.findings.length, 1);
});

await t.test("hosts.toml files that the mirror does not understand", async (t) => {
  const rewrite = '[host."https://m.example"]\n[host."https://m.example".rewrite]\n"^(.*)" = "x/$1"\n';
  const certs = t.testdir({
    _default: { "hosts.toml": '[host."https://m.example"]\n  ca = "/etc/elsewhere/ca.crt"\n' },
    "a.test:5000": { "hosts.toml": rewrite },
    "Told.test": { "hosts.toml": rewrite },
    "left-out.test": { "hosts.toml": rewrite },
    "fine.test": { "hosts.toml": '[host."https://m.example"]\n' },
  });
  await installHosts({ hostsDir: certs, mirror: MIRROR, registries: [] });
  const settings = { hostsDir: certs, without: new Set(["left-out.test"]), told: new Set(["told.test"]) };
  const { findings } = await reportOf(hostsFiles, { settings });
  t.match(findings, [
    {
      severity: "broken",
      what: /_default\/hosts\.toml: .*\/etc\/elsewhere\/ca\.crt cannot be read/,
      why: /asks nobody for images of registries without a directory/,
      fix: /where the mirror can read it/,
    },
    {
      severity: "broken",
      what: /a\.test:5000\/hosts\.toml: .*rewrite: this mirror does not/,
      why: /asks nobody for images of a\.test:5000; containerd pulls them past it/,
      fix: /registries: \{ "a\.test:5000": \{ mirror: false \} \}/,
    },
  ]);
  t.equal(findings.length, 2, "not what its settings speak of");
  const unread = await reportOf(hostsFiles, {
    settings: { hostsDir: undefined },
    config: { configPath: certs },
  });
  t.same(unread.findings, [], "a mirror without hosts_dir does not read them");
});

await t.test("ports that others have, with their name, only while no mirror runs", async (t) => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(() => void server.close());
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const listeners = [
    { setting: "registry_listen", host: "127.0.0.1", port },
    { setting: "peer_listen", host: "192.0.2.1", port: 24221 },
    { setting: "admin_listen", host: "127.0.0.1", port: 0 },
  ];
  const { findings } = await reportOf(ports, { status: null, settings: { listeners } });
  t.match(findings, [
    {
      severity: "broken",
      what: /registry_listen 127\.0\.0\.1:\d+ is taken by .*\(pid \d+\)/,
      fix: /another port/,
    },
    { what: /peer_listen 192\.0\.2\.1:24221 is no address of this node/ },
  ]);
  t.equal(findings.length, 2);
  t.same((await reportOf(ports, { settings: { listeners } })).findings, []);
});

await t.test("the canary: it arrives, or containerd says what it did instead", async (t) => {
  const certs = t.testdir({});
  await installHosts({ hostsDir: certs, mirror: MIRROR, registries: [] });
  const settings = { hostsDir: certs };
  const seen: string[] = [];
  const node = { ...STATUS.node, canaries: seen };
  let ended = false;
  const arriving = await reportOf(canary, {
    settings,
    status: { node },
    pull: async (reference, signal) => {
      seen.push(reference.split(":").at(-1) ?? "");
      t.match(reference, /^canary\.p2p-mirror\.invalid\/p2p-mirror\.invalid\/canary:[0-9a-f]{16}$/);
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
      ended = true;
      throw signal.reason;
    },
  });
  t.same(arriving.findings, []);
  t.equal(ended, true, "the pull does not go on");

  const past = await reportOf(canary, {
    settings,
    pull: () =>
      Promise.reject(new SourceError("STATUS", "the container runtime", { message: "no such host" })),
  });
  t.match(past.findings, [{ check: "canary", severity: "broken", why: /no such host/ }]);

  const some = t.testdir({ "a.test": {} });
  await installHosts({ hostsDir: some, mirror: MIRROR, registries: ["a.test"] });
  const asked: string[] = [];
  await reportOf(canary, {
    settings: { hostsDir: some },
    pull: async (reference) => void asked.push(reference),
  });
  t.match(asked, [/^a\.test\/p2p-mirror\.invalid\/canary:/]);
});

await t.test("checks have names of their own, which the metric uses", async (t) => {
  const names = CHECKS.map(({ name }) => name);
  t.equal(new Set(names).size, names.length);
  t.ok(names.every((name) => /^[a-z][a-z-]+$/.test(name)));
});
