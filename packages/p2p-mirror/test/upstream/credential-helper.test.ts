import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import t, { type Test } from "tap";
import { askHelper } from "../../src/upstream/credential-helper.ts";
import { NAME, setup } from "./rig.ts";

const USERS = { robot: "from-the-helper" };

/** A real program `docker-credential-<name>` on a PATH of its own. */
async function helper(
  t: Test,
  name: string,
  script: string,
): Promise<{ dir: string; env: { PATH: string } }> {
  const dir = t.testdir({});
  const program = join(dir, `docker-credential-${name}`);
  await writeFile(program, `#!/bin/sh\n${script}\n`);
  await chmod(program, 0o755);
  return { dir, env: { PATH: `${dir}:/usr/bin:/bin` } };
}

const ask = async (t: Test, script: string, timeoutMs = 5000) => {
  const { env } = await helper(t, "test", script);
  return askHelper("test", "https://r.test", { timeoutMs, env });
};

void t.test("the protocol: the server on stdin, the login as JSON on stdout", async (t) => {
  t.same(
    await ask(
      t,
      `read server; [ "$1" = get ] && echo "{\\"ServerURL\\":\\"$server\\",\\"Username\\":\\"u\\",\\"Secret\\":\\"p\\"}"`,
    ),
    { kind: "basic", username: "u", password: "p" },
  );
  t.same(await ask(t, `echo '{"Username":"<token>","Secret":"refresh"}'`), {
    kind: "identity",
    token: "refresh",
  });
  t.equal(await ask(t, "echo 'credentials not found in native keychain'; exit 1"), undefined);
});

void t.test("what goes wrong is an error that never quotes what the helper printed", async (t) => {
  const scripts = [
    ["echo my-secret; exit 1", 5000],
    ["echo my-secret", 5000],
    [`echo '{"Secret":"my-secret"}'`, 5000],
    ["echo my-secret; exec sleep 60", 200],
    ["yes my-secret", 5000],
    ["exec <&-; echo my-secret", 5000],
  ] as const;
  for (const [script, timeoutMs] of scripts) {
    const failed = await ask(t, script, timeoutMs).then(
      () => undefined,
      (error: unknown) => error,
    );
    t.match(failed, { name: "CredentialHelperError" }, script);
    t.notMatch(String(failed), /my-secret/, script);
  }
  await t.rejects(askHelper("../../bin/sh", "x", { timeoutMs: 100, env: {} }), {
    name: "CredentialHelperError",
  });
  await t.rejects(askHelper("absent", "x", { timeoutMs: 100, env: {} }), { name: "CredentialHelperError" });
});

void t.test("credHelpers and credsStore of a docker config are asked, once a minute", async (t) => {
  const { dir, env } = await helper(
    t,
    "cloud",
    `read server; echo "$server" >> "$(dirname "$0")/asked"; echo '{"Username":"robot","Secret":"from-the-helper"}'`,
  );
  for (const config of [{ credHelpers: { [NAME]: "cloud" } }, { credsStore: "cloud" }]) {
    const file = join(dir, "config.json");
    await writeFile(file, JSON.stringify(config));
    await writeFile(join(dir, "asked"), "");
    const { upstream, image, repository, metric, registry } = await setup(t, {
      registry: { auth: { kind: "basic", users: USERS } },
      upstream: { dockerConfigFile: file, helperEnv: env },
    });
    const all = await Promise.all(Array.from({ length: 5 }, () => upstream.resolve(repository, "v1")));
    t.ok(all.every((one) => one.digest === image.digest));
    t.equal(await metric("p2p_mirror_upstream_credential_helper_runs_total", { outcome: "found" }), 1);
    registry.faults.set([{ status: 403 }]);
    await t.rejects(upstream.resolve(repository, "v1"), { code: "DENIED" });
    registry.faults.clear();
    await upstream.resolve(repository, "v1");
    t.equal(
      await metric("p2p_mirror_upstream_credential_helper_runs_total", { outcome: "found" }),
      2,
      "a login that was refused is asked for again",
    );
  }
});

void t.test("a helper that fails means no login, and the entries of the file still count", async (t) => {
  const { dir, env } = await helper(t, "broken", "exit 3");
  const file = join(dir, "config.json");
  const auth = Buffer.from("robot:from-the-helper").toString("base64");
  await writeFile(file, JSON.stringify({ credsStore: "broken", auths: { [NAME]: { auth } } }));
  const { upstream, image, repository, metric } = await setup(t, {
    registry: { auth: { kind: "basic", users: USERS } },
    upstream: { dockerConfigFile: file, helperEnv: env },
  });
  t.equal((await upstream.resolve(repository, "v1")).digest, image.digest);
  t.ok((await metric("p2p_mirror_upstream_credential_helper_runs_total", { outcome: "failed" })) >= 1);
});
