import t from "tap";
import { saysWhere } from "../src/index.ts";

await t.test(
  "settings that say where a registry is, and those that only say what is kept of it",
  async (t) => {
    const nothing = {
      url: undefined,
      ca: [],
      clientCert: undefined,
      skipVerify: false,
      headers: {},
      overridePath: false,
    };
    for (const without of [undefined, {}, nothing]) t.notOk(saysWhere(without));
    for (const one of [
      { url: "https://m.example" },
      { ca: ["PEM"] },
      { clientCert: { cert: "PEM", key: "PEM" } },
      { skipVerify: true },
      { headers: { "x-key": "secret" } },
      { overridePath: true },
    ])
      t.ok(saysWhere({ ...nothing, ...one }), Object.keys(one).join());
  },
);
