import t from "tap";
import {
  ConfigError,
  FORMATS,
  parseConfigFile,
  resolveSettings,
  type FlagValues,
  type GroupSchema,
} from "@p2p-mirror/shared/config";

const SCHEMA = {
  type: "object",
  additionalProperties: false,
  properties: {
    cache_size: { type: ["string", "integer"], format: "size", default: "1KiB" },
    data_dir: { type: "string", format: "path" },
    policy: { type: "string", enum: ["strict", "lax"], default: "strict" },
    dry_run: { type: "boolean", default: false },
    peers: { type: "array", items: { type: "string", format: "host-port" } },
    secret_text: { type: "string", format: "duration", "x-sensitive": true, "x-env": ["SECRET_TEXT"] },
    registries: {
      type: "object",
      "x-key-format": "registry",
      additionalProperties: {
        type: "object",
        additionalProperties: false,
        properties: {
          url: { type: "string", format: "http-url" },
          mirrors: { type: "array", items: { type: "string" } },
          headers: { type: "object", additionalProperties: { type: "string", "x-sensitive": true } },
          skip: { type: "boolean", default: false },
        },
      },
    },
  },
} as const satisfies GroupSchema;

interface Given {
  readonly flags?: FlagValues;
  readonly env?: Readonly<Record<string, string>>;
  readonly yaml?: string;
}

async function resolve({ flags = {}, env = {}, yaml }: Given) {
  const file = yaml === undefined ? undefined : await parseConfigFile("app.yaml", yaml);
  return resolveSettings(SCHEMA, FORMATS, "APP_", { flags, env, file });
}

await t.test("without anything the defaults count, parsed like anything else", async (t) => {
  const { values, origins } = await resolve({});
  t.equal(values.cacheSize, 1024);
  t.equal(values.dataDir, undefined);
  t.equal(values.policy, "strict");
  t.equal(values.dryRun, false);
  t.same(values.peers, []);
  t.equal(values.registries.size, 0);
  t.equal(origins.get("cache_size")?.kind, "default");
});

await t.test("a flag counts before a variable, that before the file, that before the default", async (t) => {
  const flags = { cache_size: "4" };
  const env = { APP_CACHE_SIZE: "3" };
  const yaml = "cache_size: 2";
  t.equal((await resolve({ flags, env, yaml })).values.cacheSize, 4);
  t.equal((await resolve({ env, yaml })).values.cacheSize, 3);
  t.equal((await resolve({ yaml })).values.cacheSize, 2);
  t.same((await resolve({ flags, env, yaml })).origins.get("cache_size"), {
    kind: "flag",
    name: "--cache-size",
  });
});

await t.test("a list is taken from one place as a whole", async (t) => {
  const yaml = "peers: [a:1, b:2]";
  t.same((await resolve({ yaml, env: { APP_PEERS: " c:3 , d:4 ," } })).values.peers, [
    { host: "c", port: 3 },
    { host: "d", port: 4 },
  ]);
  t.same((await resolve({ yaml, flags: { peers: ["e:5"] } })).values.peers, [{ host: "e", port: 5 }]);
});

await t.test("an empty variable is not set, and so is a key without a value", async (t) => {
  t.equal((await resolve({ env: { APP_CACHE_SIZE: "" }, yaml: "cache_size: 2" })).values.cacheSize, 2);
  t.equal((await resolve({ yaml: "cache_size:\npeers:\n" })).values.cacheSize, 1024);
  t.equal((await resolve({ yaml: "# nothing\n" })).values.cacheSize, 1024);
});

await t.test("switches are true and false, and in the environment 1 and 0", async (t) => {
  t.equal((await resolve({ flags: { dry_run: true } })).values.dryRun, true);
  for (const [text, value] of Object.entries({ true: true, "1": true, false: false, "0": false })) {
    t.equal(
      (await resolve({ env: { APP_DRY_RUN: text }, yaml: "dry_run: true" })).values.dryRun,
      value,
      text,
    );
  }
  await t.rejects(resolve({ env: { APP_DRY_RUN: "yes" } }), {
    code: "CONFIG_INVALID",
    field: "APP_DRY_RUN",
    fix: "give true or false",
  });
  await t.rejects(resolve({ yaml: "dry_run: 1" }), { code: "CONFIG_INVALID", field: "app.yaml:1: dry_run" });
});

