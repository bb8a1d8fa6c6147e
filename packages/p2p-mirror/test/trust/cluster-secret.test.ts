import { randomBytes } from "node:crypto";
import { chmod, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { silentLogger } from "@p2p-mirror/shared";
import t from "tap";
import { clusterSecrets, readClusterSecrets } from "../../src/trust/cluster-secret.ts";
import { loadIdentity, IDENTITY_FILE } from "../../src/trust/identity.ts";

await t.test(
  "the first file is used, all are accepted, whitespace around a secret does not count",
  async (t) => {
    const directory = t.testdir();
    const [one, two] = [randomBytes(32).toString("hex"), randomBytes(32).toString("base64")];
    const files = ["one", "two", "one-again"].map((name) => join(directory, name));
    await writeFile(files[0] ?? "", one);
    await writeFile(files[1] ?? "", ` ${two}\r\n\n`);
    await writeFile(files[2] ?? "", `\t${one}\n`);
    const secrets = await readClusterSecrets(files);
    t.equal(secrets.open, false);
    t.equal(secrets.accepted.length, 2, "the same secret twice is one");
    t.equal(secrets.first.id, clusterSecrets([Buffer.from(one)]).first.id);
    t.equal(secrets.accepted[1]?.id, clusterSecrets([Buffer.from(two)]).first.id);
  },
);

await t.test("no file: the open mesh, the same for everybody", async (t) => {
  const [one, two] = [await readClusterSecrets([]), await readClusterSecrets([])];
  t.equal(one.open, true);
  t.equal(one.first.id, two.first.id);
  t.same(one.accepted, [one.first]);
});

await t.test(
  "a secret that is too short, too long or not there is refused in words that name the file",
  async (t) => {
    const directory = t.testdir({ short: `${"x".repeat(31)}\n      `, long: "y".repeat(64 * 1024 + 1) });
    for (const [name, fix] of [
      ["short", /holds 31 bytes, fewer than 32; make one with: openssl rand/],
      ["long", /more than 65536 bytes/],
      ["absent", /cannot be read/],
    ] as const) {
      const file = join(directory, name);
      await t.rejects(readClusterSecrets([file]), {
        name: "ConfigError",
        code: "CONFIG_INVALID",
        field: "cluster-secret-file",
        value: file,
        fix,
      });
    }
  },
);

await t.test(
  "derived keys differ by secret and purpose, are stable, and the secret cannot be read back",
  async (t) => {
    const text = "correct horse battery staple, twice over";
    const secret = clusterSecrets([Buffer.from(text)]).first;
    const again = clusterSecrets([Buffer.from(text)]).first;
    t.same(secret.derive("a", 32), again.derive("a", 32));
    t.notSame(secret.derive("a", 32), secret.derive("b", 32));
    t.notSame(secret.derive("a", 32), clusterSecrets([Buffer.from(`${text}!`)]).first.derive("a", 32));
    t.match(secret.id, /^[0-9a-f]{16}$/);
    t.notMatch(inspect(secret, { depth: 9, showHidden: true }), /horse/);
    t.notMatch(JSON.stringify(secret), /horse/);
  },
);

await t.test(
  "the identity is made once, only readable for its owner, and comes back at the next start",
  async (t) => {
    const directory = join(t.testdir(), "data");
    const first = await loadIdentity(directory, silentLogger());
    const file = join(directory, IDENTITY_FILE);
    t.equal((await stat(file)).mode & 0o777, 0o600);
    await chmod(file, 0o644);
    const second = await loadIdentity(directory, silentLogger());
    t.equal(second.id, first.id);
    t.match(first.id, /^12D3KooW/);
    t.equal((await stat(file)).mode & 0o777, 0o600, "a mode that is too open is put right");
  },
);

await t.test("a file that holds no identity is said, not silently replaced", async (t) => {
  const directory = t.testdir({ [IDENTITY_FILE]: "not a key" });
  await t.rejects(loadIdentity(directory, silentLogger()), { name: "ConfigError", fix: /delete the file/ });
});

await t.test("what is no file there is named, with what to do", async (t) => {
  const directory = t.testdir({ [IDENTITY_FILE]: {} });
  await t.rejects(loadIdentity(directory, silentLogger()), {
    name: "ConfigError",
    value: join(directory, IDENTITY_FILE),
    fix: /EISDIR.*make it a file/,
  });
});

await t.test("a directory stands for the files in it by name, as a Secret is mounted", async (t) => {
  const [one, two] = [randomBytes(32).toString("hex"), randomBytes(32).toString("hex")];
  const mounted = { second: two, first: one, "..data": { first: "not looked at" } };
  const directory = t.testdir({ secret: mounted, empty: {}, many: {} });
  const secrets = await readClusterSecrets([join(directory, "secret")]);
  t.same(
    secrets.accepted.map(({ id }) => id),
    [one, two].map((text) => clusterSecrets([Buffer.from(text)]).first.id),
  );
  for (let i = 0; i < 9; i += 1) await writeFile(join(directory, "many", `${i}`), one);
  for (const [name, count] of [
    ["empty", 0],
    ["many", 9],
  ] as const) {
    await t.rejects(readClusterSecrets([join(directory, name)]), {
      name: "ConfigError",
      fix: `a directory must hold 1 to 8 secrets; it holds ${count}`,
    });
  }
});
