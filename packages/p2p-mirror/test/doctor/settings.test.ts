import t from "tap";
import type { FlagValues } from "@p2p-mirror/shared/config";
import { loadMirrorConfig } from "../../src/config/load.ts";
import { doctorSettings } from "../../src/doctor/settings.ts";

async function settingsOf(flags: FlagValues): Promise<ReturnType<typeof doctorSettings>> {
  const { config } = await loadMirrorConfig(
    { flags, env: {}, configPath: undefined },
    { allAddresses: "0.0.0.0" },
  );
  return doctorSettings(config, "http://127.0.0.1:24220");
}

await t.test("a mirror that is to be one of many, and that nothing leads to another", async (t) => {
  const secret: FlagValues = { cluster_secret_file: ["/etc/secret"] };
  t.ok((await settingsOf(secret)).knowsNobody);
  t.notOk((await settingsOf({})).knowsNobody, "one without a secret is alone on purpose");
  t.notOk((await settingsOf({ ...secret, bootstrap: ["10.0.0.2:24222"] })).knowsNobody);
  const service = { bootstrap_service: "p2p-mirror/p2p-mirror", kubernetes_api: "10.0.0.1:443" };
  t.notOk((await settingsOf({ ...secret, ...service })).knowsNobody);
});

await t.test("registries whose settings say where they are need no hosts.toml", async (t) => {
  const { told } = await settingsOf({ upstream: ["a.test=https://b.test"] });
  t.same([...told], ["a.test"]);
});