await t.test("tables have names of the user's choice, checked and in one spelling", async (t) => {
  const { values } = await resolve({
    yaml: "registries:\n  Docker.IO:\n    url: http://a/\n    headers: {x: y}\n  b:5000: {}\n  c:\n",
  });
  t.same([...values.registries.keys()], ["docker.io", "b:5000", "c"]);
  t.same(values.registries.get("docker.io"), {
    url: "http://a",
    mirrors: [],
    headers: new Map([["x", "y"]]),
    skip: false,
  });
  t.match(values.registries.get("c"), { url: undefined, skip: false });
});

await t.test("the result cannot be changed", async (t) => {
  const { values } = await resolve({ yaml: "peers: [a:1]\nregistries: {a: {mirrors: [x]}}" });
  for (const part of [
    values,
    values.peers,
    values.registries.get("a"),
    values.registries.get("a")?.mirrors,
  ]) {
    t.ok(Object.isFrozen(part));
  }
});

await t.test(
  "an error is one line that names the field, where it was set, the value and the fix",
  async (t) => {
    const cases: [Given, string][] = [
      [
        { flags: { cache_size: "3q" } },
        '--cache-size: "3q" is not valid: give a size like 20GiB, 512MiB, 10GB or a number of bytes',
      ],
      [{ env: { APP_POLICY: "x" } }, 'APP_POLICY: "x" is not valid: give one of strict, lax'],
      [{ yaml: "\n\npolicy: x" }, 'app.yaml:3: policy: "x" is not valid: give one of strict, lax'],
      [
        { yaml: "peers:\n  - a:1\n  - b" },
        'app.yaml:3: peers.1: "b" is not valid: give HOST:PORT, like mirror.example:24222 or [fd00::1]:24222',
      ],
      [{ yaml: "peers: a:1" }, 'app.yaml:1: peers: "a:1" is not valid: give a list'],
      [{ yaml: "data_dir: 5" }, 'app.yaml:1: data_dir: "5" is not valid: give a text, in quotes if need be'],
      [
        { yaml: "cache_size: 1.5" },
        'app.yaml:1: cache_size: "1.5" is not valid: give a text or a whole number',
      ],
      [
        { yaml: "registries:\n  a:\n    url: ftp://x" },
        'app.yaml:3: registries.a.url: "ftp://x" is not valid: give an http or https URL, like https://registry.example/prefix',
      ],
      [
        { yaml: "registries:\n  a_b!: {}" },
        'app.yaml:2: registries.a_b!: "a_b!" is not valid: give a registry by its host name, like docker.io or registry.example:5000',
      ],
      [
        { yaml: "registries:\n  a: {}\n  A: {}" },
        'app.yaml:3: registries.A: "A" is not valid: it is there twice; leave one',
      ],
    ];
    for (const [given, message] of cases) {
      const error: unknown = await resolve(given).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      t.ok(error instanceof ConfigError, message);
      t.equal(error instanceof Error ? error.message : undefined, message);
    }
  },
);

await t.test("a very long value is cut in the error", async (t) => {
  const error: unknown = await resolve({ flags: { policy: "x".repeat(100_000) } }).catch(
    (reason: unknown) => reason,
  );
  t.ok(error instanceof ConfigError && error.message.length < 500);
});

await t.test("a value that may be a credential is in no error", async (t) => {
  const secret = "hunter2";
  const cases: Given[] = [
    { flags: { secret_text: secret } },
    { env: { SECRET_TEXT: secret } },
    { yaml: `secret_text: ${secret}` },
    { yaml: `registries: {a: {headers: {x: [${secret}]}}}` },
    { yaml: `unknown_key: ${secret}` },
    { yaml: `policy: "${secret}\nx: [` },
  ];
  for (const given of cases) {
    const error: unknown = await resolve(given).catch((reason: unknown) => reason);
    t.ok(error instanceof ConfigError && !error.message.includes(secret), JSON.stringify(given));
  }
});

await t.test("an unknown key is an error with the one that was meant", async (t) => {
  await t.rejects(resolve({ yaml: "policy: lax\ncache_sise: 1" }), {
    code: "CONFIG_INVALID",
    field: "app.yaml:2: cache_sise",
    fix: 'there is no such setting; did you mean "cache_size"?',
  });
  await t.rejects(resolve({ yaml: "registries:\n  a:\n    Skip: true\n" }), {
    code: "CONFIG_INVALID",
    field: "app.yaml:3: registries.a.Skip",
    fix: 'there is no such setting; did you mean "skip"?',
  });
  await t.rejects(resolve({ yaml: "__proto__: {policy: lax}" }), {
    code: "CONFIG_INVALID",
    fix: /no such setting/,
  });
  await t.rejects(resolve({ yaml: "frobnicate: 1" }), {
    code: "CONFIG_INVALID",
    fix: /known are cache_size, data_dir/,
  });
});

await t.test(
  "a misspelt variable is told of; those that Kubernetes makes for Services are not",
  async (t) => {
    const { suspicious } = await resolve({
      env: {
        APP_CACHE_SISE: "1",
        APP_PORT: "tcp://10.0.0.1:1",
        APP_POLICY_PORT_80_TCP_ADDR: "10.0.0.1",
        APP_POLICY_SERVICE_HOST: "10.0.0.1",
        APP_SOMETHING_ELSE_ENTIRELY: "x",
        OTHER_CACHE_SISE: "x",
      },
    });
    t.same(suspicious, [{ variable: "APP_CACHE_SISE", meant: "APP_CACHE_SIZE" }]);
  },
);

await t.test("a file that is no YAML, or no map, is told with its line", async (t) => {
  await t.rejects(resolve({ yaml: "policy: lax\n  bad: [" }), {
    code: "CONFIG_INVALID",
    field: /^app.yaml:\d/,
  });
  await t.rejects(resolve({ yaml: "policy: lax\npolicy: lax" }), {
    code: "CONFIG_INVALID",
    field: /^app.yaml:2/,
    fix: /unique/,
  });
  for (const yaml of ["- a", "text", "5"])
    await t.rejects(resolve({ yaml }), { code: "CONFIG_INVALID", field: "app.yaml:1" }, yaml);
});

await t.test("a file of aliases of aliases ends in an error, not in memory", async (t) => {
  const lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"];
  for (let level = 1; level < 12; level++) {
    const inner = Array.from({ length: 10 }, () => `*a${level - 1}`).join(",");
    lines.push(`a${level}: &a${level} [${inner}]`);
  }
  await t.rejects(resolve({ yaml: "policy: *nobody" }), { code: "CONFIG_INVALID" });
  await t.rejects(resolve({ yaml: lines.join("\n") }), { code: "CONFIG_INVALID" });
});

await t.test("no error shows a credential that was given with a wrong value", async (t) => {
  for (const yaml of [
    "registries: {a: {url: 'http://me:hunter2@b'}}",
    "registries: {a: {url: 'http://b/?sig=hunter2'}}",
    "registries: {a: {url: 'http://me:hunter2@b:99999'}}",
    "registries: {a: {headers: 'Bearer hunter2'}}",
    "registries: {a: {headers: {x: [hunter2]}}}",
    "registries: {a: [hunter2]}",
    "registries: hunter2",
    "secret_text: hunter2",
    "password: hunter2",
  ]) {
    const error: unknown = await resolve({ yaml }).catch((reason: unknown) => reason);
    t.ok(error instanceof ConfigError, yaml);
    t.notMatch(String(error), /hunter2/, yaml);
    t.match(
      String(error),
      /app.yaml:1: .+: ".+" is not valid: ./,
      "it names field, value and fix all the same",
    );
  }
});
